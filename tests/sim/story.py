"""What happened, line by line, and what must never happen."""

from __future__ import annotations

from collections.abc import Callable

from tests.sim.loop import START


class Violation(AssertionError):
    """Something happened that must not."""


class Story:
    """Args:
    clock: virtual time in seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.lines: list[str] = []
        self.violation: Violation | None = None

    def tell(self, who: str, what: str) -> None:
        self.lines.append(f"{self._clock() - START:9.3f}  {who:<10}  {what}")

    def violated(self, what: str) -> None:
        """Note the first violation; the history is ended by whoever looks at it next."""
        self.tell("VIOLATION", what)
        if self.violation is None:
            self.violation = Violation(what)

    def __str__(self) -> str:
        return "\n".join(self.lines)
