"""What a deployment survives: a killed, a crashed and a drained worker, a restarted coordinator."""

import time

from deployment import Deployment
from tools import Failed, until

# The time that the compose file gives a worker and the coordinator to stop.
WORKER_GRACE, COORDINATOR_GRACE = 30, 60
# Kills the program and not tini, which as the first process ignores the signal: a crash.
CRASH = 'for p in /proc/[0-9]*; do read -r name < $p/comm; [ "$name" != worker ] || kill -KILL ${p#/proc/}; done'


def killed(deployment: Deployment) -> str:
    """`docker kill`, after which Docker starts the container only when told to."""
    worker, before = deployment.containers("worker-cpu")[0], deployment.moment()
    began = time.monotonic()
    deployment.engine.docker("kill", worker)
    if (code := deployment.state(worker)["ExitCode"]) != 137:
        raise Failed(f"{worker} was killed and has exit code {code}")
    deployment.engine.docker("start", worker)
    deployment.trains(after=before.generation)
    return f"all train {time.monotonic() - began:.1f} s after docker kill and docker start"


def crashed(deployment: Deployment) -> str:
    """SIGKILL of the program: Docker starts the container again by itself."""
    worker, before = deployment.containers("worker-cpu")[1], deployment.moment()
    restarts = deployment.engine.inspect(worker)["RestartCount"]
    began = time.monotonic()
    # The shell may be gone before it exits.
    deployment.engine.docker("exec", worker, "/bin/sh", "-c", CRASH, ok=(0, 137))
    deployment.trains(after=before.generation)
    took = time.monotonic() - began
    if deployment.engine.inspect(worker)["RestartCount"] != restarts + 1:
        raise Failed(f"Docker did not restart {worker} once")
    recovered = [event["seconds"] for event in deployment.moment().events if event["event"] == "recovered"]
    return f"all train {took:.1f} s after the crash; the coordinator counts {recovered[-1]:.1f} s"


def drained(deployment: Deployment) -> str:
    """SIGTERM: the worker hands over its state and exits with code 0; the others go on."""
    worker, before = deployment.containers("worker-cpu")[0], deployment.moment()
    took = stop(deployment, worker, WORKER_GRACE, {0})
    until("steps without the drained worker", 60, lambda: deployment.moment().position > before.position)
    deployment.engine.docker("start", worker)
    deployment.trains(after=before.generation)
    return f"exit code 0 after {took:.1f} s; started again, all train"


def coordinator_restarted(deployment: Deployment) -> str:
    """`docker restart`: the run continues where it was, and is not another one."""
    (coordinator,), before = deployment.containers("coordinator"), deployment.moment()
    began = time.monotonic()
    deployment.engine.docker("restart", "--time", str(COORDINATOR_GRACE), coordinator)

    def resumed() -> bool:
        now = deployment.moment()
        return now.state == "training" and now.world == deployment.workers and now.position >= before.position

    until("the resumed run with all workers", 90, resumed)
    deployment.trains()
    took = time.monotonic() - began
    now = deployment.moment()
    if not any(event["event"] == "resumed" for event in now.events):
        raise Failed("the run was not resumed")
    return f"resumed at epoch {before.position[0]}, all train {took:.1f} s after docker restart"


def stopped(deployment: Deployment) -> str:
    """`docker compose stop`: everything ends within its time, and nothing is killed."""
    began = time.monotonic()
    deployment.compose("stop", log="stop.log")
    took = time.monotonic() - began
    codes = {name: deployment.state(name)["ExitCode"] for name in deployment.all()}
    if 137 in codes.values() or any(code for name, code in codes.items() if "worker" in name):
        raise Failed(f"exit codes after compose stop: {codes}")
    return f"all stopped in {took:.1f} s, exit codes {sorted(set(codes.values()))}"


def stop(deployment: Deployment, container: str, grace: int, codes: set[int]) -> float:
    began = time.monotonic()
    deployment.engine.docker("stop", "--time", str(grace), container)
    took = time.monotonic() - began
    state = deployment.state(container)
    if state["ExitCode"] not in codes or took > grace:
        raise Failed(f"{container} ended with exit code {state['ExitCode']} after {took:.1f} s")
    return took
