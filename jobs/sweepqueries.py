"""Reading sweeps: rows become the views of `jobs/sweepviews.py`."""

from __future__ import annotations

from collections.abc import Collection

from sqlmodel import Session, col, select

from jobs import sweepstore
from jobs.sweeps import pareto
from jobs.sweeptables import SweepRow, SweepTrialRow
from jobs.sweepviews import BestTrial, SweepDetail, SweepView, TrialStateName, TrialView
from jobs.tables import JobRow
from jobs.times import maybe_rfc3339, rfc3339

_FRONT = 1000
"""Complete trials among which a front is looked for, the newest: it takes the square of their number."""


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
        "spec": {name: value for name, value in row.spec.items() if name != "limit"},
        "snapshot": row.snapshot,
        "study": sweepstore.study_name(number, row.name),
        "front": _front(session, row),
    }


def trial_views(
    session: Session, sweep: int, now: float, only: Collection[int] | None = None
) -> list[TrialView]:
    """Trials in order of their numbers, or `only` those."""
    query = (
        select(SweepTrialRow, JobRow)
        .join(JobRow, col(SweepTrialRow.job_id) == col(JobRow.id))
        .where(SweepTrialRow.sweep_id == sweep)
        .order_by(col(SweepTrialRow.number))
    )
    if only is not None:
        query = query.where(col(SweepTrialRow.number).in_(sorted(only)))
    return [_trial_view(trial, job, now) for trial, job in session.exec(query).all()]


def _trial_view(trial: SweepTrialRow, job: JobRow, now: float) -> TrialView:
    is_open = trial.state == "OPEN"
    objective = job.objective or {}
    used = trial.gpu_seconds + (sweepstore.gpu_seconds(job, now) if is_open else 0.0)
    return {
        "number": trial.number,
        "state": _state(trial, job),
        "params": trial.params,
        "values": trial.values,
        "job": f"j{job.id}",
        "job_state": job.state,  # type: ignore[typeddict-item]
        "reason": trial.reason,
        "last": objective.get("value"),
        "step": objective.get("step"),
        "losses": trial.losses,
        "nodes": job.placed_on,
        "asked_at": rfc3339(trial.asked_at),
        "started_at": maybe_rfc3339(job.started_at if is_open else trial.started_at),
        "ended_at": maybe_rfc3339(trial.ended_at),
        "gpu_hours": round(used / 3600, 6),
    }


def _state(trial: SweepTrialRow, job: JobRow) -> TrialStateName:
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
