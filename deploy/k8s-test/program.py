"""The command line, the order of the steps, the table, and the way back."""

import argparse
import signal
import sys
import tempfile
from pathlib import Path
from types import FrameType

import record
from kubectl import Kubectl, Unusable
from overlay import Overlay, new_name
from steps import Test
from undo import Undo
from waiting import Clock, Deadline, Failed, NotYet

WIDTH = 28


class Signalled(BaseException):
    """SIGINT or SIGTERM."""


class Signals:
    """The first signal ends the test; later ones do not disturb that it puts the cluster back."""

    def __init__(self) -> None:
        self.number: int | None = None
        self.ending = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self.arrived)

    def arrived(self, number: int, _: FrameType | None) -> None:
        self.number = self.number or number
        if self.ending:
            print("the cluster is being put back; please wait", file=sys.stderr, flush=True)
        else:
            self.ending = True
            raise Signalled


def chosen(arguments: list[str], client: type[Kubectl]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="k8s-test", description="Tests the manifests on a real cluster.")
    parser.add_argument("--context", default="", help="the context of the cluster; there is no default")
    parser.add_argument("--registry", default="", help="what to write before the names of the images")
    parser.add_argument("--results", type=Path, default=Path("."), help="where a failed test is recorded")
    given = parser.parse_args(arguments)
    known = client.contexts()
    has = f"this kubeconfig has: {', '.join(known) or 'none'}"
    if not given.context:
        raise Unusable(f"name the cluster: make k8s-test CONTEXT=name; {has}")
    if given.context not in known:
        raise Unusable(f"there is no context {given.context}; {has}")
    return given


def held(test: Test, clock: Clock, rows: list[tuple[str, float, str]]) -> str | None:
    """Runs the steps up to one that does not hold, and says why that does not."""
    for name, limit, step in test.steps():
        within = Deadline(clock, limit)
        try:
            print(f"{name} ...", flush=True)
            found = step(within)
        except (Failed, NotYet) as reason:
            rows.append((name, within.passed(), "FAILED"))
            return f"failed at `{name}`: {reason}"
        except Signalled:
            rows.append((name, within.passed(), "interrupted"))
            raise
        rows.append((name, within.passed(), found))
    return None


def table(test: Test, rows: list[tuple[str, float, str]]) -> str:
    lines = [f"{'step':<{WIDTH}}  {'seconds':>7}  {'limit':>5}  result"]
    for index, (name, limit, _) in enumerate(test.steps()):
        seconds, result = (f"{rows[index][1]:.1f}", rows[index][2]) if index < len(rows) else ("", "not run")
        lines.append(f"{name:<{WIDTH}}  {seconds:>7}  {limit:>5.0f}  {result}")
    return "\n".join(lines)


def main(
    arguments: list[str], client: type[Kubectl] = Kubectl, clock: Clock | None = None
) -> int:
    try:
        given = chosen(arguments, client)
    except Unusable as reason:
        print(reason, file=sys.stderr)
        return 2
    name = new_name()
    kubectl = client(given.context, name)
    rows: list[tuple[str, float, str]] = []
    complaints: list[str] = []
    with tempfile.TemporaryDirectory(prefix="k8s-test-") as folder:
        overlay = Overlay(Path(folder), name, given.registry or None)
        overlay.write()
        test, signals = Test(kubectl, overlay, Undo()), Signals()
        try:
            wrong = held(test, clock or Clock(), rows)
            complaints += [wrong] if wrong else []
        except Signalled:
            pass
        finally:
            signals.ending = True
            if complaints and test.undo.entries:
                record.save(kubectl, given.results / name)
                complaints.append(f"events and logs: {given.results / name}")
            complaints += test.undo.all()
    print(table(test, rows), flush=True)
    for complaint in complaints:
        print(complaint, file=sys.stderr)
    if signals.number is not None:
        print("interrupted", file=sys.stderr)
        return 128 + signals.number
    return 1 if complaints else 0
