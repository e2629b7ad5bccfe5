"""What to do next about a sweep, and what became of a trial: pure decisions.

    RUNNING ◀──▶ PAUSED            RUNNING, PAUSED ──▶ STOPPING ──▶ FINISHED | FAILED
        └─────────────────────────────▶ FINISHED  (every trial is over)

A trial is open from the moment it was asked for until the sampler has been told how it ended. Losing
its job to the infrastructure does not end it: the same point is run again, and the sampler hears
nothing of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from jobs.base.units import format_duration

SweepState = Literal["RUNNING", "PAUSED", "STOPPING", "FINISHED", "FAILED"]
TrialState = Literal["OPEN", "COMPLETE", "PRUNED", "FAILED", "CANCELLED"]
Wish = Literal["", "prune", "stop"]

ENDED: frozenset[str] = frozenset({"FINISHED", "FAILED"})

SILENT_LIMIT = 3
"""So many trials that succeeded without their objective, and none with it: it has another name, or the
script never logs it. More trials would only cost GPUs."""
FAILURE_LIMIT = 10
"""So many trials that failed, and none that reported anything: the script is broken everywhere."""


@dataclass(frozen=True, slots=True)
class Limits:
    """`seconds` and `gpu_seconds` are budgets; None where there is none."""

    parallel: int
    trials: int | None = None
    seconds: float | None = None
    gpu_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Sweep:
    """A sweep as stored. `ending` is what STOPPING leads to."""

    state: SweepState
    limits: Limits
    started_at: float
    reason: str = ""
    ending: SweepState | None = None
    paused_at: float | None = None
    paused_for: float = 0.0


@dataclass(frozen=True, slots=True)
class Tally:
    """Its trials, counted.

    Args:
        silent: of the failed ones, those that succeeded but never logged an objective.
        gpu_seconds: used by all jobs so far, those that run included.
        gpus: in use now.
        exhausted: the sampler has no further point.
        stuck: why, when that is no good end.
    """

    open: int = 0
    complete: int = 0
    pruned: int = 0
    failed: int = 0
    cancelled: int = 0
    silent: int = 0
    gpu_seconds: float = 0.0
    gpus: float = 0.0
    exhausted: bool = False
    stuck: str = ""

    @property
    def total(self) -> int:
        return self.open + self.complete + self.pruned + self.failed + self.cancelled


@dataclass(frozen=True, slots=True)
class Decision:
    """What is wanted now.

    Args:
        ask: how many new trials to ask for.
        stop: whether every open trial should be stopped.
        within: seconds after which to decide again even if nothing happens; None: no need.
    """

    state: SweepState
    reason: str
    ending: SweepState | None = None
    ask: int = 0
    stop: bool = False
    within: float | None = None


def running_for(sweep: Sweep, now: float) -> float:
    """Seconds since a sweep began, pauses left out."""
    until = sweep.paused_at if sweep.paused_at is not None else now
    return max(until - sweep.started_at - sweep.paused_for, 0.0)


def decide(sweep: Sweep, tally: Tally, now: float) -> Decision:
    """What to do next. `now` is unix time, seconds."""
    if sweep.state in ENDED:
        return Decision(sweep.state, sweep.reason)
    if sweep.state == "STOPPING":
        ending = sweep.ending or "FINISHED"
        if tally.open == 0:
            return Decision(ending, sweep.reason)
        return Decision("STOPPING", sweep.reason, ending, stop=True)
    for ending, reason in _ends(sweep, tally, now):
        if tally.open == 0:
            return Decision(ending, reason)
        return Decision("STOPPING", reason, ending, stop=True)
    limit = sweep.limits.trials
    left = None if limit is None else max(limit - tally.total, 0)
    if left == 0 or tally.exhausted:
        if tally.open == 0 and left != 0 and tally.stuck:
            return Decision("FAILED", tally.stuck)
        if tally.open == 0:
            return Decision("FINISHED", f"all {tally.total} trials are done")
        return Decision(sweep.state, sweep.reason, within=_within(sweep, tally, now))
    if sweep.state == "PAUSED":
        return Decision("PAUSED", sweep.reason, within=_within(sweep, tally, now))
    free = max(sweep.limits.parallel - tally.open, 0)
    ask = free if left is None else min(free, left)
    return Decision("RUNNING", "", ask=ask, within=_within(sweep, tally, now))


def _ends(sweep: Sweep, tally: Tally, now: float) -> Sequence[tuple[SweepState, str]]:
    limits = sweep.limits
    reported = tally.complete + tally.pruned
    if reported == 0 and tally.silent >= SILENT_LIMIT:
        return [("FAILED", f"{tally.silent} trials succeeded, and none has logged the objective")]
    if reported == 0 and tally.failed >= FAILURE_LIMIT:
        return [("FAILED", f"the first {tally.failed} trials have all failed")]
    if limits.seconds is not None and running_for(sweep, now) >= limits.seconds:
        return [("FINISHED", f"its time of {format_duration(limits.seconds)} is used up")]
    if limits.gpu_seconds is not None and tally.gpu_seconds >= limits.gpu_seconds:
        return [("FINISHED", f"its {limits.gpu_seconds / 3600:g} GPU hours are used up")]
    return []


def _within(sweep: Sweep, tally: Tally, now: float) -> float | None:
    moments = []
    if sweep.limits.seconds is not None and sweep.paused_at is None:
        moments.append(sweep.limits.seconds - running_for(sweep, now))
    if sweep.limits.gpu_seconds is not None and tally.gpus > 0:
        moments.append((sweep.limits.gpu_seconds - tally.gpu_seconds) / tally.gpus)
    return min(moments, default=None)


@dataclass(frozen=True, slots=True)
class JobEnd:
    """How a trial's job ended.

    Args:
        state: SUCCEEDED, FAILED or CANCELLED.
        lost: it failed for no reason of the script's: nodes were lost too often, or taken away.
        values: what rank 0 logged of each metric that is needed; None for NaN. A name that is not
            there was never logged.
        logged: the names of all metrics of rank 0.
        checkpoint: digest of the checkpoint that it left to keep, if it did.
    """

    state: str
    reason: str
    lost: bool
    values: Mapping[str, float | None]
    logged: Sequence[str] = ()
    checkpoint: str | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a trial; `state` OPEN: it is run again.

    Args:
        silent: it succeeded, but never logged an objective.
        constraints: by how much it exceeds each of the sweep's, 0 or less where it does not.
    """

    state: TrialState
    reason: str = ""
    values: tuple[float, ...] | None = None
    silent: bool = False
    constraints: Mapping[str, float] | None = None

    @property
    def feasible(self) -> bool | None:
        """Whether it meets all constraints; None where that is not known."""
        if self.constraints is None:
            return None
        return all(excess <= 0 for excess in self.constraints.values())


def verdict(
    metrics: Sequence[str],
    wish: Wish,
    losses: int,
    retries: int,
    end: JobEnd,
    *,
    also: Sequence[str] = (),
    leaves_checkpoint: bool = False,
) -> Verdict:
    """Judge a trial by the end of its job.

    Args:
        metrics: the objectives' names, in order.
        also: other metrics that it has to log.
        leaves_checkpoint: others begin with what it leaves.
        wish: whether the job was stopped on purpose. A script that heeds `should_stop()` succeeds
            then, without having done its work.
        losses: how many of the trial's jobs were lost before this one.
        retries: how often a lost one is run again.
    """
    if wish == "prune":
        return Verdict("PRUNED", "pruned")
    if wish == "stop":
        return Verdict("CANCELLED", "stopped with the sweep")
    if end.state == "CANCELLED":
        return Verdict("CANCELLED", end.reason)
    if end.state == "FAILED" and end.lost:
        if losses < retries:
            return Verdict("OPEN", f"runs again: {end.reason}")
        return Verdict("FAILED", f"lost {losses + 1} times, last: {end.reason}")
    if end.state == "FAILED":
        return Verdict("FAILED", end.reason)
    missing = [name for name in (*metrics, *also) if name not in end.values]
    if missing:
        found = f"it logged {', '.join(end.logged[:8])}" if end.logged else "it logged nothing"
        return Verdict("FAILED", f"never logged '{missing[0]}'; {found}", silent=True)
    for name in (*metrics, *also):
        if end.values[name] is None:
            return Verdict("FAILED", f"its '{name}' is not a number (NaN)")
    if leaves_checkpoint and end.checkpoint is None:
        return Verdict("FAILED", "left no checkpoint in quarterdeck.checkpoint_dir")
    values = [end.values[name] for name in metrics]
    return Verdict("COMPLETE", "", tuple(value for value in values if value is not None))


def tallied(tally: Tally, verdicts: Sequence[Verdict]) -> Tally:
    """A tally as it will be once these verdicts are recorded."""
    for judged in verdicts:
        if judged.state == "OPEN":
            continue
        name = judged.state.lower()
        tally = replace(
            tally,
            open=tally.open - 1,
            silent=tally.silent + judged.silent,
            **{name: getattr(tally, name) + 1},
        )
    return tally


def pareto(points: Sequence[Sequence[float]], maximize: Sequence[bool]) -> list[int]:
    """The indices of the points that no other point beats in every objective (equal ones all stay)."""
    signed = [
        tuple(-value if up else value for value, up in zip(point, maximize, strict=True))
        for point in points
    ]

    def beaten(one: int) -> bool:
        mine = signed[one]
        return any(
            other != mine and all(a <= b for a, b in zip(other, mine, strict=True))
            for other in signed
        )

    return [number for number in range(len(points)) if not beaten(number)]
