"""Decisions about sweeps: what to do next, and what became of a trial."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.sweeps.decisions import (
    ENDED,
    JobEnd,
    Limits,
    Sweep,
    Tally,
    decide,
    pareto,
    running_for,
    verdict,
)

RUNNING = Sweep("RUNNING", Limits(parallel=4, trials=10), started_at=100.0)


def test_free_slots_are_filled_up_to_the_limit() -> None:
    assert decide(RUNNING, Tally(), 100).ask == 4
    assert decide(RUNNING, Tally(open=3), 100).ask == 1
    assert decide(RUNNING, Tally(open=1, complete=8), 100).ask == 1
    assert decide(RUNNING, Tally(open=4), 100).ask == 0
    assert decide(RUNNING, Tally(open=6), 100).ask == 0  # after `parallel` was lowered


def test_it_ends_when_all_trials_are_over() -> None:
    waits = decide(RUNNING, Tally(open=1, complete=9), 100)
    assert (waits.state, waits.ask) == ("RUNNING", 0)
    done = decide(RUNNING, Tally(complete=5, pruned=3, failed=2), 100)
    assert (done.state, done.reason) == ("FINISHED", "all 10 trials are done")
    endless = replace(RUNNING, limits=Limits(parallel=2))
    assert decide(endless, Tally(complete=7, exhausted=True), 100).state == "FINISHED"
    assert decide(endless, Tally(open=1, exhausted=True), 100).state == "RUNNING"


def test_a_pause_asks_for_nothing_and_ends_nothing() -> None:
    paused = replace(RUNNING, state="PAUSED", paused_at=150.0)
    assert decide(paused, Tally(open=2, complete=1), 200).ask == 0
    assert decide(paused, Tally(complete=10), 200).state == "FINISHED"


def test_the_time_budget_leaves_pauses_out() -> None:
    timed = replace(RUNNING, limits=replace(RUNNING.limits, seconds=60.0), paused_for=30.0)
    before = decide(timed, Tally(open=1), 189)
    assert (before.state, before.within) == ("RUNNING", 1.0)
    after = decide(timed, Tally(open=1), 190)
    assert (after.state, after.ending, after.stop) == ("STOPPING", "FINISHED", True)
    assert after.reason == "its time of 1m is used up"
    assert running_for(replace(timed, paused_at=140.0), 10_000) == 10.0
    ended = replace(timed, state="STOPPING", reason=after.reason, ending=after.ending)
    assert decide(ended, Tally(open=1), 191).stop
    assert decide(ended, Tally(cancelled=1), 191).state == "FINISHED"


def test_the_gpu_budget_counts_what_runs() -> None:
    limited = replace(RUNNING, limits=replace(RUNNING.limits, gpu_seconds=3600.0))
    near = decide(limited, Tally(open=2, gpu_seconds=3000, gpus=2), 100)
    assert near.within == 300.0
    over = decide(limited, Tally(open=2, gpu_seconds=3600, gpus=2), 100)
    assert (over.state, over.reason) == ("STOPPING", "its 1 GPU hours are used up")


def test_what_cannot_work_does_not_go_on() -> None:
    assert decide(RUNNING, Tally(failed=3, silent=3), 100).state == "FAILED"
    assert decide(RUNNING, Tally(failed=3, silent=3, complete=1), 100).state == "RUNNING"
    many = replace(RUNNING, limits=Limits(parallel=4, trials=100))
    assert decide(many, Tally(failed=10, open=2), 100).ending == "FAILED"
    assert decide(many, Tally(failed=30, complete=1), 100).state == "RUNNING"


END = JobEnd("SUCCEEDED", "", lost=False, values={"acc": 0.5, "size": 3.0}, logged=["acc", "size"])


@pytest.mark.parametrize(
    ("changes", "wish", "losses", "expected"),
    [
        ({}, "", 0, ("COMPLETE", "", (0.5, 3.0))),
        ({"values": {"acc": None, "size": 1.0}}, "", 0,
         ("FAILED", "its 'acc' is not a number (NaN)", None)),
        ({"values": {"acc": 0.5}}, "", 0,
         ("FAILED", "never logged 'size'; it logged acc, size", None)),
        ({"values": {}, "logged": []}, "", 0, ("FAILED", "never logged 'acc'; it logged nothing", None)),
        ({"state": "FAILED", "reason": "rank 0 exited with 1"}, "", 0,
         ("FAILED", "rank 0 exited with 1", None)),
        ({"state": "FAILED", "reason": "node n1 was lost", "lost": True}, "", 2,
         ("OPEN", "runs again: node n1 was lost", None)),
        ({"state": "FAILED", "reason": "node n1 was lost", "lost": True}, "", 3,
         ("FAILED", "lost 4 times, last: node n1 was lost", None)),
        ({"state": "CANCELLED", "reason": "cancelled by ada"}, "", 0,
         ("CANCELLED", "cancelled by ada", None)),
        ({"state": "CANCELLED"}, "prune", 0, ("PRUNED", "pruned", None)),
        ({"state": "SUCCEEDED"}, "prune", 0, ("PRUNED", "pruned", None)),  # it heeded should_stop()
        ({"state": "FAILED", "lost": True}, "prune", 0, ("PRUNED", "pruned", None)),
        ({"state": "CANCELLED"}, "stop", 0, ("CANCELLED", "stopped with the sweep", None)),
    ],
)  # fmt: skip
def test_what_became_of_a_trial(
    changes: dict[str, Any], wish: Any, losses: int, expected: tuple[Any, ...]
) -> None:
    found = verdict(["acc", "size"], wish, losses, 3, replace(END, **changes))
    assert (found.state, found.reason, found.values) == expected


def test_silent_is_told_from_failed() -> None:
    assert verdict(["loss"], "", 0, 3, END).silent
    assert not verdict(["loss"], "", 0, 3, replace(END, state="FAILED")).silent


def test_the_front_of_several_objectives() -> None:
    points = [(0.9, 10.0), (0.8, 5.0), (0.7, 7.0), (0.8, 5.0), (0.95, 20.0)]
    assert pareto(points, [True, False]) == [0, 1, 3, 4]


@given(
    trials=st.integers(1, 30),
    parallel=st.integers(1, 6),
    fate=st.lists(st.sampled_from(["complete", "pruned", "failed", "lost", "pause"]), max_size=200),
)
def test_any_course_keeps_the_limits_and_ends(trials: int, parallel: int, fate: list[str]) -> None:
    sweep, tally = Sweep("RUNNING", Limits(parallel, trials), 0.0), Tally(complete=1)
    for step, what in enumerate([*fate, *["complete"] * (trials + 1)]):
        decision = decide(sweep, tally, float(step))
        sweep = replace(sweep, state=decision.state)
        if sweep.state in ENDED:
            break
        tally = replace(tally, open=tally.open + decision.ask)
        assert tally.open <= parallel
        assert tally.total <= max(trials, 1)
        if what == "pause":
            sweep = replace(sweep, state="PAUSED" if sweep.state == "RUNNING" else "RUNNING")
        elif what != "lost" and tally.open:
            done = getattr(tally, what) + 1
            tally = replace(tally, **{"open": tally.open - 1, what: done})
        if what != "pause" and sweep.state == "PAUSED":
            sweep = replace(sweep, state="RUNNING")
    assert sweep.state == "FINISHED"
    assert tally.open == 0
    assert tally.total == max(trials, 1)
