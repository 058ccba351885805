#!/usr/bin/env python3
"""Tests deploy/prometheus and deploy/grafana with a real Prometheus that scrapes real runs: the files
are valid, every query of the dashboards has data, no alert fires in a run without faults, and each
alert fires after its fault. `make observability` runs it. It needs promtool and prometheus, and the
packages of requirements.txt; it installs nothing.
"""

import argparse
import importlib.util
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
DEPLOY, GRAFANA = ROOT / "deploy/prometheus", ROOT / "deploy/grafana"

# Alerts that fire in no run here, and why; deploy/prometheus/tests/firing.yml tests them.
ONLY_BY_RULE_TEST = {"FinetuneGpuXid": "no GPU", "FinetuneDataWait": "the demo set is in memory",
                     "FinetuneCheckpointTooOld": "no failing disk", "FinetuneDiskTooSlow": "no slow disk",
                     "FinetuneDriverOverloaded": "few workers"}
# With times of seconds these fire in any run on two busy cores.
SENSITIVE = {"FinetuneStraggler", "FinetuneDataWait", "FinetuneCheckpointTooOld"}


def missing():
    wanted = {"promtool": "Debian's package prometheus", "prometheus": "Debian's package prometheus"}
    lacks = [f"{name} ({source})" for name, source in wanted.items() if not shutil.which(name)]
    modules = [name for name in ("matplotlib", "yaml") if not importlib.util.find_spec(name)]
    if modules:
        lacks.append(f"Python's {', '.join(modules)} (pip install -r {ROOT / 'tests/observability/requirements.txt'})")
    return lacks


if lacks := missing():
    sys.exit("missing: " + "; ".join(lacks))

# After this folder, which has a main.py as well.
sys.path.append(str(ROOT / "tests/grafana"))

import drawing  # noqa: E402
import quiet  # noqa: E402
import yaml  # noqa: E402
from expressions import headings, panels  # noqa: E402
from free import free_port  # noqa: E402
from prom import SHORT, Prometheus, until  # noqa: E402
from runs import ENDLESS, HungThread, Run  # noqa: E402


def say(line):
    print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)


def check_files():
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
    say("files: valid")


def rules():
    for path in (DEPLOY / "rules").glob("*.yml"):
        for group in yaml.safe_load(path.read_text())["groups"]:
            yield from group["rules"]


class Bench:
    """The runs, and the Prometheus that scrapes them."""

    def __init__(self, programs, folder, drawings):
        self.programs, self.folder, self.drawings = programs, folder, drawings
        self.prometheus = Prometheus(folder / "prometheus", DEPLOY, free_port())
        self.fired = set()

    def run(self, name, *flags, watched=True, **options):
        run = Run(self.programs, self.folder, name, *flags, **options)
        if watched:
            self.prometheus.watch(run.address)
        return run

    def sees(self, alert, seconds=40):
        """Waits until `alert` fires, and checks that it was pending before if it has a `for` time."""

        until(f"{alert} to fire", seconds, lambda: alert in self.seen())
        delayed = any(rule.get("alert") == alert and "for" in rule for rule in rules())
        pending = f'count_over_time(ALERTS{{alertname="{SHORT}{alert}", alertstate="pending"}}[10m])'
        assert not delayed or self.prometheus.at(pending, time.time()), f"{alert} was never pending"
        say(f"  {alert}: {'pending, then ' if delayed else ''}firing")

    def now(self):
        """The shortened alerts that are firing."""
        states = self.prometheus.alerts().items()
        return {name.removeprefix(SHORT) for name, of in states if name.startswith(SHORT) and "firing" in of}

    def seen(self):
        """The shortened alerts that have fired so far."""
        self.fired |= self.now()
        return self.fired

    def answered(self, run, *reasons):
        """Checks that all queries have data of `run`, except those that may be empty for one of
        `reasons`."""
        empty = []
        for panel in panels(GRAFANA / "dashboards"):
            for expr, legend, instant in panel.filled(run.name):
                found = self.prometheus.at(expr, run.ended) if instant else self.prometheus.over(expr, run.began, run.ended)
                if not found and not quiet.allowed(panel.title, legend, quiet.GPU, quiet.EVENTS, *reasons):
                    empty.append(f"{panel.dashboard} / {panel.title}: {legend}: {expr}")
        assert not empty, "no data for\n" + "\n".join(empty)

    def shown(self, run, title):
        """The number of a panel for the time of `run`, until now if it has not ended; None if there is none."""
        panel = next(panel for panel in panels(GRAFANA / "dashboards") if panel.title == title and panel.content)
        ended = getattr(run, "ended", time.time())
        (expr, _, _), = panel.filled(run.name, ended - run.began)
        found = self.prometheus.at(expr, ended)
        return float(found[0]["value"][1]) if found else None

    def draw(self, run):
        for title in ("Run", "Fleet", "Coordinator"):
            drawn = [panel for panel in panels(GRAFANA / "dashboards")
                     if panel.dashboard == title and panel.content and panel.title not in quiet.GPU]
            path = self.drawings / f"{run.name}-{title.lower()}.png"
            drawing.draw(path, title, drawn, headings(GRAFANA / "dashboards", title), self.prometheus, run)
            say(f"  {path}")

    def end(self):
        self.prometheus.end()


def no_fault(bench):
    """No alert fires in a run without faults and after it, except that it stopped early."""
    say("a run without faults")
    with bench.run("no-fault", "--limit-per-class=30", "--epochs=40", "--patience=4",
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
    bench.answered(run, quiet.LOSS, quiet.NOW)
    assert bench.shown(run, "Workers lost") == 0
    for rule in rules():
        if "record" in rule and not rule["record"].startswith("rank:dcgm"):
            assert bench.prometheus.over(rule["record"], run.began, run.ended), f"{rule['record']} has no data"
    bench.draw(run)
    say("  no alert fired during the run and for 70 s after it, and every panel has data")


def firing(bench):
    allowed = {"FinetuneEarlyStop", *(SHORT + name for name in SENSITIVE | {"FinetuneEarlyStop"})}
    fires = {name for name, states in bench.prometheus.alerts().items() if "firing" in states}
    assert fires <= allowed, f"fires in a run without faults: {fires - allowed}"


def loses_workers(bench):
    """A stopped worker, one that hangs in a step, a slow one; then the coordinator is killed."""
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
        with HungThread(held):
            bench.sees("FinetuneNoProgress")
            until("the eviction of the hung worker", 60, lambda: run.value(
                'finetune_recovery_duration_seconds_count{cause="worker_evicted"}') >= 1)
        # A new worker is slow at first, which is not what the alert is for.
        until("equally fast workers", 60, lambda: "FinetuneStraggler" not in bench.now())
        slow = run.both()[1]
        deadline = time.monotonic() + 60
        while "FinetuneStraggler" not in bench.now() and time.monotonic() < deadline:
            os.kill(slow, signal.SIGSTOP)
            time.sleep(0.08)
            os.kill(slow, signal.SIGCONT)
            time.sleep(0.02)
        assert "FinetuneStraggler" in bench.now(), "FinetuneStraggler did not fire for the slow worker"
        bench.sees("FinetuneStraggler", 5)
        remaining, lost = run.workers(), run.value("finetune_workers_lost_total")
        run.process.kill()
        run.ended = time.time()
        bench.sees("FinetuneCoordinatorDown")
        for worker in remaining:
            os.kill(worker, signal.SIGKILL)
    bench.answered(run)
    assert bench.shown(run, "Workers lost") == lost, f"{bench.shown(run, 'Workers lost')} workers lost, not {lost}"
    bench.draw(run)


def loses_all_workers(bench):
    """A killed worker without a replacement, and then the last one."""
    say("a run that fails")
    with bench.run("fails", *ENDLESS, "--max-restarts=0", "--metrics-linger=20") as run:
        until("a few steps", 60, lambda: run.steps() > 20)
        os.kill(run.workers()[1], signal.SIGKILL)
        bench.sees("FinetuneWorkersMissing")
        assert run.value('finetune_workers{state="lost"}') == 1
        os.kill(run.workers()[0], signal.SIGKILL)
        bench.sees("FinetuneRunFailed")


def diverges(bench):
    """A learning rate with which the loss becomes NaN."""
    say("a run that diverges")
    with bench.run("diverges", "--limit-per-class=12", "--layer-lr=uniform=1e30", "--metrics-linger=20") as run:
        bench.sees("FinetuneLossNotFinite", 60)
        assert run.wait(60) == 10, run.output.read_text()


COUNTED = {"Workers lost": "finetune_workers_lost_total", "Recoveries": "finetune_recovery_duration_seconds_count"}


def restarts(bench):
    """The coordinator is killed and started again. It loses a worker before its first scrape, so
    that its series do not begin at 0."""
    say("a coordinator that is started again")
    expected = dict.fromkeys(COUNTED, 0.0)

    def lose_a_worker(run):
        until("a few steps", 60, lambda: run.steps() > 5)
        os.kill(run.both()[1], signal.SIGKILL)
        until("the recovery", 60, lambda: run.total(COUNTED["Recoveries"]) >= 1)
        for title, name in COUNTED.items():
            expected[title] += run.total(name)

    port = free_port()
    with bench.run("restarts", *ENDLESS, "--max-restarts=9", port=port) as first:
        lose_a_worker(first)
        until("its scrape", 30, lambda: bench.prometheus.at(f"sum({COUNTED['Recoveries']}) >= 1", time.time()))
        # Queries look at a series every 5 s.
        time.sleep(6)
        bench.prometheus.watch()
    with bench.run("restarts", *ENDLESS, "--max-restarts=9", port=port, resume=True, watched=False) as second:
        lose_a_worker(second)
        second.began = first.began
        bench.prometheus.watch(second.address)
        for title, number in expected.items():
            until(f"{number} in {title}", 30, lambda: bench.shown(second, title) == number)
    bench.draw(second)
    say(f"  the dashboard counts those of both coordinators: {expected}")


SCENES = (no_fault, loses_workers, restarts, loses_all_workers, diverges)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--coordinator", type=pathlib.Path, required=True)
    parser.add_argument("--worker", type=pathlib.Path, required=True)
    parser.add_argument("--only", choices=[scene.__name__ for scene in SCENES], help="run one scene")
    parser.add_argument("--drawings", type=pathlib.Path, required=True, help="folder for the drawn dashboards")
    arguments = parser.parse_args()
    check_files()
    arguments.drawings.mkdir(parents=True, exist_ok=True)
    programs = {name: getattr(arguments, name).resolve() for name in ("coordinator", "worker")}
    with tempfile.TemporaryDirectory(prefix="observability-") as folder:
        bench = Bench(programs, pathlib.Path(folder), arguments.drawings.resolve())
        try:
            for scene in SCENES:
                if arguments.only in (None, scene.__name__):
                    scene(bench)
        finally:
            bench.end()
    if arguments.only:
        return
    silent = {rule["alert"] for rule in rules() if "alert" in rule} - bench.fired
    assert silent <= set(ONLY_BY_RULE_TEST), f"alerts that did not fire: {silent - set(ONLY_BY_RULE_TEST)}"
    for alert, why in ONLY_BY_RULE_TEST.items():
        say(f"{alert}: tested only by its rule test ({why})")
    say(f"panels without data, because there is no GPU: {', '.join(sorted(quiet.GPU))}")
    say("all checks passed")


if __name__ == "__main__":
    main()
