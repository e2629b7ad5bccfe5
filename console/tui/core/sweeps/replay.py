"""A sweep as it was at a moment: what is over happens again. Pure.

The registry keeps when each trial was asked for, began and ended, and which steps it logged, but not
when each step was logged: between its begin and its end a trial's steps are taken to be even.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from console.tui.core.draw.format import moment
from console.tui.core.sweeps import words
from console.tui.core.sweeps.plots import Curve
from jobs.wire.sweepviews import SweepView, TrialView

LENGTH = 20.0
"""Seconds in which a whole sweep is shown."""

STEPS = 40
"""`[` and `]` go by this part of the whole."""


def extent(sweep: SweepView, trials: Sequence[TrialView], now: float) -> tuple[float, float]:
    """When it began and when it ended, or now. A sweep that was extended long after its end has a gap
    in it, which is shown as well."""
    begin = moment(sweep["submitted_at"]) or now
    # All times are written in one way, so that the latest is also the greatest text.
    last = max((trial["ended_at"] or "" for trial in trials), default="")
    end = moment(sweep["ended_at"]) or (now if any(_open(t) for t in trials) else 0.0)
    return begin, max(begin + 1.0, end, moment(last) or 0.0)


def _open(trial: TrialView) -> bool:
    return trial["state"] in words.OPEN


def trials_at(
    trials: Sequence[TrialView], curves: Mapping[int, Curve], at: float
) -> list[TrialView]:
    """The trials as they were: those that were not asked for yet are not there, those that were not
    over were running or waiting."""
    return [_at(t, curves.get(t["number"], ()), at) for t in trials if _asked(t) <= at]


def _asked(trial: TrialView) -> float:
    return moment(trial["asked_at"]) or 0.0


def _at(trial: TrialView, curve: Curve, at: float) -> TrialView:
    ended, began = moment(trial["ended_at"]), moment(trial["started_at"])
    if ended is not None and ended <= at:
        return trial
    waits = began is None or began > at
    known = [] if waits else curve_at(trial, curve, at)
    return {
        **trial,
        "state": "QUEUED" if waits else "RUNNING",
        "values": None,
        "reason": "",
        "feasible": None,
        "last": known[-1][1] if known else None,
        "step": known[-1][0] if known else None,
        "started_at": None if waits else trial["started_at"],
        "ended_at": None,
        "gpus": [] if waits else trial["gpus"],
        "nodes": [] if waits else trial["nodes"],
    }


def curve_at(trial: TrialView, curve: Curve, at: float) -> Curve:
    """What of a curve had been logged."""
    began, ended = moment(trial["started_at"]), moment(trial["ended_at"])
    if began is None or not curve:
        return ()
    if ended is None or ended <= at:
        return curve
    share = max(0.0, at - began) / max(0.001, ended - began)
    reach = curve[-1][0] * share
    return [point for point in curve if point[0] <= reach]


def sweep_at(sweep: SweepView, trials: Sequence[TrialView], at: float) -> SweepView:
    """The sweep with its trials as they were."""
    ended = moment(sweep["ended_at"])
    count = dict.fromkeys(("complete", "pruned", "failed", "cancelled", "open"), 0)
    for trial in trials:
        count["open" if _open(trial) else trial["state"].lower()] += 1
    over = ended is not None and ended <= at
    return {
        **sweep,
        "state": sweep["state"] if over else "RUNNING",
        "reason": sweep["reason"] if over else "",
        "ended_at": sweep["ended_at"] if over else None,
        "counts": {**count, "total": len(trials)},  # type: ignore[typeddict-item]
        "gpu_hours": 0.0 if not over else sweep["gpu_hours"],
    }
