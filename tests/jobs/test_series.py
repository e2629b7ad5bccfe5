"""Thinning: small, and no spike is lost."""

from __future__ import annotations

from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.series import decimate

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
