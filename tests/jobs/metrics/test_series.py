"""Thinning: small, and no spike is lost."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import pairwise
from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.metrics.series import between, decimate, in_order, one_curve

VALUES = st.floats(-1e6, 1e6, width=32)
SERIES = st.lists(st.tuples(st.integers(0, 500), VALUES), max_size=300).map(sorted)


@given(SERIES, st.integers(1, 20))
def test_a_thinned_series_keeps_its_ends_and_extremes(
    points: list[tuple[int, float]], buckets: int
) -> None:
    thin = decimate(points, buckets)
    assert len(thin) <= 4 * buckets
    assert thin == sorted(thin, key=lambda point: point[0])
    assert set(thin) <= set(points)
    if points:
        values = [y for _, y in points]
        assert (thin[0], thin[-1]) == (points[0], points[-1])
        assert {min(values), max(values)} <= {y for _, y in thin}


def test_a_spike_of_one_sample_stays() -> None:
    points = [(float(x), 0.0) for x in range(10_000)]
    points[4321] = (4321.0, 99.0)
    assert (4321.0, 99.0) in decimate(points, 10)


def test_nan_hides_no_spike_and_a_short_series_is_left_alone() -> None:
    points = [(float(x), nan) for x in range(100)]
    points[50] = (50.0, 7.0)
    points[51] = (51.0, inf)
    assert (50.0, 7.0) in decimate(points, 2)
    assert decimate(points[:8], 2) is not points
    assert len(decimate(points[:8], 2)) == 8
    assert decimate([], 5) == []


def test_points_at_one_moment_are_one_bucket() -> None:
    assert decimate([(5.0, y) for y in (3.0, 1.0, 2.0, 9.0, 4.0)], 1) == [
        (5.0, 3.0),
        (5.0, 1.0),
        (5.0, 9.0),
        (5.0, 4.0),
    ]


def test_no_buckets_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        decimate([], 0)


def test_what_is_shown_first() -> None:
    assert in_order(["acc", "loss", "a"], "acc") == ["acc", "a", "loss"]
    assert in_order(["b", "loss", "a"], None) == ["loss", "a", "b"]
    assert in_order(["b", "loss", "a"], "gone") == ["a", "b", "loss"]


def _line(steps: Iterable[int], value: float) -> list[dict[str, float]]:
    return [{"step": step, "value": value} for step in steps]


def test_steps_that_were_trained_again_show_the_newer_value() -> None:
    first, second, third = _line(range(10), 1.0), _line(range(4, 8), 2.0), _line([6, 7], 3.0)
    values = [point["value"] for point in one_curve([first, [], second, third])]
    assert values == [1.0] * 4 + [2.0] * 2 + [3.0] * 2 + [1.0] * 2
    every_other = one_curve([_line(range(10), 1.0), _line([2, 4, 6], 2.0)])
    assert [point["step"] for point in every_other] == [0, 1, 2, 4, 6, 7, 8, 9]
    assert one_curve([]) == one_curve([[], []]) == []


def test_between_keeps_a_neighbour_on_either_side() -> None:
    points = [{"step": n, "at": float(n)} for n in range(10)]
    assert [p["step"] for p in between(points, 3.0, 5.0)] == [2, 3, 4, 5, 6]
    assert [p["step"] for p in between(points, None, 1.0)] == [0, 1, 2]
    assert [p["step"] for p in between(points, 8.5, None)] == [8, 9]
    assert between(points, 20.0, 30.0) == []
    assert between(points, None, None) is points


def test_what_is_thinned_are_real_points_and_reach_the_peaks() -> None:
    """A sine of period 126 over 60,000 steps: thinned for a window of 512 steps every wave is there."""
    wave = [(float(n), math.sin(2 * math.pi * n / 126)) for n in range(60_000)]
    window = wave[30_000:30_512]
    kept = decimate(window, 100)
    assert set(kept) <= set(window)
    ups = sum(a < 0 <= b for (_, a), (_, b) in pairwise(kept))
    assert ups == sum(a < 0 <= b for (_, a), (_, b) in pairwise(window)) == 4
    assert max(y for _, y in kept) == max(y for _, y in window)
