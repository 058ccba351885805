"""Tests of install.sh and of the launcher `worker`, with small scripts for the programs.

`make deploy-check` runs them; alone: python3 -B deploy/dist/test.py
"""

import functools
import http.server
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "package"))
import archive  # noqa: E402

TORCH = "2.11.0"


def script(path: Path, text: str) -> None:
    """Writes a program."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def tree(folder: Path) -> list[str]:
    """Everything in a folder; nothing where it does not exist."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


class Folder(unittest.TestCase):
    """A test with a folder of its own, with a space in its name."""

    def setUp(self) -> None:
        held = tempfile.TemporaryDirectory(prefix="dist test ")
        self.addCleanup(held.cleanup)
        self.folder = Path(held.name).resolve()


class Install(Folder):
    """install.sh."""

    def setUp(self) -> None:
        super().setUp()
        self.files = self.folder / "files"
        self.prefix = self.folder / "prefix"
        self.release()

    def release(self, version: str = "1.2.3", coordinator: str = "", **others: str) -> None:
        """The files of a release, whose programs print its version."""
        prints = f"echo program {version}"
        programs = {"coordinator": coordinator, "worker-cpu": "", "worker-cuda": ""} | others
        self.files.mkdir(exist_ok=True)
        for path in self.files.iterdir():
            path.unlink()
        for name, text in programs.items():
            stage = self.folder / "stage" / version / name / "finetune"
            script(stage / "bin" / name.split("-")[0], text or prints)
            (stage / "share").mkdir(exist_ok=True)
            (stage / "share" / f"{name}-{version}").write_text("")
            archive.write(stage, self.files / f"finetune-{name}-{version}-x86_64-linux.tar.gz", 1)
        self.sum()

    def sum(self) -> None:
        lines = [f"{archive.digest(path)}  {path.name}\n" for path in sorted(self.files.iterdir())]
        (self.files / "SHA256SUMS").write_text("".join(lines))

    def damage(self) -> None:
        with open(next(self.files.glob("*worker-cpu*")), "ab") as file:
            file.write(b"x")

    def install(self, *flags: str, path: str = "", code: int = 0) -> str:
        """Runs install.sh; returns what it said."""
        if not any(flag.startswith("--from") or flag == "--url" for flag in flags):
            flags = ("--from", str(self.files), *flags)
        done = subprocess.run(
            [HERE / "install.sh", "--prefix", self.prefix, *flags],
            capture_output=True, text=True, check=False,
            env=os.environ | ({"PATH": path} if path else {}),
        )
        self.assertEqual(done.returncode, code, done.stdout + done.stderr)
        if code:
            self.assertEqual(done.stderr.count("\n"), 1, done.stderr)
            self.assertTrue(done.stderr.startswith("error: "), done.stderr)
        return done.stdout + done.stderr

    def version(self, program: str) -> str:
        done = subprocess.run(
            [self.prefix / "bin" / program], capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    def test_installs_and_says_how_to_undo(self) -> None:
        said = self.install()
        self.assertTrue(said.startswith(f"installed finetune 1.2.3 into {self.prefix}/lib/finetune"), said)
        self.assertEqual(self.version("coordinator"), "program 1.2.3")
        self.assertEqual(self.version("worker"), "program 1.2.3")
        self.assertEqual(tree(self.prefix / "bin"), ["coordinator", "worker"])
        undo = next(line for line in said.splitlines() if line.startswith("undo: "))
        subprocess.run(["sh", "-c", undo.removeprefix("undo: ")], check=True)
        self.assertEqual(tree(self.prefix), ["bin", "lib"])

    def test_replaces_a_version_and_leaves_nothing_of_it(self) -> None:
        self.install("--worker", "cuda")
        self.release("1.2.4")
        self.install("--worker", "none")
        self.assertEqual(self.version("coordinator"), "program 1.2.4")
        self.assertEqual(tree(self.prefix / "bin"), ["coordinator"])
        self.assertEqual(
            tree(self.prefix / "lib"),
            ["finetune", "finetune/bin", "finetune/bin/coordinator", "finetune/share",
             "finetune/share/coordinator-1.2.4"],
        )
        self.assertEqual([path.name for path in self.prefix.glob(".*")], [])

    def test_a_damaged_archive_changes_nothing(self) -> None:
        self.damage()
        said = self.install(code=3)
        self.assertIn("finetune-worker-cpu-1.2.3-x86_64-linux.tar.gz does not match", said)
        self.assertFalse(self.prefix.exists())

        self.release("1.0.0")
        self.install()
        before = tree(self.prefix)
        self.release("1.2.3")
        self.damage()
        self.install(code=3)
        self.assertEqual(tree(self.prefix), before)
        self.assertEqual(self.version("worker"), "program 1.0.0")

    def test_an_archive_that_cannot_be_unpacked_changes_nothing(self) -> None:
        next(self.files.glob("*worker-cpu*")).write_bytes(b"not an archive")
        self.sum()
        with self.assertRaises(AssertionError) as several_lines:
            self.install(code=1)
        # tar explains itself, too.
        self.assertIn("cannot unpack", str(several_lines.exception))
        self.assertFalse(self.prefix.exists())

    def test_a_program_that_does_not_start_is_not_installed(self) -> None:
        self.release(coordinator="echo 'version GLIBC_2.99 not found' >&2; exit 1")
        said = self.install(code=1)
        self.assertIn("the coordinator does not start on this system: version GLIBC_2.99", said)
        self.release(**{"worker-cpu": "echo 'libstdc++.so.6: not found' >&2; exit 127"})
        said = self.install(code=1)
        self.assertIn("the worker does not start on this system: libstdc++.so.6", said)
        self.assertFalse(self.prefix.exists())

    def test_a_worker_without_torch_is_installed_with_a_note(self) -> None:
        self.release(**{"worker-cuda": "echo 'error: no torch' >&2; exit 8"})
        said = self.install("--worker", "cuda")
        self.assertIn("the worker does not start yet: error: no torch", said)

    def test_a_foreign_program_is_not_replaced(self) -> None:
        script(self.prefix / "bin" / "worker", "echo other")
        self.assertIn("is not finetune's", self.install(code=1))
        self.assertEqual(self.version("worker"), "other")
        self.assertEqual(tree(self.prefix), ["bin", "bin/worker"])

    def test_an_interrupted_one_leaves_nothing(self) -> None:
        fake = self.folder / "fake"
        script(fake / "tar", f"touch {shlex.quote(str(self.folder / 'began'))}; exec sleep 60")
        process = subprocess.Popen(
            [HERE / "install.sh", "--from", self.files, "--prefix", self.prefix],
            env=os.environ | {"PATH": f"{fake}:{os.environ['PATH']}"}, start_new_session=True,
            stderr=subprocess.DEVNULL,
        )
        while not (self.folder / "began").exists():
            self.assertIsNone(process.poll())
            time.sleep(0.01)
        self.assertEqual(len(list(self.prefix.glob(".finetune.*"))), 1)
        os.killpg(process.pid, signal.SIGTERM)
        self.assertEqual(process.wait(10), 143)
        self.assertFalse(self.prefix.exists())

    def test_downloads(self) -> None:
        handler = functools.partial(Quiet, directory=str(self.files))
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            self.addCleanup(server.shutdown)
            threading.Thread(target=server.serve_forever, daemon=True).start()
            url = f"http://127.0.0.1:{server.server_port}"
            self.install("--url", url)
            self.assertEqual(self.version("worker"), "program 1.2.3")
            (self.files / "SHA256SUMS").unlink()
            with self.assertRaises(AssertionError) as several_lines:
                self.install("--url", url, code=1)
            self.assertIn(f"cannot download {url}/SHA256SUMS", str(several_lines.exception))
            server.shutdown()

    def test_wrong_flags(self) -> None:
        for flags, word in (
            (("--from", ""), "needs a value"),
            (("--from", str(self.files), "--url", "x"), "not both"),
            (("--from=x",), "is no flag"),
            (("--worker", "gpu"), "cpu, cuda or none"),
        ):
            self.assertIn(word, self.install(*flags, code=2))
        self.assertIn("has no SHA256SUMS", self.install("--from", str(self.folder), code=1))
        self.assertFalse(self.prefix.exists())


class Quiet(http.server.SimpleHTTPRequestHandler):
    """A server without a log."""

    def log_message(self, *_: object) -> None:
        """Nothing."""


class Worker(Folder):
    """The launcher of the worker."""

    def setUp(self) -> None:
        super().setUp()
        self.root = self.folder / "root"
        text = (HERE / "worker").read_text().replace("@TORCH@", TORCH)
        script(self.root / "bin" / "worker", text.removeprefix("#!/bin/sh\n"))
        script(self.root / "libexec" / "worker", 'echo "$$"; echo "$LD_LIBRARY_PATH"; printf "<%s>" "$@"')
        self.link = self.folder / "link"
        self.link.symlink_to(self.root / "bin" / "worker")
        # No torch of this machine, and no LIBTORCH of it.
        self.environment = {"PATH": os.environ["PATH"], "PYTHONNOUSERSITE": "1"}
        python = self.folder / "python"
        script(python / "python3", f'exec {shlex.quote(sys.executable)} -S "$@"')
        self.environment["PATH"] = f"{python}:{os.environ['PATH']}"

    def torch(self, name: str, version: str | None = TORCH) -> Path:
        """A folder of torch, which cannot be imported."""
        folder = self.folder / name / "torch"
        (folder / "lib").mkdir(parents=True)
        (folder / "lib" / "libtorch_cpu.so").write_text("")
        (folder / "__init__.py").write_text("raise RuntimeError('imported')\n")
        if version:
            (folder / "version.py").write_text(f"from typing import Optional\n__version__ = '{version}'\n")
        return folder

    def bundle(self) -> Path:
        (self.root / "lib").mkdir()
        (self.root / "lib" / "libtorch_cpu.so").write_text("")
        (self.root / "build-version").write_text(f"{TORCH}\n")
        return self.root / "lib"

    def start(self, *arguments: str, code: int = 0, **variables: object) -> str:
        """Starts it; returns LD_LIBRARY_PATH of the program, or the error."""
        process = subprocess.Popen(
            [self.link, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=self.environment | {name: str(value) for name, value in variables.items()},
            cwd=self.folder,
        )
        said, error = process.communicate()
        self.assertEqual(process.returncode, code, error)
        if code:
            self.assertEqual(error.count("\n"), 1, error)
            return error
        self.assertEqual(error, "")
        pid, path, given = said.split("\n", 2)
        # The coordinator signals and awaits the process that it has started.
        self.assertEqual(int(pid), process.pid)
        self.assertEqual(given, "".join(f"<{one}>" for one in arguments) or "<>")
        return path

    def test_the_order_of_the_places(self) -> None:
        python, own, named = self.torch("site"), self.folder / "root/lib", self.torch("named", "2.11.0+cpu")
        self.assertEqual(self.start(PYTHONPATH=python.parent), str(python / "lib"))
        self.bundle()
        self.assertEqual(self.start(PYTHONPATH=python.parent), str(own))
        for place in (named, named / "lib"):
            self.assertEqual(self.start(PYTHONPATH=python.parent, LIBTORCH=place), str(named / "lib"))

    def test_the_rest_is_passed_on(self) -> None:
        own = self.bundle()
        self.assertEqual(self.start("--a b", "", "c\nd", LD_LIBRARY_PATH="/e:/f"), f"{own}:/e:/f")
        self.assertEqual(self.start(LIBTORCH="", LD_LIBRARY_PATH=""), str(own))

    def test_another_version_is_refused(self) -> None:
        for name, version, found in (
            ("old", "2.10.1+cu130", "2.10.1+cu130"), ("new", "2.11.01", "2.11.01"), ("none", None, "unknown"),
        ):
            error = self.start(code=8, LIBTORCH=self.torch(name, version))
            for word in (f"{name}/torch/lib, of LIBTORCH, is libtorch", found, f"needs {TORCH}",
                         "pip install torch==2.11.0"):
                self.assertIn(word, error)
        error = self.start(code=8, PYTHONPATH=self.folder / "old")
        self.assertIn("of the active Python, is libtorch 2.10.1", error)

    def test_a_missing_one_is_refused(self) -> None:
        self.assertIn("LIBTORCH=/no such: there is no", self.start(code=8, LIBTORCH="/no such"))
        # Python takes a folder of the working directory for a package.
        self.torch(".", TORCH)
        error = self.start(code=8)
        self.assertIn("libtorch 2.11.0 was not found: pip install torch==2.11.0", error)


if __name__ == "__main__":
    unittest.main()
