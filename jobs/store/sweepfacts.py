"""What the next decision about a sweep rests on, read in four queries however often a pass looks.

A pass over a sweep waits between one trial's end and the next one's start, so its statements are made
once, and of a job only what counts is loaded: its spec alone would take longer than the rest.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import bindparam, case, func
from sqlalchemy.orm import load_only
from sqlmodel import Session, col, select

from jobs.base.names import CHECKPOINT
from jobs.base.states import TERMINAL
from jobs.store import metricpoints
from jobs.store.sweeptables import SweepRow, SweepTrialRow
from jobs.store.sweepwriting import get, gpu_seconds
from jobs.store.tables import ArtifactRow, AttemptRow, JobRow, MetricLatestRow
from jobs.sweeps.decisions import JobEnd, Tally
from jobs.sweeps.spec import SweepSpec


@dataclass(frozen=True, slots=True)
class OpenTrial:
    """A trial that is not over, with its job, of which only some columns are there (`_OPEN`). `end` once
    the job has ended."""

    row: SweepTrialRow
    job: JobRow
    end: JobEnd | None


@dataclass(frozen=True, slots=True)
class Facts:
    row: SweepRow
    open: list[OpenTrial]
    tally: Tally


_OPEN = (
    select(SweepTrialRow, JobRow)
    .join(JobRow, col(SweepTrialRow.job_id) == col(JobRow.id))
    .where(col(SweepTrialRow.sweep_id) == bindparam("sweep"), SweepTrialRow.state == "OPEN")
    .order_by(col(SweepTrialRow.number))
    .options(
        load_only(
            *(
                getattr(JobRow, name)
                for name in ("id", "state", "reason", "intent", "gpus", "started_at", "ended_at")
            ),
            raiseload=True,
        )
    )
)
_TALLY = (
    select(
        SweepTrialRow.state,
        func.count(),
        func.sum(SweepTrialRow.gpu_seconds),
        func.sum(case((col(SweepTrialRow.silent).is_(True), 1), else_=0)),
    )
    .where(col(SweepTrialRow.sweep_id) == bindparam("sweep"))
    .group_by(SweepTrialRow.state)
)
_ENDED = (
    select(AttemptRow.state, MetricLatestRow.name, MetricLatestRow.value)
    .outerjoin(
        MetricLatestRow,
        (col(MetricLatestRow.attempt_id) == col(AttemptRow.id)) & (col(MetricLatestRow.rank) == 0),
    )
    .where(col(AttemptRow.job_id) == bindparam("job"))
    .order_by(col(AttemptRow.number))
)


def facts(session: Session, number: int, spec: SweepSpec, now: float) -> Facts:
    """Everything that the next decision about a sweep rests on. Raises NotFound."""
    row = get(session, number)
    rows = session.execute(_OPEN, {"sweep": number}).all()
    trials = [
        OpenTrial(trial, job, job_end(session, job, spec) if job.state in TERMINAL else None)
        for trial, job in rows
    ]
    running = [item.job for item in trials if item.job.started_at and item.end is None]
    counts, silent, used = tally(session, number)
    return Facts(
        row,
        trials,
        Tally(
            open=len(trials),
            complete=counts.get("COMPLETE", 0),
            pruned=counts.get("PRUNED", 0),
            failed=counts.get("FAILED", 0),
            cancelled=counts.get("CANCELLED", 0),
            silent=silent,
            gpu_seconds=used + sum(gpu_seconds(job, now) for job in running),
            gpus=sum(job.gpus for job in running),
        ),
    )


def tally(session: Session, number: int) -> tuple[dict[str, int], int, float]:
    """How many trials are in each state, how many were silent, and GPU seconds of jobs that are over."""
    rows = session.execute(_TALLY, {"sweep": number}).all()
    silent = sum(silent for state, _, _, silent in rows if state == "FAILED")
    counts = {state: count for state, count, _, _ in rows}
    return counts, silent, float(sum(used or 0.0 for _, _, used, _ in rows))


def gpu_seconds_of_open(session: Session, number: int, now: float) -> float:
    """GPU seconds so far of the jobs of open trials."""
    rows = session.execute(_OPEN, {"sweep": number}).all()
    return sum(gpu_seconds(job, now) for _, job in rows)


def job_end(session: Session, job: JobRow, spec: SweepSpec) -> JobEnd:
    """How a job ended, with the values of the sweep's objectives on rank 0."""
    last, newest = "", {}
    for state, name, value in session.execute(_ENDED, {"job": job.id}):
        last = state
        if name is not None:
            newest[name] = value  # of the newest attempt that has logged it
    values = {name: newest[name] for name in spec.needed if name in newest}
    for objective in spec.objective:
        if objective.take == "best" and objective.metric in values:
            values[objective.metric] = _best(session, job, objective.metric, objective.goal)
    lost = last in ("LOST", "PREEMPTED")
    kept = _checkpoint(session, job) if spec.sampler.name == "pbt" else None
    return JobEnd(job.state, job.reason, lost, values, sorted(newest), kept)


def _checkpoint(session: Session, job: JobRow) -> str | None:
    return session.exec(
        select(ArtifactRow.digest)
        .where(ArtifactRow.job_id == job.id, ArtifactRow.name == CHECKPOINT)
        .order_by(col(ArtifactRow.attempt_id).desc())
        .limit(1)
    ).first()


def _best(session: Session, job: JobRow, metric: str, goal: str) -> float | None:
    _, points = metricpoints.of_rank_0(session, job.id or 0, metric)
    values = [value for _, value in points if value is not None]
    return (max if goal == "maximize" else min)(values, default=None)
