"""Counts of one version's requests, as a front or a model server writes them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from jobs.services.evidence import Counts

FIRST, GROWTH = 50e-6, 1.1
"""Seconds: the upper edges of the histogram are FIRST times GROWTH to the power of 0, 1, 2 ..."""
ENOUGH = 20
"""Requests of the running version before its p95 is believed."""


@dataclass(frozen=True, slots=True)
class Seen:
    """The counts of one version: requests, those in error, and a histogram of their times."""

    seen: int = 0
    bad: int = 0
    times: Mapping[int, int] = field(default_factory=dict)

    @classmethod
    def from_json(cls, data: Mapping[str, Any] | None) -> Seen:
        if data is None:
            return cls()
        times = {int(place): int(count) for place, count in data["times"].items()}
        return cls(int(data["seen"]), int(data["bad"]), times)

    def to_json(self) -> dict[str, Any]:
        return {
            "seen": self.seen,
            "bad": self.bad,
            "times": {str(k): v for k, v in self.times.items()},
        }

    def __add__(self, other: Seen) -> Seen:
        times = {
            place: self.times.get(place, 0) + other.times.get(place, 0)
            for place in self.times.keys() | other.times.keys()
        }
        return Seen(self.seen + other.seen, self.bad + other.bad, times)

    def since(self, before: Seen) -> Seen:
        times = {
            place: count - before.times.get(place, 0)
            for place, count in self.times.items()
            if count > before.times.get(place, 0)
        }
        return Seen(self.seen - before.seen, self.bad - before.bad, times)

    def quantile(self, q: float) -> float | None:
        """Seconds: the upper edge of the bucket in which it is; None without a request."""
        total = sum(self.times.values())
        if not total:
            return None
        passed = 0
        for place in sorted(self.times):
            passed += self.times[place]
            if passed >= q * total:
                return edge_of(place)
        raise AssertionError("the buckets sum to their total")

    def slow(self, edge: float) -> Counts:
        """How many took longer than so many seconds, an upper edge of a bucket."""
        over = sum(count for place, count in self.times.items() if edge_of(place) > edge * 1.0001)
        return Counts(sum(self.times.values()), over)

    def edge(self, slower: float) -> float | None:
        """Seconds from which a request is slow: so many times its p95, as the upper edge of a bucket.
        None before there were enough."""
        p95 = self.quantile(0.95) if self.seen >= ENOUGH else None
        if p95 is None:
            return None
        place = 0
        while edge_of(place) < p95 * slower:
            place += 1
        return edge_of(place)


UNCOUNTED = Seen()


def edge_of(place: int) -> float:
    """The upper edge of a bucket, in seconds."""
    return FIRST * GROWTH**place
