"""How late the controller's event loop is: what every request waits for before anybody looks at it."""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from dataclasses import dataclass, field

EVERY = 1.0
"""Seconds between two looks."""
EDGES = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, float("inf"))


@dataclass(slots=True)
class LoopLag:
    """A histogram of seconds by which a timer came too late, since the controller began."""

    counts: list[int] = field(default_factory=lambda: [0] * len(EDGES))
    total: float = 0.0

    async def run(self) -> None:
        """Look, for ever."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + EVERY
            await asyncio.sleep(EVERY)
            self.add(max(0.0, loop.time() - due))

    def add(self, seconds: float) -> None:
        self.counts[bisect_left(EDGES, seconds)] += 1
        self.total += seconds

    @property
    def buckets(self) -> list[tuple[float, int]]:
        return list(zip(EDGES, self.counts, strict=True))
