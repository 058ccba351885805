"""A Docker engine: one that the test starts inside its namespaces, or one that the user names."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import host
from tools import Json, run, until

RUNNING = Path("/run") / host.NAME
SOCKET = RUNNING / "docker.sock"
# The addresses inside the namespaces, apart from those of slirp4netns.
POOL, BRIDGE = "172.30.0.0/16", "172.29.0.1/24"
RESOLVER = "10.0.2.3"


class Engine:
    """The programs `docker` and `docker-compose`, for one engine. `outside` is an address beyond all
    networks of the engine."""

    def __init__(self, env: dict[str, str], compose: str, logs: Path, outside: str | None = None) -> None:
        self.env, self.program, self.logs, self.outside = env, compose, logs, outside

    def docker(self, *arguments: str, log: str | None = None, ok: tuple[int, ...] = (0,)) -> str:
        return run("docker", *arguments, env=self.env, log=self.logs / log if log else None, ok=ok)

    def compose(self, *arguments: str, log: str | None = None, **variables: str) -> str:
        return run(
            self.program, *arguments, env=self.env | variables, log=self.logs / log if log else None
        )

    def has(self, image: str) -> bool:
        return bool(self.docker("images", "-q", image).strip())

    def inspect(self, name: str) -> Json:
        found: list[Json] = json.loads(self.docker("inspect", name))
        return found[0]

    def version(self) -> str:
        form = "{{.ServerVersion}}, {{.Driver}}, cgroup v{{.CgroupVersion}}"
        return self.docker("info", "--format", form).strip()


def named(name: str, compose: str, logs: Path) -> Engine:
    """The engine of the user: `docker` is the one that `docker` talks to, anything else its address."""
    return Engine(variables() | ({} if name == "docker" else {"DOCKER_HOST": name}), compose, logs)


def variables() -> dict[str, str]:
    """The environment without what the compose file would read."""
    ours = {"WORKERS", "THREADS", "RUN", "CALTECH101", "PRETRAINED"}
    return {name: value for name, value in os.environ.items() if name not in ours} | {"DOCKER_BUILDKIT": "1"}


def furnish() -> None:
    """Gives the namespaces what an engine writes to outside its folders: their own /run and
    /etc/docker, and a resolver that is reachable from there."""
    resolver = Path("/etc/resolv.conf").resolve()
    run("mount", "-t", "tmpfs", "tmpfs", "/run")
    RUNNING.mkdir()
    if Path("/etc/docker").is_dir():
        run("mount", "-t", "tmpfs", "tmpfs", "/etc/docker")
    ours = RUNNING / "resolv.conf"
    ours.write_text(f"nameserver {RESOLVER}\n")
    if resolver.is_relative_to("/run"):
        resolver.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ours, resolver)
    else:
        run("mount", "--bind", ours, resolver)
    run("ip", "link", "set", "lo", "up")


@contextmanager
def own(state: Path, compose: str, logs: Path) -> Iterator[Engine]:
    """An engine in `state`, which keeps its images and build cache for the next test."""
    data = state / "engine"
    # What a test that was killed left would start by itself, and disturb this one.
    for left in ("containers", "volumes", "network"):
        shutil.rmtree(data / left, ignore_errors=True)
    configuration = RUNNING / "daemon.json"
    configuration.write_text("{}")
    client = RUNNING / "client"
    client.mkdir()
    env = variables() | {"DOCKER_HOST": f"unix://{SOCKET}", "DOCKER_CONFIG": str(client)}
    env.pop("DOCKER_CONTEXT", None)
    engine = Engine(env, compose, logs, outside=f"{RESOLVER}:53")
    logs.mkdir(parents=True, exist_ok=True)
    with (logs / "dockerd.log").open("w") as log:
        daemon = subprocess.Popen(
            [
                "dockerd", f"--config-file={configuration}", f"--host=unix://{SOCKET}",
                f"--data-root={data}", f"--exec-root={RUNNING}/exec", f"--pidfile={RUNNING}/pid",
                f"--cgroup-parent=/{host.NAME}", "--exec-opt=native.cgroupdriver=cgroupfs",
                f"--bip={BRIDGE}", f"--default-address-pool=base={POOL},size=24",
            ],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )
    try:
        until("dockerd", 60, lambda: answers(engine, daemon, logs / "dockerd.log"))
        yield engine
    finally:
        daemon.terminate()
        try:
            daemon.wait(30)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()


def answers(engine: Engine, daemon: subprocess.Popen[bytes], log: Path) -> bool:
    if daemon.poll() is not None:
        tail = "\n  ".join(log.read_text().splitlines()[-5:])
        # Not `Failed`, which `until` would wait on.
        raise RuntimeError(f"dockerd ended with exit code {daemon.returncode} (all of it: {log})\n  {tail}")
    engine.docker("version")
    return True
