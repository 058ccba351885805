"""Runs the test over the fake kubectl."""

import contextlib
import io
import json
import signal
import sys
import tempfile
import unittest
from pathlib import Path
from typing import Any

import program
from kubectl import Kubectl
from waiting import Clock, NotYet

FAKE = Path(__file__).resolve().parent / "fake"
sys.path.insert(0, str(FAKE))
from answers import Refused, answer  # noqa: E402
from world import World, new  # noqa: E402


class Jumps(Clock):
    """Time that passes only where the test waits, and then at once."""

    pause = 30.0

    def __init__(self) -> None:
        self.time = 0.0

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds


class Fake(Kubectl):
    """Asks the fake kubectl in this process."""

    world: World
    calls: list[list[str]]

    @classmethod
    def execute(cls, arguments: list[str], seconds: float) -> tuple[int, str, str]:
        cls.calls.append(arguments)
        cls.world.moment()
        try:
            return 0, answer(cls.world, arguments), ""
        except Refused as reason:
            return 1, "", str(reason)

    def page(self, pod: str, port: int, path: str) -> str:
        code, _, error = self.execute(self.here("port-forward", f"pod/{pod}", f":{port}"), 0)
        if code:
            raise NotYet(error)
        return json.dumps(self.world.status())


class OverTheFake(unittest.TestCase):
    """A cluster for each test."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        for number in (signal.SIGINT, signal.SIGTERM):
            self.addCleanup(signal.signal, number, signal.getsignal(number))
        Fake.calls = []
        self.cluster()

    def cluster(self, **options: Any) -> None:
        Fake.world = World(new(**options))

    @property
    def state(self) -> dict[str, Any]:
        return Fake.world.state

    def run_test(self, context: str = "fake") -> tuple[int, str, list[str]]:
        """Exit code, what stdout has, the lines of stderr."""
        out, error = io.StringIO(), io.StringIO()
        arguments = [f"--context={context}", f"--results={self.folder / 'results'}"]
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
            code = program.main(arguments, Fake, Jumps())
        return code, out.getvalue(), error.getvalue().splitlines()

    def assert_put_back(self, state: dict[str, Any] | None = None) -> None:
        state = state or self.state
        self.assertEqual(state["namespaces"], {})
        self.assertFalse([name for name, node in state["nodes"].items() if node["unschedulable"]])
