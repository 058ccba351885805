"""Programs, polling, and the ways in which a phase or the test ends early."""

import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

DEPLOY = Path(__file__).resolve().parent.parent
ROOT = DEPLOY.parent
# Lines of a failed command that a message quotes; its log has all of them.
TAIL = 15
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

T = TypeVar("T")
Json = dict[str, Any]


class Failed(Exception):
    """Something that must hold does not; the text says what."""


class Expired(Failed):
    """A phase has reached its time limit."""


class Stopped(BaseException):
    """A signal asked the test to end. Not an `Exception`, so that no check takes it for its own."""


def stop(number: int, _frame: FrameType | None) -> None:
    """The handler of the signals that end the test."""
    raise Stopped(signal.Signals(number).name)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Lets what puts things back come to its end; a signal meanwhile takes effect afterwards."""
    came: list[int] = []
    before = {number: signal.signal(number, lambda got, _: came.append(got)) for number in STOPPING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if came:
        stop(came[0], None)


def run(
    *command: str | Path,
    env: Mapping[str, str] | None = None,
    log: Path | None = None,
    ok: tuple[int, ...] = (0,),
    stdin: int | None = subprocess.DEVNULL,
) -> str:
    """The output of a program, which must exit with one of the codes `ok`; with `log` its output
    goes there as it comes."""
    if log is None:
        done = subprocess.run(
            command, env=env, stdin=stdin, capture_output=True, text=True, errors="replace", check=False
        )
        code, output, shown = done.returncode, done.stdout, done.stdout + done.stderr
    else:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("w") as into:
            code = subprocess.run(command, env=env, stdin=stdin, stdout=into, stderr=into, check=False).returncode
        output = shown = log.read_text(errors="replace")
    if code not in ok:
        tail = "\n  ".join(shown.strip().splitlines()[-TAIL:])
        whole = f" (all of it: {log})" if log else ""
        raise Failed(f"{' '.join(map(str, command))}: exit code {code}{whole}\n  {tail}")
    return output


def until(what: str, seconds: float, holds: Callable[[], T | None], pause: float = 0.2) -> T:
    """Polls until `holds` returns a true value, and returns that."""
    deadline, why = time.monotonic() + seconds, ""
    while True:
        try:
            if found := holds():
                return found
        except Expired:
            raise
        except (OSError, Failed, ValueError) as error:
            why = f" (last: {error})"
        if time.monotonic() > deadline:
            raise Failed(f"waited {seconds:.0f} s for {what}, in vain{why}")
        time.sleep(pause)
