"""Screenshots of dashboards in Chromium, with playwright-core of npm and Debian's browser."""

import json
import os
import pathlib
import shutil
import subprocess
import urllib.parse

from asked import filled, panels

HERE = pathlib.Path(__file__).resolve().parent
PLAYWRIGHT = "playwright-core@1.65.1"
# A unit of the grid, and what Grafana has above the panels.
UNIT, TOP = 38, 160


class Missing(Exception):
    """A program that takes the screenshots is not there."""


def modules():
    """The folder with playwright-core, which this installs once below target/."""
    wanted = {"node": "nodejs", "npm": "npm", os.environ.get("CHROMIUM", "chromium"): "chromium"}
    lacks = [package for program, package in wanted.items() if not shutil.which(program)]
    if lacks:
        raise Missing(f"no screenshots without {', '.join(lacks)}; on Debian or Ubuntu: apt install {' '.join(lacks)}")
    root = HERE.parents[1]
    folder = (root / os.environ.get("CARGO_TARGET_DIR", "target") / "grafana-test").resolve()
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(["npm", "install", "--silent", "--no-audit", "--no-fund", "--no-save", "--prefix", folder, PLAYWRIGHT],
                          capture_output=True, text=True)
    if done.returncode:
        raise Missing(f"npm cannot install {PLAYWRIGHT}: {done.stderr.strip()}")
    return folder


def take(grafana, dashboards, variables, times, folder, prefix):
    """Writes `folder`/`prefix`-TITLE.png for each dashboard; what is wrong with the pages."""
    pages = []
    for dashboard in dashboards:
        query = {f"var-{name}": value for name, value in variables.items() if name in ("run", "phase")}
        query |= {"from": int(times[0] * 1000), "to": int(times[1] * 1000), "theme": "dark", "refresh": ""}
        visible = [panel for panel, at_first in panels(dashboard) if at_first]
        bottom = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in dashboard["panels"])
        pages.append({
            "name": f"{prefix}-{dashboard['title'].lower()}",
            "url": f"{grafana.url}/d/{dashboard['uid']}?kiosk&{urllib.parse.urlencode(query)}",
            "titles": sorted({filled(panel["title"], variables) for panel in visible}),
            "height": TOP + UNIT * bottom,
        })
    folder.mkdir(parents=True, exist_ok=True)
    request = {"headers": grafana.headers, "folder": str(folder), "pages": pages}
    done = subprocess.run(["node", HERE / "screenshots.mjs"], input=json.dumps(request), capture_output=True, text=True,
                          env={**os.environ, "PAGE_TEST_MODULES": str(modules())})
    if done.returncode:
        return [f"no screenshots: {done.stderr.strip()}"]
    return done.stdout.splitlines()
