"""What a program needs from the system, read from its ELF file."""

import re
import subprocess
from collections.abc import Iterable
from pathlib import Path

VERSION = re.compile(r"\b(GLIBC|GLIBCXX)_(\d+(?:\.\d+)+)\b")


def needs(files: Iterable[Path]) -> dict[str, str]:
    """The newest symbol version of each of glibc and libstdc++ that the files import."""
    newest: dict[str, tuple[int, ...]] = {}
    for file in files:
        done = subprocess.run(
            ["objdump", "-T", str(file)], capture_output=True, text=True, check=True
        )
        for line in done.stdout.splitlines():
            # Without a weak symbol a program starts all the same.
            if "*UND*" in line and not re.search(r"^\S+ +w", line):
                for library, text in VERSION.findall(line):
                    version = tuple(int(number) for number in text.split("."))
                    newest[library] = max(newest.get(library, ()), version)
    return {library: ".".join(map(str, version)) for library, version in newest.items()}


def run_path(file: Path) -> str:
    """Where a program looks for its libraries."""
    done = subprocess.run(["objdump", "-p", str(file)], capture_output=True, text=True, check=True)
    return ":".join(re.findall(r"^ +(?:RUNPATH|RPATH) +(\S+)", done.stdout, re.M))
