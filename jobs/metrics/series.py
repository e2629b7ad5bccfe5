"""Finished series of numbers: thinned without losing what a person would have noticed, and several as one.

A running one is kept by `jobs.metrics.history`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import isfinite
from typing import Any, TypeVar

Point = tuple[float, float]
P = TypeVar("P", bound=Mapping[str, Any])
"""A point as the API has it, with its `step`."""


def decimate(points: Sequence[Point], buckets: int) -> list[Point]:
    """Thin `points`, pairs (x, y) in ascending order of x, for a chart with `buckets` columns: those that
    `standing_out` names."""
    return [points[n] for n in standing_out(points, buckets)]


def standing_out(points: Sequence[Point], buckets: int) -> list[int]:
    """Which of `points`, pairs (x, y) in ascending order of x, a chart with `buckets` columns needs.

    The range of x is cut into `buckets` equal parts, and of each the first, the lowest, the highest
    and the last point are kept, in their order: at most `4 * buckets` points, drawn as the full series
    would be (M4, Jugel et al., VLDB 2014). NaN and the infinities are never the lowest or highest,
    unless a bucket has nothing else. Of a series that is short enough, all. Raises ValueError if
    `buckets` is not positive.
    """
    if buckets < 1:
        raise ValueError(f"{buckets} buckets; at least 1 is needed")
    if len(points) <= 4 * buckets:
        return list(range(len(points)))
    start, span = points[0][0], points[-1][0] - points[0][0]
    kept: list[int] = []
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
            kept.extend(sorted({begin, low, high, end - 1}))
        begin = end
    return kept


def in_order(names: Iterable[str], objective: str | None) -> list[str]:
    """Metrics as people want to see them: the objective first, else the loss, the rest by name."""
    first = objective or "loss"
    return sorted(names, key=lambda name: (name != first, name))


def one_curve(attempts: Sequence[Sequence[P]]) -> list[P]:
    """The points of several attempts as one curve, by step: where a newer attempt trained steps again, its
    points take the place of the older ones.

    Args:
        attempts: the points of each, oldest first.
    """
    spans = [
        (min(point["step"] for point in points), max(point["step"] for point in points))
        for points in attempts
        if points
    ]
    given = [points for points in attempts if points]
    found = [
        point
        for number, points in enumerate(given)
        for point in points
        if not any(low <= point["step"] <= high for low, high in spans[number + 1 :])
    ]
    return sorted(found, key=lambda point: point["step"])


def between(points: list[P], since: float | None, until: float | None) -> list[P]:
    """What of a curve was logged between two moments, and one point beyond either, so that a line drawn
    through them reaches the edges. Unix times; None leaves a side open."""
    if since is None and until is None:
        return points
    inside = [
        number
        for number, point in enumerate(points)
        if (since is None or point["at"] >= since) and (until is None or point["at"] <= until)
    ]
    if not inside:
        return []
    return points[max(0, inside[0] - 1) : inside[-1] + 2]
