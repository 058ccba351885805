"""Packages built programs for machines without a compiler.

`make dist` builds them, installs requirements.txt and runs this. Into --out go an archive and a bill
of materials for each of `coordinator`, `worker-cpu` and `worker-cuda`, install.sh, and SHA256SUMS.
The same programs give the same bytes.
"""

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

import archive
import crates
import elf
import licences
import readme
import sbom
import wheels

HERE = Path(__file__).resolve().parents[1]
SYSTEM = "x86_64-linux"
# Theirs may be changed; NVIDIA's may not.
STRIPPED = ("libtorch_cpu.so", "libc10.so")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--coordinator", type=Path, required=True, help="the program")
    parser.add_argument("--worker", type=Path, required=True, help="the program")
    parser.add_argument("--nccl", type=Path, required=True, help="libc10d_nccl.so")
    parser.add_argument("--torch", type=Path, required=True, help="the folder of the pinned torch")
    parser.add_argument("--out", type=Path, required=True, help="an empty folder is created here")
    return parser.parse_args()


def program(source: Path, into: Path) -> Path:
    """A copy of a program, or of a library of this project, without debug information and without
    the folders of the machine that built it."""
    into.mkdir(parents=True, exist_ok=True)
    copy = into / source.name
    subprocess.run(["strip", "--strip-debug", "-o", copy, source], check=True)
    if path := elf.run_path(copy):
        beside = ":".join(one for one in path.split(":") if one.startswith("$ORIGIN"))
        subprocess.run(["patchelf", "--set-rpath", beside, copy], check=True)
        if elf.run_path(copy) != beside:
            raise ValueError(f"{copy} still looks for libraries in {elf.run_path(copy)}")
    return copy


def libraries(torch: Path, into: Path) -> list[Path]:
    """What a worker on a CPU loads, from the wheels, as in its image."""
    script = HERE.parent / "docker" / "libraries"
    subprocess.run([script, torch.parent, into, "libtorch_cpu.so"], check=True)
    for name in STRIPPED:
        subprocess.run(["strip", "--strip-unneeded", into / name], check=True)
    return sorted(into.iterdir())


def launcher(into: Path, torch_version: str) -> None:
    """bin/worker, which finds libtorch and starts the program in libexec/."""
    into.mkdir(parents=True)
    text = (HERE / "worker").read_text().replace("@TORCH@", torch_version)
    (into / "worker").write_text(text)
    (into / "worker").chmod(0o755)


class Release:
    """The files of a release, in one folder."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.given = given
        # The wheels' folder, also where .libtorch is a link to the torch in it.
        self.torch: Path = given.torch.resolve()
        self.torch_version = wheels.torch_version(self.torch.parent)
        self.out: Path = given.out
        self.time = int(os.environ.get("SOURCE_DATE_EPOCH") or committed())
        (self.version,) = {
            one.version for one in crates.of_program("coordinator") if one.name == "coordinator"
        }

    def name(self, component: str) -> str:
        return f"finetune-{component}-{self.version}-{SYSTEM}"

    def stage(self, component: str) -> Path:
        """The folder whose content is packed; all archives have the same name for it, so that they
        can be unpacked into one another."""
        return self.out / component / f"finetune-{self.version}"

    def finish(self, component: str, package: str, files: list[Path], provided: list[Path]) -> None:
        """Adds the documents to what is staged, packs it, and lists what it is made of."""
        stage = self.stage(component)
        document = stage / "share" / "doc" / f"finetune-{package}"
        document.mkdir(parents=True)
        parts = crates.of_program(package)
        site = self.torch.parent
        bundled = wheels.of_libraries(site, [path.name for path in provided]) if provided else []
        shutil.copy(crates.ROOT / "LICENSE", document)
        shutil.copy(licences.toolchain() / "COPYRIGHT-library.html", document)
        (document / "LICENSES-third-party.txt").write_text(licences.notices(list(parts), bundled))
        text = readme.text(component, self.version, self.torch_version, elf.needs(files + provided))
        (document / "README.md").write_text(text)
        name = self.name(component)
        archive.write(stage, self.out / f"{name}.tar.gz", self.time)
        bill = sbom.write(f"finetune-{component}", self.version, self.time, parts, bundled)
        (self.out / f"{name}.cdx.json").write_text(bill)
        shutil.rmtree(self.out / component)

    def coordinator(self) -> None:
        built = program(self.given.coordinator, self.stage("coordinator") / "bin")
        self.finish("coordinator", "coordinator", [built], [])

    def worker(self, component: str) -> None:
        stage = self.stage(component)
        built = [program(self.given.worker, stage / "libexec")]
        launcher(stage / "bin", self.torch_version)
        provided: list[Path] = []
        if component == "worker-cpu":
            provided = libraries(self.torch, stage / "lib")
            # libtorch's own archives have it; the launcher reads it.
            (stage / "build-version").write_text(self.torch_version + "\n")
        else:
            built.append(program(self.given.nccl, stage / "libexec"))
        self.finish(component, "worker", built, provided)

    def sums(self) -> None:
        shutil.copy(HERE / "install.sh", self.out)
        lines = [f"{archive.digest(path)}  {path.name}" for path in sorted(self.out.iterdir())]
        (self.out / "SHA256SUMS").write_text("\n".join(lines) + "\n")


def committed() -> str:
    """The time of the revision."""
    command = ["git", "log", "-1", "--format=%ct"]
    return subprocess.run(command, cwd=crates.ROOT, capture_output=True, check=True).stdout.decode()


def main() -> int:
    given = arguments()
    for path in (given.coordinator, given.worker, given.nccl, given.torch):
        if not path.exists():
            print(f"{path} does not exist; `make dist` builds it", file=sys.stderr)
            return 1
    shutil.rmtree(given.out, ignore_errors=True)
    given.out.mkdir(parents=True)
    release = Release(given)
    release.coordinator()
    release.worker("worker-cpu")
    release.worker("worker-cuda")
    release.sums()
    for path in sorted(given.out.iterdir()):
        print(f"{path.stat().st_size / 1e6:8.1f} MB  {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
