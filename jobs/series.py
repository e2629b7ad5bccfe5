"""Series of numbers over time, kept small without losing what a person would have noticed.

`decimate` thins a finished series for a chart. `RingHistory` keeps a running one at three
resolutions in a fixed amount of memory. In both a spike of one sample stays visible.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from math import floor, isfinite, nan

from jobs.views import HistoryPoint

LEVELS: tuple[tuple[float, int], ...] = ((1.0, 600), (10.0, 2160), (60.0, 10080))
"""Seconds per bucket and number of buckets: 10 minutes, 6 hours, 7 days."""

Point = tuple[float, float]


def decimate(points: Sequence[Point], buckets: int) -> list[Point]:
    """Thin `points`, pairs (x, y) in ascending order of x, for a chart with `buckets` columns.

    The range of x is cut into `buckets` equal parts, and of each the first, the lowest, the highest
    and the last point are kept, in their order: at most `4 * buckets` points, drawn as the full series
    would be (M4, Jugel et al., VLDB 2014). NaN and the infinities are never the lowest or highest,
    unless a bucket has nothing else. A series that is short enough comes back whole. Raises
    ValueError if `buckets` is not positive.
    """
    if buckets < 1:
        raise ValueError(f"{buckets} buckets; at least 1 is needed")
    if len(points) <= 4 * buckets:
        return list(points)
    start, span = points[0][0], points[-1][0] - points[0][0]
    kept: list[Point] = []
    begin = 0
    for bucket in range(1, buckets + 1):
        end = begin
        limit = start + span * bucket / buckets
        last = bucket == buckets
        while end < len(points) and (last or points[end][0] < limit):
            end += 1
        if end > begin:
            finite = [n for n in range(begin, end) if isfinite(points[n][1])] or [begin]
            low = min(finite, key=lambda n: points[n][1])
            high = max(finite, key=lambda n: points[n][1])
            kept.extend(points[n] for n in sorted({begin, low, high, end - 1}))
        begin = end
    return kept


class RingHistory:
    """The recent past of one quantity: mean, low and high of each second, ten seconds and minute.

    Adding is O(1). Memory is allocated once: 36 bytes a bucket, 0.45 MB with the default levels.
    Times are seconds on any one clock; a value older than what a level still holds is left out there.
    """

    __slots__ = ("_levels",)

    def __init__(self, levels: Sequence[tuple[float, int]] = LEVELS) -> None:
        self._levels = [_Ring(width, count) for width, count in levels]

    def add(self, at: float, value: float) -> None:
        """Record a value. One that is not finite is left out."""
        if isfinite(value):
            for level in self._levels:
                level.add(at, value)

    def query(self, seconds: float, points: int, now: float) -> list[HistoryPoint]:
        """The last `seconds` before `now`, oldest first, as at most `points` points.

        The finest level that reaches back far enough answers, or the coarsest; its buckets are joined
        until they are few enough. A point's `at` is the beginning of its span. Spans in which nothing
        was recorded have no point. Raises ValueError if `points` or `seconds` is not positive.
        """
        if points < 1 or not seconds > 0:
            raise ValueError(f"{points} points of {seconds} s; both have to be positive")
        level = next((ring for ring in self._levels if ring.reach >= seconds), self._levels[-1])
        return level.query(now - seconds, now, points)


class _Ring:
    """Buckets of one width. Bucket number `n` covers `[n * width, (n + 1) * width)` and lies in slot
    `n % count`, where it replaces an older one."""

    __slots__ = ("_high", "_low", "_number", "_seen", "_sum", "count", "width")

    def __init__(self, width: float, count: int) -> None:
        self.width, self.count = width, count
        self._number = array("q", [-1]) * count  # which bucket is in the slot
        self._seen = array("L", [0]) * count
        self._sum = array("d", [0.0]) * count
        self._low = array("f", [nan]) * count
        self._high = array("f", [nan]) * count
