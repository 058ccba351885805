#!/usr/bin/env python3
"""Asks a Grafana that has the dashboards of deploy/grafana for the data of each panel, and takes
screenshots.

It fails if a dashboard is absent or is not the one in deploy/grafana, if a query has an error, or
if it has no data, unless quiet.py says why it may have none. `make grafana-test GRAFANA=URL` runs
it. Exit codes: 0 all is well, 1 something is not, 2 wrong arguments, 3 Grafana cannot be reached,
4 a program for the screenshots is missing.
"""

import argparse
import json
import os
import pathlib
import sys
import time

import quiet
import screenshots
from api import Grafana, Unreachable, values
from asked import Asked, asked, panels

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "deploy/grafana/dashboards"
EMPTY = (quiet.GPU, quiet.LOSS, quiet.NOW, quiet.EVENTS, quiet.SIMULATED)


def runs(grafana, times):
    """The runs of the time range, the one that was seen last at first."""
    target = {"refId": "A", "expr": "timestamp(finetune_run_info)", "legendFormat": "__auto",
              "range": True, "instant": False, "format": "time_series"}
    frames, errors = grafana.data(Asked("runs", [target], {}, int(times[1] - times[0])).queries, *times)
    if errors:
        sys.exit(f"Grafana cannot query Prometheus: {errors['A']}; check the data source's address")
    seen = {}
    for row in values(frames.get("A", [])):
        when = next((value for name, value in row.items() if name not in ("Time", "run") and isinstance(value, (int, float))), 0)
        seen[row["run"]] = max(seen.get(row["run"], 0), when)
    return sorted(seen, key=seen.get, reverse=True)


def differences(given, served):
    """In which panels the dashboard that Grafana has is not the one in deploy/grafana."""
    def queries(dashboard):
        return {panel["title"]: [target["expr"] for target in panel["targets"]] for panel, _ in panels(dashboard)}
    ours, theirs = queries(given), queries(served)
    return sorted(title for title in ours.keys() | theirs.keys() if ours.get(title) != theirs.get(title))


def problems(grafana, dashboard, variables, times, silent):
    """What is wrong with the data of a dashboard. `silent` receives the queries that may be empty
    and are."""
    for each in asked(dashboard, variables, int(times[1] - times[0])):
        frames, errors = grafana.data(each.queries, *times)
        for ref, legend in each.legends.items():
            place = f"{dashboard['title']} / {each.title}: {legend}"
            if ref in errors:
                yield f"{place}: {errors[ref]}"
            elif not any(values(frames.get(ref, []))):
                if why := allowed(each.title, legend):
                    silent.append(f"{place} ({why})")
                else:
                    yield f"{place}: no data"


def allowed(title, legend):
    return quiet.allowed(title, legend, *EMPTY)


def examine(grafana, arguments):
    """What is wrong with all dashboards."""
    ended = time.time()
    times = (ended - arguments.minutes * 60, ended)
    found = runs(grafana, times)
    run = arguments.run or next(iter(found), None)
    if run not in found:
        return [f"no run {run or ''} in the last {arguments.minutes} minutes; there are: {', '.join(found) or 'none'}"]
    variables = {"run": run, "rank": ".*", "phase": "forward_backward"}
    wrong, silent, good = [], [], []
    for path in sorted(FOLDER.glob("*.json")):
        given = json.loads(path.read_text())
        served = grafana.dashboard(given["uid"])
        if served is None:
            wrong.append(f"{given['title']}: Grafana has no dashboard {given['uid']}")
            continue
        wrong += [f"{given['title']} / {title}: not as in {path.name}" for title in differences(given, served)]
        wrong += problems(grafana, served, variables, times, silent)
        good.append(served)
    for line in silent:
        print(f"no data: {line}")
    if arguments.screenshots and good:
        wrong += screenshots.take(grafana, good, variables, times, arguments.screenshots.resolve(), run)
        print(f"screenshots: {arguments.screenshots}")
    print(f"run {run}: {sum(1 for one in good for _ in panels(one))} panels, {len(silent)} queries without data, "
          f"{len(wrong)} problems")
    return wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", required=True, help="address of Grafana, such as http://127.0.0.1:3000")
    parser.add_argument("--screenshots", type=pathlib.Path, metavar="DIR", help="folder for RUN-DASHBOARD.png")
    parser.add_argument("--run", help="name of the run; without it, the one that was seen last")
    parser.add_argument("--minutes", type=int, default=15, help="time range, until now (default: 15)")
    parser.add_argument("--token", default=os.environ.get("GRAFANA_TOKEN"), help="service account token; or GRAFANA_TOKEN")
    parser.add_argument("--user", default=os.environ.get("GRAFANA_USER"), help="NAME:PASSWORD; or GRAFANA_USER")
    arguments = parser.parse_args()
    grafana = Grafana(arguments.url, arguments.token, arguments.user)
    try:
        if arguments.screenshots:
            screenshots.modules()
        print(f"Grafana {grafana.version()} at {grafana.url}")
        wrong = examine(grafana, arguments)
    except Unreachable as reason:
        print(reason, file=sys.stderr)
        return 3
    except screenshots.Missing as reason:
        print(reason, file=sys.stderr)
        return 4
    for line in wrong:
        print(f"WRONG: {line}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
