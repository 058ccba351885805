"""Time limits, and what ends a step."""

import time
from collections.abc import Callable
from typing import TypeVar

Value = TypeVar("Value")


class Failed(Exception):
    """A step does not hold. The text is one sentence."""


class NotYet(Exception):
    """What is waited for is not there yet. The text says what is there instead."""


class Clock:
    """The time, and how long to wait between two looks at the cluster."""

    pause = 2.0

    def now(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


class Deadline:
    """The time limit of a step."""

    def __init__(self, clock: Clock, seconds: float) -> None:
        self.clock, self.seconds, self.began = clock, seconds, clock.now()

    def passed(self) -> float:
        return self.clock.now() - self.began

    def left(self) -> float:
        return self.seconds - self.passed()

    def until(self, look: Callable[[], Value]) -> Value:
        """The result of `look` as soon as that does not raise NotYet."""
        while True:
            try:
                return look()
            except NotYet as reason:
                if self.left() < self.clock.pause:
                    raise Failed(f"{reason}, after {self.passed():.0f} s") from None
            self.clock.sleep(self.clock.pause)
