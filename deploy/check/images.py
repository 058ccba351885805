"""The Dockerfile and its scripts."""

from tools import DEPLOY, complaints, run


def dockerfile_is_clean():
    """Dockerfile: hadolint reports nothing."""
    return complaints(run("hadolint", str(DEPLOY / "docker" / "Dockerfile")))


def scripts_parse():
    """Scripts in docker/: a shell can parse them."""
    for script in sorted((DEPLOY / "docker").iterdir()):
        if script.read_text().startswith("#!/bin/sh"):
            yield from complaints(run("sh", "-n", str(script)))


CHECKS = [dockerfile_is_clean, scripts_parse]
