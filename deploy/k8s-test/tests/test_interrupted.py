"""Ctrl-C, SIGTERM, and what ends the program before it begins."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from unittest import mock

from harness import FAKE, Fake, OverTheFake, new

PROGRAM = Path(__file__).resolve().parent.parent


class Interrupted(OverTheFake):
    def after(self, call: int, number: int, faults: list[str]) -> int:
        """Sends a signal just after a call has taken effect, and another after the next one, which
        must not stop what the first began. Returns the exit code."""
        self.cluster(nodes=1 + call % 2, faults=faults)
        Fake.calls = []
        execute = Fake.execute

        def interrupted(arguments: list[str], seconds: float) -> tuple[int, str, str]:
            done = execute(arguments, seconds)
            if len(Fake.calls) in (call, call + 1):
                os.kill(os.getpid(), number)
            return done

        with mock.patch.object(Fake, "execute", staticmethod(interrupted)):
            code, _, _ = self.run_test()
        with self.subTest(signal=number, after=Fake.calls[min(call, len(Fake.calls)) - 1]):
            self.assert_put_back()
        return code

    def test_everything_is_put_back_wherever_it_happens(self) -> None:
        for faults, undisturbed in ([], 0), (["no-steps"], 1):
            # The first call lists the contexts, before there is anything to put back.
            call, number = 2, signal.SIGINT
            while (code := self.after(call, number, faults)) == 128 + number:
                call += 1
                number = signal.SIGTERM if call % 3 else signal.SIGINT
            self.assertEqual((code, call), (undisturbed, len(Fake.calls) + 1))

    def program(self, *arguments: str, path: str, **options: object) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-B", str(PROGRAM), *arguments], text=True, cwd=self.folder,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
            env={**os.environ, "PATH": path, "FAKE_CLUSTER": str(self.folder / "cluster")}, **options,
        )

    def fake_program(self) -> str:
        """A PATH with the fake as a program."""
        kubectl = self.folder / "bin" / "kubectl"
        kubectl.parent.mkdir(exist_ok=True)
        kubectl.write_text(f'#!/bin/sh\nexec "{sys.executable}" -B -E -S "{FAKE}" "$@"\n')
        kubectl.chmod(0o755)
        (self.folder / "cluster").write_text(json.dumps(new(faults=["no-steps"])))
        return f"{kubectl.parent}:/usr/bin:/bin"

    def test_ctrl_c_with_real_processes(self) -> None:
        program = self.program("--context=fake", path=self.fake_program())
        assert program.stdout is not None
        # The run never makes a step, so the program stays there.
        while (line := program.stdout.readline()) != "it trains ...\n":
            self.assertTrue(line, "the program ended before that")
        self.assertTrue(json.loads((self.folder / "cluster").read_text())["namespaces"])
        program.send_signal(signal.SIGINT)
        out, error = program.communicate(timeout=60)
        self.assertEqual((program.returncode, error), (130, "interrupted\n"))
        self.assertRegex(out, r"(?m)^it trains .* interrupted$")
        self.assert_put_back(json.loads((self.folder / "cluster").read_text()))

    def test_it_says_what_it_needs(self) -> None:
        cases = [
            ([], self.fake_program(), "name the cluster: make k8s-test CONTEXT=name; this kubeconfig has: fake"),
            (["--context="], self.fake_program(), "name the cluster: "),
            (["--context=other"], self.fake_program(), "there is no context other; this kubeconfig has: fake"),
            (["--context=fake"], "/nowhere", "kubectl is not installed: https://"),
        ]
        for arguments, path, words in cases:
            with self.subTest(words):
                program = self.program(*arguments, path=path)
                _, error = program.communicate(timeout=60)
                self.assertEqual(program.returncode, 2, error)
                self.assertTrue(error.startswith(words), error)
                self.assertEqual(len(error.splitlines()), 1)
        self.assertEqual(json.loads((self.folder / "cluster").read_text())["namespaces"], {})
