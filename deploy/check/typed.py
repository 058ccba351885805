"""The dashboards against the TypeScript types of Grafana's own package @grafana/schema."""

import copy
import json
import os
import re
import shutil
from pathlib import Path

from agreement import known_flags
from tools import DEPLOY, ROOT, Skipped, run

TYPESCRIPT = "typescript@5.9.3"
HERE = Path(__file__).resolve().parent / "dashboards"
FOLDER = DEPLOY / "grafana" / "dashboards"


def schema():
    """The package in the version of Grafana that compose runs."""
    image = re.search(r"image: grafana/grafana:(\S+)", (DEPLOY / "compose.yaml").read_text())
    return f"@grafana/schema@{image.group(1)}"


def compiled(dashboards):
    """The complaints of the compiler, each with the name of a dashboard."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            raise Skipped(f"{program} is not installed")
    folder = (ROOT / os.environ.get("CARGO_TARGET_DIR", "target") / "deploy-check" / "dashboards").resolve()
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.ts"):
        old.unlink()
    done = run("npm", "install", "--silent", "--no-audit", "--no-fund", "--no-save", "--prefix", str(folder),
               schema(), TYPESCRIPT)
    if done.returncode:
        raise ValueError(f"npm cannot install {schema()} and {TYPESCRIPT}: {(done.stdout + done.stderr).strip()}")
    for each in HERE.iterdir():
        shutil.copy(each, folder)
    for name, content in dashboards.items():
        (folder / f"{name}.ts").write_text(
            f'import type {{ Typed }} from "./types";\n'
            f"export const dashboard: Typed = {json.dumps(content, indent=2)};\n")
    done = run("node", str(folder / "node_modules" / "typescript" / "bin" / "tsc"), "--project", str(folder), cwd=folder)
    lines = (done.stdout + done.stderr).splitlines()
    if done.returncode and not lines:
        raise ValueError(f"tsc exited with {done.returncode}")
    # Lines that are indented explain the one before.
    return [line for line in lines if not line.startswith(" ")]


def first(dashboard, kind):
    return next(one for one in dashboard["panels"] if one["type"] == kind)


def mistakes():
    """Copies of a dashboard with one mistake each: the check must see all of them."""
    good = json.loads((FOLDER / "run.json").read_text())
    plants = {
        "unknown-option": lambda one: first(one, "stat")["options"].update(colour="value"),
        "unknown-property": lambda one: first(one, "timeseries").update(titel="Loss"),
        "wrong-type": lambda one: first(one, "timeseries")["gridPos"].update(w="12"),
        "not-in-the-enum": lambda one: first(one, "stat")["fieldConfig"]["defaults"]["color"].update(mode="threshold"),
        "wrong-custom": lambda one: first(one, "timeseries")["fieldConfig"]["defaults"]["custom"].update(lineWidth="2"),
        "unknown-override": lambda one: first(one, "timeseries")["fieldConfig"]["overrides"][0]["properties"].append(
            {"id": "custom.lineColour", "value": "red"}),
        "query-without-expression": lambda one: first(one, "stat")["targets"][0].pop("expr"),
    }
    for name, plant in plants.items():
        bad = copy.deepcopy(good)
        plant(bad)
        yield f"mistake-{name}", bad


def dashboards_have_the_types():
    """Dashboards: follow the types of Grafana's schema, and planted mistakes are found."""
    real = {path.stem: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))}
    planted = dict(mistakes())
    lines = compiled(real | planted)
    missed = set(planted)
    for line in lines:
        name = line.split(".ts", 1)[0]
        missed.discard(name)
        if name not in planted:
            yield line
    for name in sorted(missed):
        yield f"the types allow the planted {name}"


def panels_are_explained():
    """Dashboards: each panel has a description, with flags that exist, and a query."""
    for path in sorted(FOLDER.glob("*.json")):
        for each in json.loads(path.read_text())["panels"]:
            for panel in [each] if each["type"] != "row" else each["panels"]:
                if len(panel["description"]) < 15:
                    yield f"{path.name}: {panel['title']} has no description"
                named = set(re.findall(r"--([a-z][a-z-]+)", panel["description"]))
                for flag in sorted(named - known_flags("coordinator")):
                    yield f"{path.name}: {panel['title']} names --{flag}, which coordinator does not have"
                if not panel["targets"]:
                    yield f"{path.name}: {panel['title']} has no query"


CHECKS = [dashboards_have_the_types, panels_are_explained]
