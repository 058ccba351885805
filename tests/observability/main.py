#!/usr/bin/env python3
"""Shows that what is in deploy/prometheus and deploy/grafana holds: the files are sound, a real
Prometheus that scrapes real runs has data for every question of the dashboards, nothing fires in a
run that goes well, and the alerts fire when something is done to a run. `make observability` runs
it. Needs promtool and prometheus, and the packages of requirements.txt; it installs nothing.
"""

import argparse
import importlib.util
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
DEPLOY, GRAFANA = ROOT / "deploy/prometheus", ROOT / "deploy/grafana"

# Questions without an answer here, and why.
NEEDS_A_GPU = {"Utilisation", "Memory used", "Temperature", "Power", "Last XID error"}
NEEDS_A_LOSS = {"Recoveries", "Mean time of a recovery"}
# Alerts that no run here sets off; tests/firing.yml in deploy/prometheus shows that they fire.
ONLY_BY_RULE_TEST = {"FinetuneGpuXid": "no GPU", "FinetuneDataWait": "the demo set is in memory",
                     "FinetuneCheckpointTooOld": "no disk that refuses"}
# With their patience shortened to seconds these see what two busy cores do to any run.
NERVOUS = {"FinetuneStraggler", "FinetuneDataWait"}


def missing():
    wanted = {"promtool": "Debian's package prometheus", "prometheus": "Debian's package prometheus"}
    lacks = [f"{name} ({source})" for name, source in wanted.items() if not shutil.which(name)]
    modules = [name for name in ("grafana_foundation_sdk", "matplotlib", "yaml") if not importlib.util.find_spec(name)]
    if modules:
        lacks.append(f"Python's {', '.join(modules)} (pip install -r {ROOT / 'tests/observability/requirements.txt'})")
    return lacks


if lacks := missing():
    sys.exit("missing: " + "; ".join(lacks))

import pictures  # noqa: E402
import schema  # noqa: E402
import yaml  # noqa: E402
from expressions import panels  # noqa: E402
from prom import SHORT, Prometheus, until  # noqa: E402
from runs import ENDLESS, HeldThread, Run  # noqa: E402


def say(line):
    print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)


def sound_files():
    for command in (
        ["promtool", "check", "config", DEPLOY / "prometheus.yml"],
        ["promtool", "check", "rules", *(DEPLOY / "rules").glob("*.yml")],
        ["promtool", "test", "rules", *(DEPLOY / "tests").glob("*.yml")],
        [sys.executable, GRAFANA / "dashboards.py", "--check"],
    ):
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}:\n{done.stdout}{done.stderr}"
    for rule in rules():
        if "alert" in rule:
            notes = rule["annotations"]
            assert rule["labels"]["severity"] in ("critical", "warning", "info"), rule["alert"]
            assert notes["summary"] and notes["description"] and notes["runbook"], rule["alert"]
    schema.check(GRAFANA / "dashboards")
    say("files: sound")


def rules():
    for path in (DEPLOY / "rules").glob("*.yml"):
        for group in yaml.safe_load(path.read_text())["groups"]:
            yield from group["rules"]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Bench:
    """The runs, and the Prometheus that watches them."""

    def __init__(self, programs, folder, pictures_in):
        self.programs, self.folder, self.pictures = programs, folder, pictures_in
        self.prometheus = Prometheus(folder / "prometheus", DEPLOY, free_port())
        self.fired = set()

    def run(self, name, *flags):
        run = Run(self.programs, self.folder, name, *flags)
        self.prometheus.watch(run.address)
        return run

    def sees(self, alert, seconds=40):
        """Waits until `alert` fires; it is pending before, if it has any patience."""

        until(f"{alert} fires", seconds, lambda: alert in self.seen())
        patient = any(rule.get("alert") == alert and "for" in rule for rule in rules())
        waited = f'count_over_time(ALERTS{{alertname="{SHORT}{alert}", alertstate="pending"}}[10m])'
        assert not patient or self.prometheus.at(waited, time.time()), f"{alert} was never pending"
        say(f"  {alert}: {'pending, then ' if patient else ''}firing")

    def now(self):
        """The impatient alerts that fire."""
        states = self.prometheus.alerts().items()
        return {name.removeprefix(SHORT) for name, of in states if name.startswith(SHORT) and "firing" in of}

    def seen(self):
        """The impatient alerts that have fired so far, those of now included."""
        self.fired |= self.now()
        return self.fired

    def answered(self, run, without):
        """Whether the dashboards have data of `run`, but for the titles `without`."""
        empty = []
        for panel in panels(GRAFANA / "dashboards"):
            for expr, _, instant in panel.filled(run.name):
                found = self.prometheus.at(expr, run.ended) if instant else self.prometheus.over(expr, run.began, run.ended)
                if not found and panel.title not in without:
                    empty.append(f"{panel.dashboard} / {panel.title}: {expr}")
        assert not empty, "no data for\n" + "\n".join(empty)

    def draw(self, run):
        for title in ("Run", "Fleet", "Coordinator"):
            drawn = [p for p in panels(GRAFANA / "dashboards")
                     if p.dashboard == title and p.title not in NEEDS_A_GPU and p.kind != "annotation"]
            path = self.pictures / f"{run.name}-{title.lower()}.png"
            pictures.draw(path, title, drawn, self.prometheus, run)
            say(f"  {path}")

    def end(self):
        self.prometheus.end()


def goes_well(bench):
    """Nothing fires while workers gather and train, nor afterwards, but that it stopped early."""
    say("a run that goes well")
    with bench.run("well", "--limit-per-class=30", "--epochs=40", "--patience=4",
                   "--layer-lr=uniform=1e-3", "--metrics-linger=20") as run:
        while run.process.poll() is None:
            firing(bench)
            time.sleep(0.5)
        assert run.wait(1) == 0, run.output.read_text()
    deadline = time.monotonic() + 70
    while time.monotonic() < deadline:
        firing(bench)
        time.sleep(1)
    bench.sees("FinetuneEarlyStop")
    bench.answered(run, NEEDS_A_GPU | NEEDS_A_LOSS)
    for rule in rules():
        if "record" in rule and not rule["record"].startswith("rank:dcgm"):
            assert bench.prometheus.over(rule["record"], run.began, run.ended), f"{rule['record']} has no data"
    bench.draw(run)
    say("  nothing fired in 70 s after it, and every panel has data")


def firing(bench):
    let = {"FinetuneEarlyStop", *(SHORT + name for name in NERVOUS | {"FinetuneEarlyStop"})}
    fires = {name for name, states in bench.prometheus.alerts().items() if "firing" in states}
    assert fires <= let, f"fires in a run that goes well: {fires}"


def loses_workers(bench):
    """A worker that stops answering, one that hangs in its step, one that is slow; then the coordinator dies."""
    say("a run that loses workers")
    with bench.run("faults", *ENDLESS, "--stall-timeout=25", "--max-restarts=9") as run:
        until("a few steps", 60, lambda: run.steps() > 20)
        stopped = run.both()[1]
        os.kill(stopped, signal.SIGSTOP)
        bench.sees("FinetuneWorkerLost")
        until("a replacement", 60, lambda: run.value('finetune_workers{state="healthy"}') == 2
              and run.value('finetune_workers{state="lost"}') == 0)
        if stopped in run.workers():
            os.kill(stopped, signal.SIGKILL)
        before = run.steps()
        until("further steps", 60, lambda: run.steps() > before + 20)
        held = run.both()[1]
        with HeldThread(held):
            bench.sees("FinetuneNoProgress")
            until("the hung one is put down", 60, lambda: run.value(
                'finetune_recovery_duration_seconds_count{cause="worker_put_down"}') >= 1)
        # A new worker may be slow at first; this is about one that stays so.
        until("all are equally fast", 60, lambda: "FinetuneStraggler" not in bench.now())
        slow = run.both()[1]
        deadline = time.monotonic() + 60
        while "FinetuneStraggler" not in bench.now() and time.monotonic() < deadline:
            os.kill(slow, signal.SIGSTOP)
            time.sleep(0.08)
            os.kill(slow, signal.SIGCONT)
            time.sleep(0.02)
        assert "FinetuneStraggler" in bench.now(), "nobody noticed the slow worker"
        bench.sees("FinetuneStraggler", 5)
        left = run.workers()
        run.process.kill()
        run.ended = time.time()
        bench.sees("FinetuneCoordinatorDown")
        for worker in left:
            os.kill(worker, signal.SIGKILL)
    # A coordinator that was killed gave no reason.
    bench.answered(run, NEEDS_A_GPU | {"Stop reason"})
    bench.draw(run)


def is_not_helped(bench):
    """A killed worker that nobody replaces, and then the last one."""
    say("a run that fails")
    with bench.run("fails", *ENDLESS, "--max-restarts=0", "--metrics-linger=20") as run:
        until("a few steps", 60, lambda: run.steps() > 20)
        os.kill(run.workers()[1], signal.SIGKILL)
        bench.sees("FinetuneWorkersMissing")
        assert run.value('finetune_workers{state="lost"}') == 1
        os.kill(run.workers()[0], signal.SIGKILL)
        bench.sees("FinetuneRunFailed")


def diverges(bench):
    """A learning rate at which the loss is soon no number."""
    say("a run whose loss is poisoned")
    with bench.run("poison", "--limit-per-class=12", "--layer-lr=uniform=1e30", "--metrics-linger=20") as run:
        bench.sees("FinetuneLossNotFinite", 60)
        assert run.wait(60) == 10, run.output.read_text()


SCENES = (goes_well, loses_workers, is_not_helped, diverges)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--coordinator", type=pathlib.Path, required=True)
    parser.add_argument("--worker", type=pathlib.Path, required=True)
    parser.add_argument("--only", choices=[scene.__name__ for scene in SCENES], help="one scene of all")
    parser.add_argument("--pictures", type=pathlib.Path, required=True, help="where the pictures go")
    arguments = parser.parse_args()
    sound_files()
    arguments.pictures.mkdir(parents=True, exist_ok=True)
    programs = {name: getattr(arguments, name).resolve() for name in ("coordinator", "worker")}
    with tempfile.TemporaryDirectory(prefix="observability-") as folder:
        bench = Bench(programs, pathlib.Path(folder), arguments.pictures.resolve())
        try:
            for scene in SCENES:
                if arguments.only in (None, scene.__name__):
                    scene(bench)
        finally:
            bench.end()
    if arguments.only:
        return
    silent = {rule["alert"] for rule in rules() if "alert" in rule} - bench.fired
    assert silent == set(ONLY_BY_RULE_TEST), f"these alerts did not fire: {silent}"
    for alert, why in ONLY_BY_RULE_TEST.items():
        say(f"{alert}: not set off here ({why}), only by its rule test")
    say(f"panels not answered here, for want of a GPU: {', '.join(sorted(NEEDS_A_GPU))}")
    say("all holds")


if __name__ == "__main__":
    main()
