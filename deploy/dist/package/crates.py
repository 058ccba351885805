"""The crates that a program is made of, from `cargo metadata`."""

import json
import re
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
TARGET = "x86_64-unknown-linux-gnu"


@dataclass(frozen=True, order=True)
class Crate:
    """One version of a crate. Crates of this workspace have no source."""

    name: str
    version: str
    licence: str
    folder: Path
    repository: str | None
    source: str | None

    @property
    def reference(self) -> str:
        """The package URL; a crate of this workspace has none, as a public crate may have its name."""
        return f"{'pkg:cargo' if self.source else 'workspace'}/{self.name}@{self.version}"


@cache
def metadata() -> dict[str, Any]:
    command = ["cargo", "metadata", "--format-version=1", "--locked", f"--filter-platform={TARGET}"]
    return json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout)


def of_program(package: str) -> dict[Crate, set[Crate]]:
    """Each crate whose code is in a program, with those of them that it depends on. Code of build
    scripts and procedural macros runs in the compiler only."""
    known = {one["id"]: one for one in metadata()["packages"]}
    nodes = {one["id"]: one for one in metadata()["resolve"]["nodes"]}

    def compiled_in(dependency: dict[str, Any]) -> bool:
        kinds = {kind["kind"] for kind in dependency["dep_kinds"]}
        targets = known[dependency["pkg"]]["targets"]
        return None in kinds and not any("proc-macro" in target["kind"] for target in targets)

    (root,) = (each for each in metadata()["workspace_members"] if known[each]["name"] == package)
    found: dict[str, list[str]] = {}
    waiting = [root]
    while waiting:
        one = waiting.pop()
        if one not in found:
            found[one] = [each["pkg"] for each in nodes[one]["deps"] if compiled_in(each)]
            waiting += found[one]
    crates = {one: crate(known[one]) for one in found}
    return {crates[one]: {crates[each] for each in found[one]} for one in found}


def crate(package: dict[str, Any]) -> Crate:
    if not package["license"]:
        raise ValueError(f"{package['name']} {package['version']} states no licence")
    return Crate(
        name=package["name"],
        version=package["version"],
        # An old notation for OR.
        licence=re.sub(" */ *", " OR ", package["license"]),
        folder=Path(package["manifest_path"]).parent,
        repository=package["repository"],
        source=package["source"],
    )
