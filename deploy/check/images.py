"""The Dockerfile and its scripts."""

import re

from tools import DEPLOY, complaints, run


def dockerfile_is_clean():
    """Dockerfile: hadolint reports nothing."""
    return complaints(run("hadolint", str(DEPLOY / "docker" / "Dockerfile")))


def builds_without_a_front_end():
    """Dockerfile: a build asks no registry for a front end."""
    text = (DEPLOY / "docker" / "Dockerfile").read_text()
    if any(line.lower().startswith("# syntax=") for line in text.splitlines()):
        yield "`# syntax=` makes every build fetch an image; Docker's own front end is enough"


def one_stage_compiles():
    """Dockerfile: one stage compiles both programs, so that shared crates compile once."""
    text = re.sub(r"^#.*\n", "", (DEPLOY / "docker" / "Dockerfile").read_text(), flags=re.M)
    stages = re.split(r"^FROM \S+ AS (\S+)$", text, flags=re.M)
    builds = [
        (name, set(re.findall(r"-p (\S+)", command)))
        for name, body in zip(stages[1::2], stages[2::2], strict=True)
        for command in re.findall(r"\bcargo build\b.*", body)
    ]
    if [packages for _, packages in builds] != [{"coordinator", "worker"}]:
        found = "; ".join(f"{name}: {' '.join(sorted(packages))}" for name, packages in builds)
        yield f"not one `cargo build` of coordinator and worker: {found or 'none'}"


def scripts_parse():
    """Scripts in docker/: a shell can parse them."""
    for script in sorted((DEPLOY / "docker").iterdir()):
        if script.read_text().startswith("#!/bin/sh"):
            yield from complaints(run("sh", "-n", str(script)))


CHECKS = [dockerfile_is_clean, builds_without_a_front_end, one_stage_compiles, scripts_parse]
