#!/usr/bin/env python3
"""Generates dashboards/*.json from source/; with --check it compares them. It needs only Python."""

import json
import pathlib
import sys

from source import coordinator, fleet, run
from source.annotations import BEST, RECOVERED, RESTARTED
from source.layout import PHASE_VARIABLE, RANK_VARIABLE, RUN_VARIABLE, dashboard

FOLDER = pathlib.Path(__file__).parent / "dashboards"
DASHBOARDS = {
    "run": dashboard("finetune-run", "Run", run.ROWS, [RUN_VARIABLE], [BEST, RECOVERED, RESTARTED]),
    "fleet": dashboard("finetune-fleet", "Fleet", fleet.ROWS, [RUN_VARIABLE, RANK_VARIABLE, PHASE_VARIABLE],
                       [RECOVERED, RESTARTED]),
    "coordinator": dashboard("finetune-coordinator", "Coordinator", coordinator.ROWS, [RUN_VARIABLE],
                             [RECOVERED, RESTARTED]),
}


def main():
    check, stale = sys.argv[1:] == ["--check"], []
    for name, content in DASHBOARDS.items():
        path, text = FOLDER / f"{name}.json", json.dumps(content, indent=2) + "\n"
        if check:
            if not path.exists() or path.read_text() != text:
                stale.append(path.name)
        else:
            path.write_text(text)
    if stale:
        sys.exit(f"out of date: {', '.join(stale)}; run dashboards.py and commit the files")


if __name__ == "__main__":
    main()
