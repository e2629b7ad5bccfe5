"""The account that must hold once all is quiet: a list of what does not, in words. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from tests.chaos.soak.load import GRACE, KINDS
from tests.chaos.soak.truth import Ask, Fault, Life, Restore, Run

RECOVERY = dict.fromkeys(("raylet", "gcs_server", "ray", "supervisor", "tmp", "all"), 45.0)
"""Seconds after a fault of a part until the rest of the cluster need not show it any more."""
_RECOVERY = 20.0
HURTS = ("kill", "damage")
"""What is done to a rank, after which its attempt may end badly."""
AGENTS = ("agent", "fork server", "raylet", "ray", "gcs_server", "tmp", "all")
"""What takes the agent, or what starts guards for it, along."""
LEASE = 90.0
"""Seconds: the lease that jobs have by default."""
LAUNCH = 1.0
"""Seconds around the start of its ranks in which an agent that dies may take an attempt along. One whose
ranks never started may have waited for its agent for long."""
SLACK = 3.0
"""Seconds for a stop to go from the controller to the ranks on a machine that is busy."""


@dataclass(frozen=True)
class Job:
    """What is known of a job at the end: by its ranks, and by the control plane."""

    ask: Ask | None  # None for the job of a trial
    view: Mapping[str, Any]
    lives: Sequence[Life]
    logs: Mapping[tuple[int, int], Sequence[str]]  # (attempt, rank) -> lines
    steps: Mapping[tuple[int, int], Sequence[int]]  # (attempt, rank) -> steps of `n`
    started: Mapping[int, float] = field(default_factory=dict)  # attempt -> when it was launched
    restores: Sequence[Restore] = ()

    @property
    def id(self) -> str:
        name: str = self.view["id"]
        return name

    @property
    def kind(self) -> str:
        return self.ask.kind if self.ask else "trial"

    def forgotten(self, life: Life) -> bool:
        """Whether a life is of an attempt that was launched after a backup which was put back, and that the
        registry has not, or has as one that never began."""
        began = any(restore.forgot(life.began) for restore in self.restores)
        return began and life.attempt not in self.started

    def cut(self, life: Life) -> bool:
        """Whether a life was over before a backup was put back that does not know of its end: of what it
        wrote, as much is known as the backup has."""
        return any(
            life.last <= restore.up and life.run not in restore.ended for restore in self.restores
        )


def submits(
    asks: Iterable[Ask], jobs: Iterable[Mapping[str, Any]], restores: Sequence[Restore] = ()
) -> Iterator[str]:
    """Each submit that was acknowledged is one job, however often it was sent. What was acknowledged after
    the backup that was put back may be gone, and if no node heard of it, its number is given again."""
    listed = [job["id"] for job in jobs if not job["tags"]]
    answered = [ask for ask in asks if ask.job]
    known = [ask for ask in answered if not any(r.forgot(ask.answered) for r in restores)]
    for job, number in Counter(ask.job for ask in known).items():
        if number > 1:
            yield f"{job} is the answer to {number} submits"
        if job not in listed:
            yield f"{job} was acknowledged and is not there"
    for job in listed:
        if all(ask.job != job for ask in answered):
            yield f"{job} is there twice: nobody was told of it, and its key has another job"


def forgotten(job: str, lives: Iterable[Life], restores: Sequence[Restore]) -> Iterator[str]:
    """A job that ran and is in no registry was submitted after a backup that was put back."""
    for life in lives:
        if not any(restore.forgot(life.began) for restore in restores):
            yield f"{job} ran as {_name(life)}, and the registry does not know it"
    yield from one_at_a_time(list(lives))


def one_at_a_time(lives: Sequence[Life]) -> Iterator[str]:
    """No job ran twice at one time, no rank of an attempt was started twice."""
    for life in lives:
        for what in life.doubles:
            yield f"{_name(life)} began while {what} was alive"
    for (run, rank), number in Counter((life.run, life.rank) for life in lives).items():
        if number > 1:
            yield f"{run[0]}.{run[1]}/r{rank} was started {number} times"
    for earlier in lives:
        for later in lives:
            if later.attempt > earlier.attempt and later.began < earlier.last:
                gap = earlier.last - later.began
                yield f"{_name(later)} began {gap:.3f} s before {_name(earlier)} was last alive"


def told_once(job: Job, faults: Sequence[Fault] = ()) -> Iterator[str]:
    """Every line and point that a rank wrote is there once and in order.

    A rank that was killed may have written one more of each than it noted. Of one that damaged the records
    of its own attempt, as much is known as came before.
    """
    damaged = {fault.run for fault in faults if fault.what == "damage"}
    for life in job.lives:
        yield from (f"{_name(life)} found {name} torn" for name in life.torn)
        if job.forgotten(life):
            continue
        place = (life.attempt, life.rank)
        lines, steps = job.logs.get(place, ()), job.steps.get(place, ())
        ticks = [int(line.split()[1]) for line in lines if line.startswith("tick")]
        wanted = list(range(life.resumed + 1, life.lines + 1))
        if job.cut(life) or life.run in damaged:
            wanted.append(life.lines + 1)
            if ticks != wanted[: len(ticks)] or list(steps) != wanted[: len(steps)]:
                yield f"of {_name(life)} there are lines {_span(ticks)} and points {_span(steps)}"
            continue
        if ticks not in (wanted, [*wanted, life.lines + 1]) or (life.exit == 0 and ticks != wanted):
            yield f"{_name(life)} wrote {_span(wanted)}, and its log has {_span(ticks)}"
        if life.exit == 0 and list(lines[-1:]) != [f"end {life.lines}"]:
            yield f"the log of {_name(life)} ends with {list(lines[-1:])}"
        wanted = list(range(life.resumed + 1, life.points + 1))
        if list(steps) not in (wanted, [*wanted, life.points + 1]):
            yield f"{_name(life)} logged {_span(wanted)}, and its metrics have {_span(steps)}"


def ended_well(job: Job, faults: Sequence[Fault]) -> Iterator[str]:
    """A job ended as its script did, unless somebody cancelled it or killed a part of it: what is done
    to the control plane is nothing to it."""
    view, attempts = job.view, job.view["attempts"]
    hit = {fault.run: fault for fault in faults if fault.run and fault.what in HURTS}
    for attempt in attempts:
        run: Run = (job.id, attempt["number"])
        state = attempt["state"]
        scripted = job.kind == "failing" and state == "FAILED"
        if state in ("SUCCEEDED", "CANCELLED") or run in hit or scripted:
            continue
        if state == "LOST" and _excused(job, run, faults):
            continue
        yield f"{job.id}.{run[1]} is {state} though nobody hurt it: {attempt['reason']}"
    codes = {life.exit for life in job.lives if attempts and life.attempt == attempts[-1]["number"]}
    if view["state"] == "SUCCEEDED" and codes != {0}:
        yield f"{job.id} SUCCEEDED, and its last ranks ended with {codes}"
    if view["state"] == "CANCELLED" and (job.ask is None or not job.ask.cancelled):
        yield f"{job.id} is CANCELLED, and nobody asked for it"
    restarts = int(KINDS.get(job.kind, {}).get("max_restarts", 0))
    failed = sum(attempt["state"] == "FAILED" for attempt in attempts)
    if view["state"] == "FAILED" and failed != restarts + 1:
        yield f"{job.id} FAILED after {failed} failures of {restarts + 1}: {view['reason']}"
    if view["state"] not in ("SUCCEEDED", "FAILED", "CANCELLED"):
        yield f"{job.id} ({job.kind}) has not ended: {view['state']}, {view['reason']}"


def _excused(job: Job, run: Run, faults: Sequence[Fault]) -> bool:
    """Whether an attempt may have been lost: it was given up before it was launched, its agent died
    while it was, or its lease was short and contact away for longer."""
    those = [life for life in job.lives if life.run == run]
    if any(job.cut(life) for life in those):
        return True  # it ended, and the registry has forgotten how
    last = max((life.last for life in those), default=0.0)
    if those and calm(faults, last - LEASE, last) == 0.0:
        return True  # for a whole lease, nobody could be expected to renew it
    if not those and run[1] not in job.started:
        return True
    started = min((life.began for life in those), default=job.started.get(run[1], 0.0))
    ended = max((life.last for life in those), default=started)
    for fault in faults:
        over = fault.until + RECOVERY.get(fault.part, _RECOVERY)
        launched = started + (LAUNCH if those else max(RECOVERY.values()))
        if fault.part in AGENTS and fault.began < launched and started - LAUNCH < fault.until:
            return True
        away = (
            fault.part not in ("rank", "database", "disk", "request") and fault.began < ended < over
        )
        if job.kind == "leased" and away:
            return True
    return False


def obeyed(job: Job, faults: Sequence[Fault]) -> Iterator[str]:
    """What was cancelled ran no more after its grace, counted in seconds in which nothing was wrong."""
    if job.ask is None or not job.ask.cancelled:
        return
    if any(restore.forgot(job.ask.cancelled) for restore in job.restores):
        return
    for life in job.lives:
        ran = calm(faults, job.ask.cancelled, life.last)
        if ran > GRACE + SLACK:
            yield f"{_name(life)} ran for {ran:.1f} s after its cancel was acknowledged"


def calm(faults: Iterable[Fault], begin: float, end: float) -> float:
    """Seconds between two moments in which no fault lasted nor was recovered from."""
    total = 0.0
    for fault in sorted(faults, key=lambda fault: fault.began):
        if fault.part not in ("rank", "request"):  # a request is no excuse for anything
            total += max(0.0, min(fault.began, end) - begin)
            begin = max(begin, fault.until + RECOVERY.get(fault.part, _RECOVERY))
    return total + max(0.0, end - begin)


def trials(
    views: Sequence[Mapping[str, Any]],
    study: Sequence[Mapping[str, Any]],
    jobs: Mapping[str, Job],
    wanted: int,
    faults: Sequence[Fault],
) -> Iterator[str]:
    """Every trial was asked once, run by one job at a time and told once, with what its rank logged."""
    if len(views) != wanted:
        yield f"the sweep has {len(views)} trials, not {wanted}"
    if [view["number"] for view in views] != [trial["number"] for trial in study]:
        yield "the sweep and Optuna do not have the same trials"
    xs = Counter(view["params"]["x"] for view in views)
    for x, number in xs.items():
        if number > 1:
            yield f"the point {x} was given to {number} trials"
    killed = {fault.run[0] for fault in faults if fault.run and fault.what in HURTS}
    states = {"COMPLETE": "COMPLETE", "FAILED": "FAIL", "CANCELLED": "FAIL", "PRUNED": "PRUNED"}
    for view, trial in zip(views, study, strict=False):
        name = f"trial {view['number']} ({view['job']})"
        if states.get(view["state"]) != trial["state"] or view["params"] != trial["params"]:
            yield f"{name} is {view['state']}, and for Optuna {trial['state']}"
        if any(jobs[view["job"]].cut(life) for life in jobs[view["job"]].lives):
            continue  # it may have gone on from its last checkpoint, with nothing more to tell
        if view["state"] == "COMPLETE":
            told = [life.loss for life in jobs[view["job"]].lives]
            logged = [loss for loss in told if loss is not None][-1:]  # in whichever attempt
            if not view["values"] == trial["values"] == logged:
                yield f"{name} logged {logged}, has {view['values']}, in Optuna {trial['values']}"
        elif not (view["state"] == "FAILED" and view["job"] in killed):
            yield f"{name} is {view['state']} though nobody hurt it: {view['reason']}"


def _name(life: Life) -> str:
    return f"{life.job}.{life.attempt}/r{life.rank}"


def _span(numbers: Sequence[int]) -> str:
    """Few words for many numbers, with the first that is out of order."""
    if not numbers:
        return "nothing"
    for before, after in pairwise(numbers):
        if after != before + 1:
            return f"{numbers[0]} to {before}, then {after} ... {numbers[-1]} ({len(numbers)})"
    return f"{numbers[0]} to {numbers[-1]}"
