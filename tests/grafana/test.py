#!/usr/bin/env python3
"""Tests main.py where there is no Grafana: with a server that has its API (fake.py), a real
Prometheus, a real run with 2 workers, and a real coordinator with 64 simulated workers. Planted
faults must be found. `make grafana-test` runs it. It needs Debian's prometheus, nodejs, npm and
chromium.
"""

import argparse
import copy
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
# After this folder, which has a main.py as well.
sys.path.append(str(ROOT / "tests/observability"))

from fake import Fake  # noqa: E402
from free import free_port  # noqa: E402
from main import FOLDER  # noqa: E402
from prom import Prometheus, until  # noqa: E402
from runs import ENDLESS, Run  # noqa: E402

CROWD = 64
MAIN = pathlib.Path(__file__).with_name("main.py")


class Crowd:
    """The simulated workers, and the coordinator that they start; `with` ends both."""

    def __init__(self, program, folder):
        self.folder = folder / "crowd"
        self.folder.mkdir()
        with open(self.folder / "output", "w") as output:
            self.process = subprocess.Popen([program, str(CROWD), "400"], env={**os.environ, "TMPDIR": str(self.folder)},
                                            stdout=output, stderr=output)
        self.address = until("the address of the crowd's coordinator", 60, self.printed)

    def printed(self):
        assert self.process.poll() is None, (self.folder / "output").read_text()
        logs = [log.read_text() for log in self.folder.glob("*/log")]
        return next((found[1] for log in logs if (found := re.search(r"metrics: http://([^/]+)/", log))), None)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        """Ends both; the coordinator does not end with its parent."""
        children = pathlib.Path(f"/proc/{self.process.pid}/task").glob("*/children")
        coordinators = [int(pid) for each in children for pid in each.read_text().split()]
        for pid in [self.process.pid, *coordinators]:
            os.kill(pid, signal.SIGKILL)
        self.process.wait()


def ask(url, *flags, environment=None):
    """The exit code and the output of main.py."""
    done = subprocess.run([sys.executable, "-B", MAIN, "--url", url, "--minutes", "3", *map(str, flags)],
                          capture_output=True, text=True, env={**os.environ, **(environment or {})})
    return done.returncode, done.stdout + done.stderr


def expect(what, found, code, *words):
    assert found[0] == code, f"{what}: exit code {found[0]} instead of {code}\n{found[1]}"
    for word in words:
        assert word in found[1], f"{what}: no {word!r} in\n{found[1]}"
    print(f"{time.strftime('%H:%M:%S')} {what}", flush=True)


def first(dashboard, kind):
    return next(panel for panel in dashboard["panels"] if panel["type"] == kind)


def planted(change):
    """The dashboards after a change, in the files' place and in Grafana's."""
    dashboards = copy.deepcopy(given())
    change(dashboards["finetune-run"])
    return dashboards


def given():
    contents = [json.loads(path.read_text()) for path in FOLDER.glob("*.json")]
    return {content["uid"]: content for content in contents}


def good(prometheus, screenshots):
    with Fake(prometheus.url, given()) as fake:
        for run in ("two", "run"):
            found = ask(fake.url, "--run", run, "--screenshots", screenshots)
            expect(f"all panels of {run} have data", found, 0, f"run {run}:", "0 problems")
            for title in ("run", "fleet", "coordinator"):
                picture = screenshots / f"{run}-{title}.png"
                assert picture.read_bytes().startswith(b"\x89PNG"), f"{picture} is not a picture"
        expect("the screenshots need a browser",
               ask(fake.url, "--screenshots", screenshots, environment={"CHROMIUM": "no-such-browser"}), 4, "apt install")
    with Fake(prometheus.url, given(), token="secret") as fake:
        expect("a token is needed", ask(fake.url, "--run", "two"), 3, "--token")
        expect("a token admits", ask(fake.url, "--run", "two", environment={"GRAFANA_TOKEN": "secret"}), 0)
    expect("nobody listens", ask(f"http://127.0.0.1:{free_port()}"), 3, "does not answer")


def faults(prometheus):
    def renamed(dashboard):
        first(dashboard, "timeseries")["targets"][0]["expr"] = 'finetune_no_such_metric{run="$run"}'

    def broken(dashboard):
        first(dashboard, "timeseries")["targets"][0]["expr"] = "rate(finetune_loss"

    def without(dashboard):
        dashboard["panels"].remove(first(dashboard, "timeseries"))

    for what, change, *words in (
        ("a query without data", renamed, "Run / Loss: {{split}}: no data", "Run / Loss: not as in run.json"),
        ("a query with an error", broken, "Run / Loss: {{split}}:", "parse error"),
        ("a panel that Grafana does not have", without, "Run / Loss: not as in run.json"),
    ):
        with Fake(prometheus.url, planted(change)) as fake:
            expect(f"{what} is found", ask(fake.url, "--run", "two"), 1, *words)
    with Fake(prometheus.url, {}) as fake:
        expect("an absent dashboard is found", ask(fake.url, "--run", "two"), 1, "no dashboard finetune-run")
    with Fake(prometheus.url, given()) as fake:
        expect("a run that is not there is found", ask(fake.url, "--run", "no-such-run"), 1, "there are:")
    with Fake(f"http://127.0.0.1:{free_port()}", given()) as fake:
        expect("a data source that does not answer is found", ask(fake.url), 1, "cannot query Prometheus")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    for program in ("coordinator", "worker", "crowd"):
        parser.add_argument(f"--{program}", type=pathlib.Path, required=True)
    parser.add_argument("--screenshots", type=pathlib.Path, required=True)
    arguments = parser.parse_args()
    if lacks := [name for name in ("prometheus", "node", "npm") if not shutil.which(name)]:
        sys.exit(f"missing: {', '.join(lacks)}; on Debian or Ubuntu: apt install prometheus nodejs npm chromium")
    programs = {name: getattr(arguments, name).resolve() for name in ("coordinator", "worker")}
    with tempfile.TemporaryDirectory(prefix="grafana-") as name:
        folder = pathlib.Path(name)
        prometheus = Prometheus(folder / "prometheus", ROOT / "deploy/prometheus", free_port())
        try:
            with Run(programs, folder, "two", *ENDLESS) as run, Crowd(arguments.crowd.resolve(), folder) as crowd:
                prometheus.watch(run.address, crowd.address)
                # Means of the last minute need a few samples.
                until("data of both runs", 90, lambda: prometheus.at(
                    "count(finetune_accuracy_ratio >= 0) == 2 and count(count_over_time(finetune_epoch[5m]) > 20) == 2", time.time()))
                good(prometheus, arguments.screenshots.resolve())
                faults(prometheus)
        finally:
            prometheus.end()
    print("all checks passed; no real Grafana was asked")


if __name__ == "__main__":
    main()
