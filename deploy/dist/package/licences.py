"""The licences of what an archive contains, as one text."""

import re
import subprocess
from collections import defaultdict
from functools import cache
from pathlib import Path
from typing import Any

from license_expression import LicenseSymbol, LicenseWithExceptionSymbol, get_spdx_licensing

from crates import Crate
from wheels import Wheel

NAMES = re.compile(r"licen[cs]e|copying|notice|unlicense", re.I)
# Files of licences that are named after fonts.
FONTS = {"epaint_default_fonts": "fonts/*.txt"}
TEXTS = ("", ".txt", ".md", ".rst")
RULE = "=" * 80
# What torch's wheel takes from GCC, and its licence file does not mention.
GOMP = ("libgomp.so.1, from GCC, in the wheel of torch", ("GPL-3.0-or-later", "GCC-exception-3.1"))


@cache
def toolchain() -> Path:
    """The texts that the Rust toolchain comes with."""
    command = ["rustc", "--print", "sysroot"]
    root = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    return Path(root) / "share" / "doc" / "rust"


def texts_of(crate: Crate) -> list[Path]:
    """The licence files of a crate, in whichever folder of it."""
    found = [path for path in crate.folder.rglob("*") if NAMES.match(path.name)]
    if crate.name in FONTS:
        found += crate.folder.glob(FONTS[crate.name])
    inside = [path for folder in found if folder.is_dir() for path in folder.iterdir()]
    return sorted({path for path in found + inside if path.is_file() and path.suffix in TEXTS})


def standard(expression: str) -> list[Path]:
    """Standard texts for a crate that comes with none: of the first licence that may be chosen."""

    def paths(node: Any) -> list[Path]:
        if isinstance(node, LicenseWithExceptionSymbol):
            return paths(node.license_symbol) + paths(node.exception_symbol)
        if isinstance(node, LicenseSymbol):
            path = toolchain() / "licenses" / f"{node.key}.txt"
            if not path.exists():
                raise ValueError(f"there is no text for {node.key} in the licence {expression}")
            return [path]
        if isinstance(node, get_spdx_licensing().OR):
            return paths(node.args[0])
        return [path for part in node.args for path in paths(part)]

    return paths(get_spdx_licensing().parse(expression, validate=True))


def notices(crates: list[Crate], wheels: list[Wheel]) -> str:
    """All licences. A text that several components have in common is there once."""
    owners: dict[str, dict[str, None]] = defaultdict(dict)

    def add(owner: str, paths: list[Path] | tuple[Path, ...]) -> None:
        for path in paths:
            owners[path.read_text(errors="replace").strip()][owner] = None

    for wheel in wheels:
        add(f"{wheel.name} {wheel.version} ({wheel.licence})", wheel.texts)
    if wheels:
        owner, names = GOMP
        add(owner, [toolchain() / "licenses" / f"{name}.txt" for name in names])
    for crate in sorted(crates):
        if crate.source is not None:
            owner = f"{crate.name} {crate.version} ({crate.licence})"
            add(owner, texts_of(crate) or standard(crate.licence))
    parts = ["Licences of the components of this archive, other than finetune itself (LICENSE) and "
             "Rust's standard library (COPYRIGHT-library.html)."]
    parts += [RULE + "\n" + "\n".join(names) + "\n" + RULE + "\n\n" + text
              for text, names in owners.items()]
    return "\n\n".join(parts) + "\n"
