"""Scaling as a decision: what it promises under any load, and its ordinary stories."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.base.errors import InvalidInput
from jobs.services.histogram import Seen, edge_of
from jobs.services.measuring import GAP, LEAST, WINDOW, History, Sample
from jobs.services.scaling import LEARNED_FOR, Look, Now, Scale, changed, decide
from jobs.services.spec import ServiceSpec

SCALE = Scale(min=1, max=4, concurrency=8, quiet=60)
ZERO = Scale(min=0, max=4, concurrency=8, quiet=60, idle=300)


def look(load: float | None = 0.0, **more: Any) -> Look:
    return Look(**{"load": load, "peak": load, "idle": 0.0, **more})


def test_it_grows_to_what_is_in_progress_at_once_and_says_why() -> None:
    found = decide(SCALE, Now(1), look(20.0), 0)
    assert found is not None
    assert found.replicas == 3
    assert found.reason == "20 requests in progress, at most 8 for each replica"
    assert decide(SCALE, Now(1), look(8.0), 0) is None
    assert getattr(decide(SCALE, Now(2), look(900.0), 0), "replicas", 0) == 4


def test_it_shrinks_only_after_a_quiet_window_and_with_a_reserve() -> None:
    state = Now(4, since=1000)
    assert decide(SCALE, state, look(1.0), 1059) is None
    assert decide(SCALE, state, look(1.0, peak=None), 5000) is None
    assert decide(SCALE, state, look(1.0, peak=26.0), 5000) is None
    found = decide(SCALE, state, look(1.0, peak=12.0), 5000)
    assert found is not None
    assert (found.replicas, found.reason) == (2, "at most 12 requests in progress for 1m")
    assert getattr(decide(SCALE, state, look(1.0, peak=13.0), 5000), "replicas", 0) == 3
    assert decide(SCALE, state, look(1.0), 5000, shrink=False) is None


def test_it_goes_to_zero_when_nobody_asks_and_comes_back_for_who_waits() -> None:
    state = Now(2, since=1000)
    assert decide(ZERO, state, look(0.0, idle=299.0, peak=20.0), 9000) is None
    found = decide(ZERO, state, look(0.0, idle=301.0, peak=0.0), 9000)
    assert found is not None
    assert (found.replicas, found.reason) == (0, "no request for 5m1s")
    assert getattr(decide(ZERO, state, look(0.4, idle=301.0), 9000), "replicas", None) == 0
    assert getattr(decide(ZERO, state, look(0.0, idle=301.0), 1200), "replicas", 0) == 1
    assert decide(ZERO, Now(0), look(0.0, idle=9999.0), 9000) is None
    found = decide(ZERO, Now(0), look(None, held=3), 9000)
    assert found is not None
    assert (found.replicas, found.reason) == (1, "3 requests waited for a replica")
    assert decide(ZERO, Now(1), look(0.0, idle=400.0, held=1), 9000) is None
    assert decide(SCALE, Now(1), look(0.0, idle=9000.0), 9000) is None


def test_it_grows_by_latency_only_where_more_replicas_can_help() -> None:
    scale = SCALE.model_copy(update={"latency": 0.2})
    slow = look(4.0, p95=0.5, seen=50)
    found = decide(scale, Now(2), slow, 0)
    assert found is not None
    assert found.replicas == 3
    assert found.capacity == pytest.approx(1.6)
    assert found.reason == "p95 500 ms, at most 200 ms, with 4 requests in progress"
    assert decide(scale, Now(2), replace(slow, load=1.5), 0) is None  # slow all by itself
    assert decide(scale, Now(2), replace(slow, seen=5), 0) is None
    assert decide(scale, Now(2), replace(slow, p95=0.1), 0) is None
    # What it learned keeps it from going back and forth, for a while.
    after = Now(3, since=0, capacity=1.6, learned=0)
    assert decide(scale, after, look(4.0, p95=0.1, seen=50), 1000) is None
    assert decide(scale, after, look(4.0, p95=0.1, seen=50), LEARNED_FOR + 1) is not None
    assert getattr(decide(scale, after, look(1.0, p95=0.1), 1000), "replicas", 0) == 1


scales = st.builds(
    lambda low, more, concurrency, latency: Scale(
        min=low, max=max(1, low + more), concurrency=concurrency, latency=latency, quiet=60, idle=60
    ),
    st.integers(0, 5),
    st.integers(0, 8),
    st.floats(0.5, 64),
    st.none() | st.floats(0.001, 1),
)
maybe = st.none() | st.floats(0, 500)
looks = st.builds(Look, maybe, maybe, maybe, st.integers(0, 100), st.integers(0, 5), maybe)


@settings(max_examples=500, deadline=None)
@given(scales, st.lists(st.tuples(looks, st.sampled_from([0.25, 1.0, 61.0]), st.booleans())))
def test_whatever_is_measured(scale: Scale, steps: list[tuple[Look, float, bool]]) -> None:
    state, now = Now(scale.within(1)), 0.0
    for seen, passed, shrink in steps:
        now += passed
        found = decide(scale, state, seen, now, shrink=shrink)
        if found is None:
            continue
        assert scale.min <= found.replicas <= scale.max
        assert found.replicas != state.replicas
        assert found.reason
        if found.replicas < state.replicas:
            assert shrink
            assert seen.load is not None or seen.idle is not None, "shrank on nothing"
            assert not seen.held
            assert now - state.since >= 60, "shrank before a quiet window"
            if found.replicas == 0:
                assert scale.min == 0
                assert seen.idle is not None and seen.idle >= scale.idle
        learned = (found.capacity, now) if found.capacity else (state.capacity, state.learned)
        state = Now(found.replicas, now, *learned)


@settings(max_examples=200, deadline=None)
@given(scales, st.floats(0.01, 300), st.floats(0, 0.15), st.floats(0.001, 2))
def test_a_load_that_stays_the_same_never_makes_it_flap(
    scale: Scale, load: float, noise: float, carried: float
) -> None:
    """A program of which each replica carries `carried` times what was aimed for before it gets slow."""
    state, history, changes, work = Now(scale.within(1)), History(), [], 0.0
    times = Seen()
    for second in range(900):
        now = float(second)
        work += load * (1 + noise * (-1) ** (second // 30))
        overloaded = load / max(1, state.replicas) > carried * scale.concurrency
        p95 = (scale.latency or 1.0) * (2 if overloaded else 0.3)
        place = next(n for n in range(200) if edge_of(n) >= p95)
        counts = dict(times.times)
        counts[place] = counts.get(place, 0) + 10
        times = Seen(times.seen + 10, 0, counts)
        seen = history.add(Sample("a", now, work, 0.0, 0, times), 60, all_ready=True)
        assert seen is not None
        found = decide(scale, state, seen, now)
        if found is not None:
            changes.append(found.replicas)
            learned = (found.capacity, now) if found.capacity else (state.capacity, state.learned)
            state = Now(found.replicas, now, *learned)
    assert changes == sorted(changes), "it went down under the same load"


def sample(clock: float, work: float = 0.0, **more: Any) -> Sample:
    return Sample(**{"boot": "a", "clock": clock, "work": work, "idle": 0.0, "held": 0,
                     "seen": Seen(), **more})  # fmt: skip


def added(history: History, one: Sample, *, ready: bool = True) -> Look:
    found = history.add(one, 60, all_ready=ready)
    assert found is not None
    return found


def test_the_load_is_an_average_and_the_peak_that_of_the_whole_window() -> None:
    history = History()
    assert added(history, sample(100)).load is None
    assert added(history, sample(101, 5)).load is None
    assert added(history, sample(100 + LEAST, 10)).load == 5
    for second in range(1, 100):
        found = added(history, sample(102 + second, 10 + second))
        assert (found.peak is None) == (second < 58)
    assert (found.load, found.peak) == (1.0, 1.0)
    assert found.idle == 0.0


def test_what_is_not_known_begins_the_quiet_window_again() -> None:
    history = History()
    for second in range(100):
        found = added(history, sample(second))
    assert found.peak == 0
    assert history.add(sample(99), 60, all_ready=True) is None  # the front has said nothing new
    assert added(history, sample(99 + GAP + 1)).peak is None
    for second in range(200, 300):
        found = added(history, sample(second))
    assert found.peak == 0
    other = added(history, sample(3, boot="b"))  # another front counts from nothing
    assert (other.load, other.peak) == (None, None)


def test_times_count_from_when_all_replicas_were_ready() -> None:
    history, waited = History(), Seen(30, 0, {150: 30})
    added(history, sample(0), ready=False)
    for second in range(1, 7):
        assert added(history, sample(second, seen=waited)).p95 is None
    quick = Seen(60, 0, {150: 30, 10: 30})
    found = added(history, sample(7, seen=quick))
    assert (found.p95, found.seen) == (edge_of(10), 30)
    assert added(history, sample(8, seen=quick), ready=False).p95 is None
    assert WINDOW > 0


@pytest.mark.parametrize(
    ("given", "is_so"),
    [
        ("1-4", (1, 4)),
        ("0-2", (0, 2)),
        (3, (1, 3)),
        ({"max": 5, "min": 2, "latency": "200ms", "idle": "5m"}, (2, 5)),
    ],
)
def test_bounds_as_they_are_written(given: Any, is_so: tuple[int, int]) -> None:
    spec = ServiceSpec.from_json({"name": "a", "command": "x", "scale": given})
    assert spec.scale is not None
    assert (spec.scale.min, spec.scale.max) == is_so
    assert ServiceSpec.from_json(spec.to_json()) == spec
    assert changed(spec.scale, {"idle": "10s"}).idle == 10
    assert changed(spec.scale, {}) == spec.scale


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("4-1", "min is 4 and max is 1"),
        ("many", "bounds such as 1-4"),
        ({"min": 0}, "max: missing"),
        ({"max": 2, "latency": 0}, "scale.latency"),
        ({"max": 2, "hold": "1h"}, "scale.hold"),
        ({"max": 2, "maximum": 3}, "scale.maximum"),
    ],
)
def test_what_is_no_scale_is_refused_in_words(given: Any, says: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        ServiceSpec.from_json({"name": "a", "command": "x", "scale": given})
    assert says in str(refused.value)


def test_with_how_many_it_begins_is_within_the_bounds() -> None:
    with pytest.raises(InvalidInput, match="replicas is 9, and scale 1 to 4"):
        ServiceSpec.from_json({"name": "a", "command": "x", "scale": "1-4", "replicas": 9})
    off = ServiceSpec.from_json({"name": "a", "command": "x", "scale": False})
    assert (off.scale, off.first_replicas) == (None, None)
