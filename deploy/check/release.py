"""The release: its workflow, and the scripts of the packages."""

import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import compose
import yaml
from tools import DEPLOY, ROOT, complaints, run

WORKFLOW = ROOT / ".github" / "workflows" / "release.yml"
SCRIPTS = [DEPLOY / "dist" / name for name in ("accept", "install.sh", "worker")]


def steps() -> Iterator[tuple[str, dict[str, Any]]]:
    """Each job's name with each of its steps."""
    for name, job in yaml.safe_load(WORKFLOW.read_text())["jobs"].items():
        for step in job["steps"]:
            yield name, step


def workflow_follows_the_schema() -> list[str]:
    """release.yml: follows the schema of GitHub's workflows."""
    return complaints(
        run("check-jsonschema", "--builtin-schema", "vendor.github-workflows", str(WORKFLOW))
    )


def workflow_is_safe() -> list[str]:
    """release.yml: zizmor reports nothing: permissions, pinned actions, injected text."""
    return complaints(run("zizmor", "--offline", "--quiet", "--no-progress", str(WORKFLOW)))


def scripts_are_clean() -> Iterator[str]:
    """dist/, release.yml: shellcheck reports nothing about the scripts and the steps."""
    for script in SCRIPTS:
        yield from complaints(run("shellcheck", str(script)))
    for job, step in steps():
        if text := step.get("run"):
            # As GitHub starts it.
            done = run("shellcheck", "--shell=bash", "-", input=f"set -eo pipefail\n{text}")
            yield from (f"{job}, {step['name']}: {line}" for line in complaints(done) if line)


def workflow_agrees_with_the_rest() -> Iterator[str]:
    """release.yml: pushes the images that compose uses, and calls targets that the Makefile has."""
    jobs = yaml.safe_load(WORKFLOW.read_text())["jobs"]
    pushed = set(jobs["images"]["strategy"]["matrix"]["target"])
    used = {
        service["build"]["target"]
        for profile in ("cpu", "gpu")
        for service in compose.services(profile).values()
        if "build" in service
    }
    if pushed != used:
        yield f"it pushes {sorted(pushed)}, and compose uses {sorted(used)}"
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    for job, step in steps():
        for target in re.findall(r"\bmake ([a-z-]+)", step.get("run", "")):
            if target not in targets:
                yield f"{job} calls `make {target}`, which does not exist"


def scripts_do_what_they_should() -> list[str]:
    """dist/: install.sh and the launcher of the worker pass their tests."""
    done = subprocess.run(
        [sys.executable, "-B", DEPLOY / "dist" / "test.py"], capture_output=True, text=True, check=False
    )
    return complaints(done)


CHECKS = [
    workflow_follows_the_schema,
    workflow_is_safe,
    scripts_are_clean,
    workflow_agrees_with_the_rest,
    scripts_do_what_they_should,
]
