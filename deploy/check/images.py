"""The Dockerfile and its scripts."""

from tools import DEPLOY, complaints, run


def dockerfile_is_clean():
    """Dockerfile: hadolint reports nothing."""
    return complaints(run("hadolint", str(DEPLOY / "docker" / "Dockerfile")))


def builds_without_a_front_end():
    """Dockerfile: a build asks no registry for a front end."""
    text = (DEPLOY / "docker" / "Dockerfile").read_text()
    if any(line.lower().startswith("# syntax=") for line in text.splitlines()):
        yield "`# syntax=` makes every build fetch an image; Docker's own front end is enough"


def scripts_parse():
    """Scripts in docker/: a shell can parse them."""
    for script in sorted((DEPLOY / "docker").iterdir()):
        if script.read_text().startswith("#!/bin/sh"):
            yield from complaints(run("sh", "-n", str(script)))


CHECKS = [dockerfile_is_clean, builds_without_a_front_end, scripts_parse]
