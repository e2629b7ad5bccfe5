"""What one pass over a sweep has found and done, and how it is written down: in one transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sqlmodel import Session

from agents.controller.sweeps.studies import Asked
from jobs.spec.job import JobSpec
from jobs.store import sweepwriting
from jobs.store.entering import Entered, Entry, enter_jobs
from jobs.store.sweepfacts import Facts, OpenTrial
from jobs.store.sweeptables import SweepRow, SweepTrialRow
from jobs.store.writing import Caller
from jobs.sweeps.decisions import ENDED, Decision, JobEnd, Verdict, verdict
from jobs.sweeps.populations import Next
from jobs.sweeps.spec import SweepSpec


@dataclass(slots=True)
class Changes:
    """What one pass has found and done.

    Args:
        asked: new points.
        turns: what a population should ask for.
        prune: numbers of trials.
        again: another pass should follow at once.
    """

    decision: Decision
    verdicts: list[tuple[OpenTrial, Verdict]]
    asked: list[Asked]
    turns: tuple[Next, ...] = ()
    prune: set[int] = field(default_factory=set)
    again: bool = False

    @property
    def wanted(self) -> tuple[str, str, str | None]:
        """The sweep's state, its reason, and what STOPPING leads to."""
        return self.decision.state, self.decision.reason, self.decision.ending

    def move(self, row: SweepRow) -> bool:
        """Whether the sweep's own row changes."""
        return self.wanted != (row.state, row.reason, row.ending)


@dataclass(frozen=True, slots=True)
class Made:
    """A job that was made for a trial."""

    trial: int
    spec: JobSpec
    entered: Entered


def judge(spec: SweepSpec, trial: OpenTrial, end: JobEnd) -> Verdict:
    """What became of a trial whose job has ended, and by how much it exceeds the constraints."""
    judged = verdict(
        spec.metrics,
        trial.row.wish,  # type: ignore[arg-type]  # only wishes are stored
        trial.row.losses,
        spec.retries,
        end,
        also=spec.needed[len(spec.metrics) :],
        leaves_checkpoint=trial.row.generation is not None,
    )
    if judged.state not in ("COMPLETE", "PRUNED"):
        return judged
    return replace(judged, constraints=spec.excesses(trial.row.params, end.values))


def record(
    session: Session,
    number: int,
    spec: SweepSpec,
    found: Facts,
    changes: Changes,
    now: float,
) -> list[Made]:
    """Write down a pass. Gives the new jobs.

    Args:
        number: the sweep's.
        found: what the pass had read. `changes.prune` loses trials that were pinned since.
    """
    row = sweepwriting.get(session, number)
    trials = _ends(session, changes, now)
    reruns = sweepwriting.reruns(row)
    trials += [
        SweepTrialRow(
            sweep_id=number,
            number=asked.number,
            params=asked.params,
            state="OPEN",
            job_id=0,
            asked_at=now,
            **_origin(asked, reruns),
        )
        for asked in changes.asked
    ]
    made = _jobs(session, row, spec, trials, now)
    _wishes(session, found, changes)
    # A person may have stopped or paused it since it was read: that stays, until the next pass.
    if changes.move(found.row) and (row.state, row.paused_at) == (
        found.row.state,
        found.row.paused_at,
    ):
        row.state, row.reason, row.ending = changes.wanted
        if row.state in ENDED:
            row.ended_at = now
            sweepwriting.note(session, row, f"sweep.{row.state.lower()}", row.reason, now)
        session.add(row)
    return made


def _ends(session: Session, changes: Changes, now: float) -> list[SweepTrialRow]:
    """Write down how trials ended; gives those that run again."""
    again = []
    for item, judged in changes.verdicts:
        trial = sweepwriting.trial_of(session, item.row.sweep_id, item.row.number)
        trial.gpu_seconds += sweepwriting.gpu_seconds(item.job, now)
        trial.started_at = trial.started_at or item.job.started_at
        trial.reason = judged.reason
        session.add(trial)
        if judged.state == "OPEN":
            trial.losses += 1
            again.append(trial)
            continue
        trial.state, trial.ended_at = judged.state, item.job.ended_at or now
        trial.silent, trial.feasible = judged.silent, judged.feasible
        trial.constraints = None if judged.constraints is None else dict(judged.constraints)
        trial.checkpoint = item.end.checkpoint if item.end is not None else None
        if judged.values is not None:
            trial.values, trial.value = list(judged.values), judged.values[0]
    return again


def _jobs(
    session: Session, row: SweepRow, spec: SweepSpec, trials: Sequence[SweepTrialRow], now: float
) -> list[Made]:
    """The (new) jobs of trials."""
    specs = [_job_spec(session, spec, trial) for trial in trials]
    who = Caller(row.user, row.uid)
    entries = [
        Entry(sweepwriting.submission_of(row, asked, trial.number, trial.losses), who, now)
        for trial, asked in zip(trials, specs, strict=True)
    ]
    made = []
    for trial, asked, entered in zip(trials, specs, enter_jobs(session, entries), strict=True):
        trial.job_id = entered.number
        session.add(trial)
        made.append(Made(trial.number, asked, entered))
    return made


def _job_spec(session: Session, spec: SweepSpec, trial: SweepTrialRow) -> JobSpec:
    start = None
    if trial.generation is not None:
        start = sweepwriting.start_of(session, trial)
    return spec.job_of(
        sweepwriting.sweep_name(trial.sweep_id),
        trial.number,
        trial.params,
        generation=trial.generation,
        checkpoint=start,
    )


def _wishes(session: Session, found: Facts, changes: Changes) -> None:
    """Write down which trials are to be stopped, and why."""
    if not changes.decision.stop and not changes.prune:
        return
    for item in found.open:
        trial = sweepwriting.trial_of(session, item.row.sweep_id, item.row.number)
        if trial.state != "OPEN" or trial.wish:
            continue
        if changes.decision.stop:
            trial.wish = "stop"
        elif trial.pinned:  # since it was read
            changes.prune.discard(trial.number)
        elif trial.number in changes.prune:
            trial.wish = "prune"
        session.add(trial)


def _origin(asked: Asked, reruns: Mapping[str, int]) -> dict[str, Any]:
    """Where a trial's point comes from, as its row says it."""
    if asked.turn is not None:
        return {key: value for key, value in asked.turn.items() if key != "again"}
    if asked.point is None:
        return {"origin": "drawn"}
    again = reruns.get(str(asked.point))
    return {"origin": "enqueued"} if again is None else {"origin": "rerun", "parent": again}
