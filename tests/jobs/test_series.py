"""Thinning and the telemetry ring: small, and no spike is lost."""

from __future__ import annotations

import math
from math import floor, inf, isclose, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.series import RingHistory, decimate

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


@given(
    steps=st.lists(st.tuples(st.sampled_from([0.0, 0.4, 1.0, 3.0, 70.0]), VALUES), max_size=150),
    points=st.integers(1, 40),
    seconds=st.sampled_from([5.0, 20.0, 60.0]),
)
def test_the_ring_agrees_with_the_values_it_was_given(
    steps: list[tuple[float, float]], points: int, seconds: float
) -> None:
    ring, at, values = RingHistory([(1.0, 20), (5.0, 12)]), 1000.0, []
    for step, value in steps:
        at += step
        values.append((at, value))
        ring.add(at, value)
    answer = ring.query(seconds, points, at)
    assert len(answer) <= points
    starts = [point["at"] for point in answer]
    assert starts == sorted(set(starts))
    for point in answer:
        assert point["low"] <= point["mean"] <= point["high"]
        assert {point["low"], point["high"]} <= {v for _, v in values}
    width = 1.0 if seconds <= 20 else 5.0
    if points >= 20:  # nothing was joined: compare bucket by bucket
        buckets: dict[float, list[float]] = {}
        for moment, value in values:
            buckets.setdefault(floor(moment / width) * width, []).append(value)
        oldest = floor((at - seconds) / width) * width
        assert starts == [start for start in buckets if start > oldest]
        for point in answer:
            inside = buckets[point["at"]]
            assert (point["low"], point["high"]) == (min(inside), max(inside))
            assert isclose(point["mean"], sum(inside) / len(inside), rel_tol=1e-5, abs_tol=0.1)


def test_a_spike_shows_in_every_resolution() -> None:
    ring = RingHistory()
    for second in range(8 * 3600):
        ring.add(float(second), 97.0 if second == 8 * 3600 - 300 else 3.0)
    for seconds in (600.0, 6 * 3600.0, 7 * 86400.0):
        answer = ring.query(seconds, 100, 8 * 3600.0)
        assert len(answer) <= 100
        assert max(point["high"] for point in answer) == 97.0
        assert min(point["low"] for point in answer) == 3.0


def test_joined_points_begin_at_fixed_moments() -> None:
    ring = RingHistory()
    for second in range(600):
        ring.add(float(second), float(second))
    early = {point["at"] for point in ring.query(300, 60, 500.0)}
    late = {point["at"] for point in ring.query(300, 60, 503.0)}
    assert len(early & late) >= 58


def test_a_gap_has_no_points_and_old_values_go() -> None:
    ring = RingHistory([(1.0, 10)])
    ring.add(100.0, 1.0)
    ring.add(104.0, 2.0)
    assert [(p["at"], p["mean"]) for p in ring.query(10, 10, 104.5)] == [(100.0, 1.0), (104.0, 2.0)]
    ring.add(112.0, 3.0)
    assert [p["at"] for p in ring.query(10, 10, 112.0)] == [104.0, 112.0]
    ring.add(5000.0, 4.0)
    assert [p["at"] for p in ring.query(10, 10, 5000.0)] == [5000.0]
    assert ring.query(10, 10, 6000.0) == []


def test_a_question_that_goes_back_too_far_gets_what_there_is() -> None:
    ring = RingHistory([(1.0, 10)])
    for second in range(25):
        ring.add(float(second), float(second))
    assert [p["mean"] for p in ring.query(1000, 1000, 24.0)] == [float(n) for n in range(15, 25)]


def test_late_and_broken_values_are_left_out() -> None:
    ring = RingHistory([(1.0, 10)])
    for at, value in ((100.0, 1.0), (102.0, 2.0), (101.0, 50.0), (102.1, nan), (102.2, inf)):
        ring.add(at, value)
    assert [p["high"] for p in ring.query(10, 10, 103.0)] == [1.0, 2.0]


def test_an_empty_ring_and_a_wrong_question() -> None:
    assert RingHistory().query(600, 120, 1e9) == []
    for seconds, points in ((0, 10), (nan, 10), (10, 0)):
        with pytest.raises(ValueError, match="positive"):
            RingHistory().query(seconds, points, 0.0)


def test_a_week_takes_some_150_kilobytes() -> None:
    ring = RingHistory()
    for minute in range(7 * 24 * 60 + 100):
        ring.add(minute * 60.0, 1.0)
    size = sum(
        column.buffer_info()[1] * column.itemsize
        for level in ring._levels
        for column in (level._means, level._lows, level._highs)
    )
    assert size <= math.ceil(12 * (600 + 2160 + 10080))
