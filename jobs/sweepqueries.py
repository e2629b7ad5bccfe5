"""Reading sweeps: rows become the views of `jobs/sweepviews.py`."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import sqlalchemy
from sqlalchemy.orm import Bundle
from sqlmodel import Session, col, select

from jobs import sweepstore
from jobs.sweeps import pareto
from jobs.sweeptables import SweepRow, SweepTrialRow
from jobs.sweepviews import BestTrial, SweepDetail, SweepView, TrialStateName, TrialView
from jobs.tables import AttemptRow, JobRow, RankRow
from jobs.times import maybe_rfc3339, rfc3339

_FRONT = 1000
"""Complete trials among which a front is looked for, the newest: it takes the square of their number."""
_TRIAL: Bundle[Any] = Bundle("trial", *SweepTrialRow.__table__.columns)  # type: ignore[attr-defined]
_JOB: Bundle[Any] = Bundle(
    "job",
    *(
        JobRow.__table__.columns[name]  # type: ignore[attr-defined]
        for name in ("id", "state", "gpus", "objective", "placed_on", "started_at", "ended_at")
    ),
)
"""What a view of a trial takes, without the rest of its job: of ten thousand the specs take a second."""


def sweep_views(session: Session, now: float, limit: int = 200) -> list[SweepView]:
    """Sweeps, newest first."""
    rows = session.exec(select(SweepRow).order_by(col(SweepRow.id).desc()).limit(limit)).all()
    return [sweep_view(session, row, now) for row in rows]


def sweep_view(session: Session, row: SweepRow, now: float) -> SweepView:
    assert row.id is not None
    spec = row.spec
    counts, _, used = sweepstore.tally(session, row.id)
    running = session.exec(
        select(JobRow)
        .join(SweepTrialRow, col(SweepTrialRow.job_id) == col(JobRow.id))
        .where(SweepTrialRow.sweep_id == row.id, SweepTrialRow.state == "OPEN")
    ).all()
    used += sum(sweepstore.gpu_seconds(job, now) for job in running)
    return {
        "id": sweepstore.sweep_name(row.id),
        "name": row.name,
        "user": row.user,
        "state": row.state,  # type: ignore[typeddict-item]  # only SweepState values are stored
        "reason": row.reason,
        "objectives": [
            {"metric": item["metric"], "goal": item["goal"]} for item in spec["objective"]
        ],
        "sampler": next(iter(spec["sampler"])),
        "pruner": next(iter(spec["pruner"])),
        "trials": spec["limit"],
        "parallel": spec["parallel"],
        "counts": {
            "open": counts.get("OPEN", 0),
            "complete": counts.get("COMPLETE", 0),
            "pruned": counts.get("PRUNED", 0),
            "failed": counts.get("FAILED", 0),
            "cancelled": counts.get("CANCELLED", 0),
            "total": sum(counts.values()),
        },
        "best": _best(session, row),
        "time_budget": spec["budget"]["time"],
        "gpu_hours_budget": spec["budget"]["gpu_hours"],
        "gpu_hours": round(used / 3600, 6),
        "submitted_at": rfc3339(row.submitted_at),
        "ended_at": maybe_rfc3339(row.ended_at),
    }


def sweep_detail(session: Session, number: int, now: float) -> SweepDetail:
    """Raises NotFound."""
    row = sweepstore.get(session, number)
    view = sweep_view(session, row, now)
    return {
        **view,
        "spec": sweepstore.plain(row),
        "snapshot": row.snapshot,
        "study": sweepstore.study_name(number, row.name),
        "front": _front(session, row),
    }


def trial_views(
    session: Session, sweep: int, now: float, only: Collection[int] | None = None
) -> list[TrialView]:
    """Trials in order of their numbers, or `only` those."""
    query = (
        sqlalchemy.select(_TRIAL, _JOB)
        .join(JobRow, col(SweepTrialRow.job_id) == col(JobRow.id))
        .where(col(SweepTrialRow.sweep_id) == sweep)
        .order_by(col(SweepTrialRow.number))
    )
    if only is not None:
        query = query.where(col(SweepTrialRow.number).in_(sorted(only)))
    gpus = _gpus(session, sweep, only)
    return [
        _trial_view(trial, job, gpus.get(trial.number, []), now)
        for trial, job in session.execute(query)
    ]


def _gpus(session: Session, sweep: int, only: Collection[int] | None) -> dict[int, list[str]]:
    """Trial -> the GPUs of its ranks, each once, in the newest attempt of its job."""
    query = (
        select(SweepTrialRow.number, RankRow.gpus)
        .join(AttemptRow, col(SweepTrialRow.job_id) == col(AttemptRow.job_id))
        .join(JobRow, col(JobRow.id) == col(AttemptRow.job_id))
        .join(RankRow, col(RankRow.attempt_id) == col(AttemptRow.id))
        .where(SweepTrialRow.sweep_id == sweep, AttemptRow.number == JobRow.attempts)
        .where(JobRow.gpus > 0)
        .order_by(col(SweepTrialRow.number), col(RankRow.rank))
    )
    if only is not None:
        query = query.where(col(SweepTrialRow.number).in_(sorted(only)))
    found: dict[int, dict[str, None]] = {}
    for number, uuids in session.exec(query).all():
        found.setdefault(number, {}).update(dict.fromkeys(uuids))
    return {number: list(uuids) for number, uuids in found.items()}


def _trial_view(trial: SweepTrialRow, job: JobRow, gpus: list[str], now: float) -> TrialView:
    is_open = trial.state == "OPEN"
    objective = job.objective or {}
    used = trial.gpu_seconds + (sweepstore.gpu_seconds(job, now) if is_open else 0.0)
    return {
        "number": trial.number,
        "state": trial_state(trial, job),
        "params": trial.params,
        "values": trial.values,
        "job": f"j{job.id}",
        "job_state": job.state,  # type: ignore[typeddict-item]
        "reason": trial.reason,
        "last": objective.get("value"),
        "step": objective.get("step"),
        "losses": trial.losses,
        "nodes": job.placed_on,
        "gpus": gpus,
        "asked_at": rfc3339(trial.asked_at),
        "started_at": maybe_rfc3339(job.started_at if is_open else trial.started_at),
        "ended_at": maybe_rfc3339(trial.ended_at),
        "gpu_hours": round(used / 3600, 6),
        "origin": trial.origin,  # type: ignore[typeddict-item]  # only origins are stored
        "parent": trial.parent,
        "member": trial.member,
        "generation": trial.generation,
        "pinned": trial.pinned,
        "constraints": trial.constraints,
        "feasible": trial.feasible,
    }


def trial_state(trial: SweepTrialRow, job: JobRow) -> TrialStateName:
    """A trial's state for people: one that is open is as its job is."""
    if trial.state != "OPEN":
        return trial.state  # type: ignore[return-value]
    if trial.wish:
        return "STOPPING"
    return "QUEUED" if job.state in ("QUEUED", "PLACING", "STAGING") else "RUNNING"


def _best(session: Session, row: SweepRow) -> BestTrial | None:
    objectives = row.spec["objective"]
    if len(objectives) > 1:
        return None
    value = col(SweepTrialRow.value)
    order = value.desc() if objectives[0]["goal"] == "maximize" else value.asc()
    found = session.exec(
        select(SweepTrialRow)
        .where(SweepTrialRow.sweep_id == row.id, SweepTrialRow.state == "COMPLETE")
        .where(col(SweepTrialRow.feasible).is_not(False))
        .order_by(order, col(SweepTrialRow.number))
        .limit(1)
    ).first()
    return None if found is None else _best_view(found)


def _front(session: Session, row: SweepRow) -> list[BestTrial]:
    objectives = row.spec["objective"]
    if len(objectives) == 1:
        best = _best(session, row)
        return [] if best is None else [best]
    rows = session.exec(
        select(SweepTrialRow)
        .where(SweepTrialRow.sweep_id == row.id, SweepTrialRow.state == "COMPLETE")
        .where(col(SweepTrialRow.feasible).is_not(False))
        .order_by(col(SweepTrialRow.number).desc())
        .limit(_FRONT)
    ).all()
    rows = list(reversed(rows))
    front = pareto(
        [item.values or [] for item in rows], [o["goal"] == "maximize" for o in objectives]
    )
    return [_best_view(rows[index]) for index in front]


def _best_view(trial: SweepTrialRow) -> BestTrial:
    return {
        "number": trial.number,
        "values": trial.values or [],
        "params": trial.params,
        "job": f"j{trial.job_id}",
    }
