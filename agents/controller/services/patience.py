"""How soon what has ended is started again: at once when it had lived, later when it keeps dying."""

from __future__ import annotations

from dataclasses import dataclass, field

DELAYS = (0.0, 1.0, 5.0, 15.0, 60.0)
"""Seconds before the next start, by how often it has died soon after one; the last value holds."""
LIVED = 60.0
"""Seconds after which a death is no sign of a fault that a start would meet again."""


@dataclass(slots=True)
class Patience:
    """`deaths`: how often in a row it has died soon."""

    deaths: int = 0
    _seen: set[int] = field(default_factory=set)
    _until: float = 0.0

    def may_again(self, job: int, ran: float, monotonic: float) -> bool:
        """Whether a job that has ended may be followed by another now.

        Args:
            ran: how long it ran, in seconds.
            monotonic: now, on a clock that never jumps.
        """
        if job not in self._seen:
            self._seen = {job}
            self.deaths = 1 if ran >= LIVED else self.deaths + 1
            self._until = monotonic + DELAYS[min(self.deaths, len(DELAYS)) - 1]
        return monotonic >= self._until
