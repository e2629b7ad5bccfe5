"""Lines for charts: decimation that keeps spikes, and a ring of down-sampled telemetry."""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

from jobs.views import HistoryPoint

LEVELS: tuple[tuple[float, int], ...] = ((1.0, 600), (10.0, 720), (120.0, 720))
"""(seconds per bucket, buckets): ten minutes, two hours, a day. 16 bytes a bucket, 33 kB a line."""


def decimate(points: Sequence[tuple[float, float]], buckets: int) -> list[tuple[float, float]]:
    """Thin a line to at most four points a bucket: its first, last, lowest and highest.

    A spike of a single sample is always its bucket's highest or lowest, so it never disappears.

    Args:
        points: (x, y), x not falling.
        buckets: how many stretches of equal count to cut the line into, at least 1.

    Returns:
        A subsequence of `points`, in order; all of them when there are not more than `4 * buckets`.
    """
    if buckets < 1:
        raise ValueError(f"buckets must be at least 1, not {buckets}")
    if len(points) <= 4 * buckets:
        return list(points)
    kept: list[tuple[float, float]] = []
    for number in range(buckets):
        start = number * len(points) // buckets
        stop = (number + 1) * len(points) // buckets
        indices = range(start, stop)
        lowest = min(indices, key=lambda index: points[index][1])
        highest = max(indices, key=lambda index: points[index][1])
        kept += [points[index] for index in sorted({start, lowest, highest, stop - 1})]
    return kept


@dataclass(slots=True)
class _Bucket:
    """The bucket that is being filled."""

    number: int
    total: float
    count: int
    low: float
    high: float


class _Level:
    """One resolution: a ring of closed buckets and the open one."""

    def __init__(self, width: float, size: int) -> None:
        self.width, self.size = width, size
        self._numbers = array("i", [-1]) * size  # which bucket a slot holds, to tell old from new
        self._means = array("f", [0.0]) * size
        self._lows = array("f", [0.0]) * size
        self._highs = array("f", [0.0]) * size
        self._open: _Bucket | None = None

    def add(self, at: float, value: float) -> None:
        number = int(at // self.width)
        bucket = self._open
        if bucket is None or number > bucket.number:
            self._close()
            self._open = _Bucket(number, value, 1, value, value)
        else:  # also for a clock that stepped back: it counts where we are
            bucket.total += value
            bucket.count += 1
            bucket.low, bucket.high = min(bucket.low, value), max(bucket.high, value)

    def _close(self) -> None:
        bucket = self._open
        if bucket is None:
            return
        slot = bucket.number % self.size
        self._numbers[slot] = bucket.number
        self._means[slot] = bucket.total / bucket.count
        self._lows[slot], self._highs[slot] = bucket.low, bucket.high

    def query(self, start: float, stop: float) -> list[HistoryPoint]:
        found: list[HistoryPoint] = []
        first = int(start // self.width)
        for number in range(first, int(stop // self.width) + 1):
            slot = number % self.size
            if self._numbers[slot] == number:
                found.append(
                    {
                        "at": number * self.width,
                        "mean": self._means[slot],
                        "low": self._lows[slot],
                        "high": self._highs[slot],
                    }
                )
        bucket = self._open
        if bucket is not None and first <= bucket.number <= stop // self.width:
            found.append(
                {
                    "at": bucket.number * self.width,
                    "mean": bucket.total / bucket.count,
                    "low": bucket.low,
                    "high": bucket.high,
                }
            )
        return found


class RingHistory:
    """One telemetry line in fixed memory: fine for the last minutes, coarser the further back.

    Each bucket keeps mean, lowest and highest, so a spike shows at every resolution.
    """

    __slots__ = ("_levels",)

    def __init__(self, levels: Sequence[tuple[float, int]] = LEVELS) -> None:
        self._levels = [_Level(width, size) for width, size in levels]

    def add(self, at: float, value: float) -> None:
        """Take a sample of unix time `at`; NaN and infinities are dropped."""
        if not math.isfinite(value):
            return
        for level in self._levels:
            level.add(at, value)

    def query(self, seconds: float, points: int, now: float) -> list[HistoryPoint]:
        """The last `seconds` before `now`, at most about `points` of them, oldest first.

        Taken from the finest level that reaches back that far, else from the coarsest.
        """
        level = next(
            (lvl for lvl in self._levels if lvl.width * lvl.size >= seconds), self._levels[-1]
        )
        return _merged(level.query(now - seconds, now), points)


def _merged(line: list[HistoryPoint], points: int) -> list[HistoryPoint]:
    """Neighbours joined until at most `points` are left."""
    step = max(1, math.ceil(len(line) / max(points, 1)))
    if step == 1:
        return line
    merged: list[HistoryPoint] = []
    for start in range(0, len(line), step):
        group = line[start : start + step]
        merged.append(
            {
                "at": group[0]["at"],
                "mean": sum(point["mean"] for point in group) / len(group),
                "low": min(point["low"] for point in group),
                "high": max(point["high"] for point in group),
            }
        )
    return merged
