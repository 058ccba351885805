"""Paths, and functions that run programs."""

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
    """A check cannot run; the text says which tool is missing."""


def run(*command, **options):
    """Runs a program, preferably the one in the folder of this Python."""
    own = Path(sys.executable).parent / command[0]
    program = str(own) if own.exists() else shutil.which(command[0])
    if program is None:
        raise Skipped(f"{command[0]} is not installed")
    return subprocess.run(
        [program, *command[1:]], capture_output=True, text=True, check=False, **options
    )


def complaints(done):
    """The output of a linter that failed, as lines."""
    return (done.stdout + done.stderr).splitlines() if done.returncode else []


@cache
def objects(path):
    """The Kubernetes objects that kustomize builds from a folder below k8s/.

    The file of the secret is not in the repository, so the build runs on a copy with one.
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
