"""Archives that depend on nothing but their content: sorted, without owners, with one time."""

import gzip
import hashlib
import tarfile
from pathlib import Path

# Higher levels take minutes longer for libtorch and save 1 %. Systems without xz and zstd can
# unpack gzip.
LEVEL = 6


def write(folder: Path, archive: Path, time: int) -> None:
    """Packs a folder under its own name. Every file gets this time."""

    def plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        entry.uid = entry.gid = 0
        entry.uname = entry.gname = ""
        entry.mtime = time
        entry.mode = 0o755 if entry.isdir() or entry.mode & 0o100 else 0o644
        return entry

    with (
        open(archive, "wb") as raw,
        # Without the name and the time of the archive itself.
        gzip.GzipFile(filename="", mode="wb", compresslevel=LEVEL, fileobj=raw, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as tar,
    ):
        tar.add(folder, folder.name, recursive=False, filter=plain)
        for path in sorted(folder.rglob("*")):
            tar.add(path, f"{folder.name}/{path.relative_to(folder)}", recursive=False, filter=plain)


def digest(path: Path) -> str:
    """The SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
