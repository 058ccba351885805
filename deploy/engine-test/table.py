"""What was seen, as rows of a table; each phase of the test is a row with a time limit."""

import json
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType

from tools import Expired, Failed

OK, FAILED, NOT_RUN = "ok", "FAILED", "not run"


@dataclass
class Row:
    """One phase: what was to hold, whether it did, and what was seen."""

    what: str
    verdict: str
    seconds: float
    seen: str


class Table:
    """All rows, in a file too: another process prints them where this one is killed."""

    def __init__(self, file: Path) -> None:
        self.rows: list[Row] = []
        self.file = file
        self.add()

    def add(self, *rows: Row) -> None:
        for row in rows:
            self.rows.append(row)
            print(f"== {row.what}: {row.verdict}, {row.seconds:.1f} s; {row.seen}", flush=True)
        self.file.write_text(json.dumps([asdict(row) for row in self.rows]))

    def not_run(self, what: str, why: str) -> None:
        """A row for what this machine cannot show."""
        self.add(Row(what, NOT_RUN, 0, why))

    @contextmanager
    def phase(self, what: str, limit: int, needed: bool = False) -> Iterator[Callable[[str], None]]:
        """Times a phase of at most `limit` seconds. Its failure is a row; if all that follows
        needs the phase, it ends the test as well."""
        seen: list[str] = []
        began = time.monotonic()

        def expired(_signal: int, _frame: FrameType | None) -> None:
            raise Expired(f"not done after {limit} s")

        before = signal.signal(signal.SIGALRM, expired)
        signal.alarm(limit)
        print(f"-- {what} (at most {limit} s)", flush=True)
        verdict = FAILED
        try:
            yield seen.append
            verdict = OK
        except (Failed, OSError, ValueError, KeyError) as error:
            seen.append(str(error) if isinstance(error, Failed) else f"{type(error).__name__}: {error}")
            if needed:
                raise
        finally:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, before)
            self.add(Row(what, verdict, time.monotonic() - began, "; ".join(seen)))

    def held(self) -> bool:
        """Whether there are rows and none failed."""
        return bool(self.rows) and all(row.verdict != FAILED for row in self.rows)


def read(file: Path) -> Table:
    """The rows that another process left."""
    rows = [Row(**row) for row in json.loads(file.read_text())]
    table = Table(file)
    table.rows = rows
    return table


def show(table: Table) -> None:
    """Prints the rows under each other, with the whole text of those that failed."""
    width = max(len(row.what) for row in table.rows)
    print("\n" + "what".ljust(width) + "  verdict  seconds  seen")
    for row in table.rows:
        lines = row.seen.splitlines() or [""]
        seen = "\n  ".join(lines) if row.verdict == FAILED else lines[0]
        print(f"{row.what.ljust(width)}  {row.verdict:<7}  {row.seconds:>7.1f}  {seen}")
    sys.stdout.flush()
