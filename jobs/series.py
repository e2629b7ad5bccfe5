"""Thinning a finished series of numbers without losing what a person would have noticed.

A running one is kept by `jobs.history`.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite

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
