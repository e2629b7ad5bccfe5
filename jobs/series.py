"""Series of numbers over time, kept small without losing what a person would have noticed.

`decimate` thins a finished series for a chart. `RingHistory` keeps a running one at three
resolutions in a fixed amount of memory. In both a spike of one sample stays visible.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from math import ceil, floor, isfinite, isnan, nan

from jobs.views import HistoryPoint

LEVELS: tuple[tuple[float, int], ...] = ((1.0, 600), (10.0, 2160), (60.0, 10080))
"""Seconds per bucket and number of buckets: 10 minutes, 6 hours, 7 days."""

_TOGETHER = 16
"""Values that are sorted into buckets at once."""

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

    Values are sorted into their buckets a few at a time, since a fleet adds tens of thousands of them a
    second. Adding takes constant time, over a gap as long as the gap. A bucket takes 12 bytes and is only
    there once its time has come: 150 kB after a week with the default levels, and no more after that.
    Times are seconds on any one clock, and values have to come in their order: one that belongs into
    an earlier bucket than the last is left out of that level.
    """

    __slots__ = ("_ats", "_levels", "_values")

    def __init__(self, levels: Sequence[tuple[float, int]] = LEVELS) -> None:
        self._levels = [_Ring(width, count) for width, count in levels]
        self._ats, self._values = array("d"), array("d")  # what came last, not sorted in yet

    def add(self, at: float, value: float) -> None:
        """Record a value. One that is not finite is left out."""
        if isfinite(value):
            self._ats.append(at)
            self._values.append(value)
            if len(self._ats) >= _TOGETHER:
                self._sort_in()

    def _sort_in(self) -> None:
        for level in self._levels:
            level.extend(self._ats, self._values)
        del self._ats[:], self._values[:]

    def query(self, seconds: float, points: int, now: float) -> list[HistoryPoint]:
        """The last `seconds` before `now`, oldest first, as at most `points` points.

        The finest level that reaches back far enough answers, or the coarsest; its buckets are joined
        until they are few enough, along fixed moments, so that a chart does not flicker as time goes
        by. A point's `at` is the beginning of its span. A span without a value has no point. Raises
        ValueError if `points` or `seconds` is not positive.
        """
        if points < 1 or not seconds > 0:
            raise ValueError(f"{points} points of {seconds} s; both have to be positive")
        self._sort_in()
        level = next((ring for ring in self._levels if ring.reach >= seconds), self._levels[-1])
        return level.query(seconds, points, now)


class _Ring:
    """Buckets of one width. Bucket number `n` covers `[n * width, (n + 1) * width)`. The arrays grow
    up to `count` buckets, then the newest takes the place of the oldest."""

    __slots__ = (
        "_first", "_high", "_highs", "_low", "_lows", "_means", "_newest", "_seen", "_sum", "_width",
        "count",
    )  # fmt: skip

    def __init__(self, width: float, count: int) -> None:
        self._width, self.count = width, count
        self._first = 0  # the bucket in slot 0 when the arrays were begun
        self._newest = -1
        # Of the newest bucket:
        self._sum, self._seen = 0.0, 0
        self._low = self._high = 0.0
        # Single precision: 7 digits are plenty for a chart, and there is one ring per GPU and metric.
        self._means, self._lows, self._highs = array("f"), array("f"), array("f")

    @property
    def reach(self) -> float:
        return self.count * self._width

    def extend(self, ats: Sequence[float], values: Sequence[float]) -> None:
        """Add values, each with its time."""
        width, newest, seen = self._width, self._newest, self._seen
        total, low, high = self._sum, self._low, self._high
        for at, value in zip(ats, values, strict=True):
            number = int(at // width)
            if number == newest:
                total += value
                seen += 1
                if value < low:
                    low = value
                elif value > high:
                    high = value
            elif number > newest or not self._means:
                if seen > 1:
                    self._write(total, seen, low, high)
                self._begin(number, value)
                newest, total, seen, low, high = number, value, 1, value, value
        if seen > 1:
            self._write(total, seen, low, high)
        self._sum, self._seen, self._low, self._high = total, seen, low, high

    def _begin(self, number: int, value: float) -> None:
        """Make a bucket the newest, with its first value; those that were skipped have none."""
        if not self._means or number - self._newest >= self.count:
            self._means, self._lows, self._highs = array("f"), array("f"), array("f")
            self._first, self._newest = number, number - 1
        for skipped in range(self._newest + 1, number):
            self._put(skipped, nan)
        self._put(number, value)
        self._newest = number

    def _write(self, total: float, seen: int, low: float, high: float) -> None:
        """Put down what the newest bucket has come to."""
        slot = (self._newest - self._first) % self.count
        self._lows[slot], self._highs[slot] = low, high
        # A mean of equal values may be off by a rounding error, and must not leave their range.
        self._means[slot] = min(max(total / seen, low), high)

    def _put(self, number: int, value: float) -> None:
        slot = (number - self._first) % self.count
        if slot == len(self._means):
            self._means.append(value)
            self._lows.append(value)
            self._highs.append(value)
        else:
            self._means[slot] = self._lows[slot] = self._highs[slot] = value

    def query(self, seconds: float, points: int, now: float) -> list[HistoryPoint]:
        last = floor(now / self._width)
        first = floor((now - seconds) / self._width) + 1
        joined = max(1, ceil((last - first + 1) / points))
        first = max(first, (last // joined - points + 1) * joined)
        first = max(first, self._first, self._newest - self.count + 1)
        groups: dict[int, list[int]] = {}
        for number in range(first, min(last, self._newest) + 1):
            slot = (number - self._first) % self.count
            if not isnan(self._means[slot]):
                groups.setdefault(number // joined, []).append(slot)
        return [
            HistoryPoint(
                at=group * joined * self._width,
                mean=sum(self._means[slot] for slot in slots) / len(slots),
                low=min(self._lows[slot] for slot in slots),
                high=max(self._highs[slot] for slot in slots),
            )
            for group, slots in groups.items()
        ]
