"""What has to be put back, however the test ends."""

from collections.abc import Callable

from waiting import Failed


class Undo:
    """A stack."""

    def __init__(self) -> None:
        self.entries: list[tuple[str, Callable[[], None]]] = []

    def add(self, what: str, how: Callable[[], None]) -> None:
        """To be called before the change, unless that fails where there is something to keep."""
        self.entries.append((what, how))

    def last(self) -> None:
        """Puts back the last change. If that fails, `all` tries it once more."""
        self.entries[-1][1]()
        self.entries.pop()

    def all(self) -> list[str]:
        """Puts back everything; what could not be, as sentences."""
        left = []
        while self.entries:
            what, how = self.entries.pop()
            try:
                how()
            except Failed as reason:
                left.append(f"not put back: {what}: {reason}")
        return left
