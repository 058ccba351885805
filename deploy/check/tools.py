"""Where things lie and how programs are run; knows no rule."""

import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import yaml

DEPLOY = Path(__file__).resolve().parent.parent
ROOT = DEPLOY.parent
OVERLAYS = ("cpu", "gpu")


class Skipped(Exception):
    """A check cannot be made here; the text says what is missing."""


def run(*command, **options):
    """Runs a program; one of this Python's own, where there is one of that name."""
    own = Path(sys.executable).parent / command[0]
    program = str(own) if own.exists() else shutil.which(command[0])
    if program is None:
        raise Skipped(f"there is no {command[0]} here")
    return subprocess.run(
        [program, *command[1:]], capture_output=True, text=True, check=False, **options
    )


def complaints(done):
    """What a linter said, when it was not content."""
    return (done.stdout + done.stderr).splitlines() if done.returncode else []


@cache
def objects(path):
    """The Kubernetes objects that kustomize makes of a folder below k8s/.

    The secret's file is everybody's own and not in the repository, so the build runs on a copy
    that has one.
    """
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "k8s"
        shutil.copytree(DEPLOY / "k8s", copy)
        (copy / "base" / "join-token").write_text("only for this check\n")
        done = run("kubectl", "kustomize", str(copy / path))
    if done.returncode:
        raise ValueError(f"kustomize {path}: {done.stderr.strip()}")
    return list(yaml.safe_load_all(done.stdout))


def pods(path):
    """Name and pod template of each workload in an overlay."""
    for made in objects(path):
        if made["kind"] in ("StatefulSet", "Deployment", "DaemonSet", "Job"):
            yield made["metadata"]["name"], made["spec"]["template"]
