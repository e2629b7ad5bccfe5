"""The telemetry rings: small, and no spike is lost."""

from __future__ import annotations

from math import floor, inf, isclose, nan
from struct import pack, unpack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.metrics.history import LEVELS, History

VALUES = st.floats(-60_000, 60_000, width=16)


class One:
    """A history of one quantity."""

    def __init__(self, *levels: tuple[float, int]) -> None:
        self.all = History(levels or LEVELS)

    def add(self, at: float, value: float) -> None:
        self.all.add(at, {"x": value})

    def query(self, seconds: float, points: int, now: float) -> list[dict[str, float]]:
        return [dict(point) for point in self.all.query("x", seconds, points, now)]  # type: ignore[arg-type]


@given(
    steps=st.lists(st.tuples(st.sampled_from([0.0, 0.4, 1.0, 3.0, 70.0]), VALUES), max_size=150),
    points=st.integers(1, 40),
    seconds=st.sampled_from([5.0, 20.0, 60.0]),
)
def test_the_ring_agrees_with_the_values_it_was_given(
    steps: list[tuple[float, float]], points: int, seconds: float
) -> None:
    ring, at, values = One((1.0, 20), (5.0, 12)), 1000.0, []
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
            by_second: dict[int, list[float]] = {}
            for moment, value in values:
                if floor(moment / width) * width == point["at"]:
                    by_second.setdefault(int(moment), []).append(value)
            means = [sum(some) / len(some) for some in by_second.values()]
            wide = max(abs(value) for value in inside)
            assert isclose(point["mean"], sum(means) / len(means), abs_tol=1e-3 * wide + 1e-6)


def test_a_spike_shows_in_every_resolution() -> None:
    ring = One()
    for second in range(8 * 3600):
        ring.add(float(second), 97.0 if second == 8 * 3600 - 300 else 3.0)
    for seconds in (600.0, 3600.0, 6 * 3600.0, 86400.0, 7 * 86400.0):
        answer = ring.query(seconds, 100, 8 * 3600.0)
        assert len(answer) <= 100
        assert max(point["high"] for point in answer) == 97.0
        assert min(point["low"] for point in answer) == 3.0


def test_joined_points_begin_at_fixed_moments() -> None:
    ring = One()
    for second in range(600):
        ring.add(float(second), float(second))
    early = {point["at"] for point in ring.query(300, 60, 500.0)}
    late = {point["at"] for point in ring.query(300, 60, 503.0)}
    assert len(early & late) >= 58


def test_a_gap_has_no_points_and_old_values_go() -> None:
    ring = One((1.0, 10))
    ring.add(100.0, 1.0)
    ring.add(104.0, 2.0)
    assert [(p["at"], p["mean"]) for p in ring.query(10, 10, 104.5)] == [(100.0, 1.0), (104.0, 2.0)]
    ring.add(112.0, 3.0)
    assert [p["at"] for p in ring.query(10, 10, 112.0)] == [104.0, 112.0]
    ring.add(5000.0, 4.0)
    assert [p["at"] for p in ring.query(10, 10, 5000.0)] == [5000.0]
    assert ring.query(10, 10, 6000.0) == []


def test_a_question_that_goes_back_too_far_gets_what_there_is() -> None:
    ring = One((1.0, 10))
    for second in range(25):
        ring.add(float(second), float(second))
    assert [p["mean"] for p in ring.query(1000, 1000, 24.0)] == [float(n) for n in range(14, 25)]


def test_late_and_broken_values_are_left_out() -> None:
    ring = One((1.0, 10))
    for at, value in ((100.0, 1.0), (102.0, 2.0), (101.0, 50.0), (102.1, nan), (102.2, inf)):
        ring.add(at, value)
    assert [p["high"] for p in ring.query(10, 10, 103.0)] == [1.0, 2.0]


def test_an_empty_ring_and_a_wrong_question() -> None:
    assert One().query(600, 120, 1e9) == []
    for seconds, points in ((0, 10), (nan, 10), (10, 0)):
        with pytest.raises(ValueError, match="positive"):
            One().query(seconds, points, 0.0)


def half(value: float) -> float:
    return float(unpack("e", pack("e", value))[0])


def test_values_are_kept_to_three_digits_and_the_largest_are_cut() -> None:
    one = One()
    for second, value in enumerate((87.35, 5612.0, 1e9, -1e9, 0.0)):
        one.add(float(second), value)
    means = [point["mean"] for point in one.query(600, 600, 4.0)]
    assert means == [half(87.35), half(5612.0), 65504.0, -65504.0, 0.0]
    assert means[0] == pytest.approx(87.35, rel=5e-4)


def test_a_quantity_may_come_later_and_miss_some_samples() -> None:
    history = History()
    for second in range(3000):
        values = {"cpu": 1.0}
        if second >= 1000 and second % 2:
            values["gpu"] = float(second % 64)
        history.add(float(second), values)
    assert "gpu" in history
    assert "fan" not in history
    assert history.query("fan", 600, 600, 3000.0) == []
    assert [p["at"] for p in history.query("gpu", 10, 10, 2999.0)] == [
        2991.0, 2993.0, 2995.0, 2997.0, 2999.0
    ]  # fmt: skip
    ten = history.query("gpu", 3600, 360, 2999.0)
    assert [p["at"] for p in ten] == [float(at) for at in range(1000, 3000, 10)]
    assert len(history.query("cpu", 3600, 360, 2999.0)) == 300


@pytest.mark.parametrize("gap", [1, 9, 590, 600, 3600, 50_000, 700_000])
def test_what_came_before_a_silence_stays(gap: int) -> None:
    """However long nothing came: the longer buckets have what came before, and only once."""
    one, start = One(), 100_003
    for second in range(start, start + 25):
        one.add(float(second), 50.0)
    for second in range(start + 25 + gap, start + 60 + gap):
        one.add(float(second), 10.0)
    now = float(start + 60 + gap)
    answer = one.query(gap + 4000, 5000, now)
    starts = [p["at"] for p in answer]
    assert starts == sorted(set(starts))
    before = [p for p in answer if p["high"] == 50.0]
    assert bool(before) == (gap < 7 * 86400)
    assert len(before) <= 4
    assert all(p["at"] < start + 25 for p in before)
    assert answer[-1]["low"] == 10.0


def test_what_a_node_takes_does_not_grow() -> None:
    """Thirteen quantities of a node with eight GPUs, for a week: as much as at the beginning."""
    names = [f"gpu{n}" for n in range(13)]
    history, sizes = History(), []
    for minute in range(0, 8 * 24 * 60, 7):
        for second in range(3):
            history.add(60.0 * minute + second, dict.fromkeys(names, 97.0))
        sizes.append(
            sum(len(c) for ring in history._levels for c in ring.columns.values())
            + 35 * sum(len(row) for row in history._rows)
        )
    assert max(sizes) <= 170_000
    assert max(sizes[800:]) <= max(sizes[:400])
