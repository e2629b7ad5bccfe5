"""Reading sweeps: rows become the views of `jobs/wire/sweepviews.py`."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from typing import Any

import sqlalchemy
from sqlmodel import Session, col, select

from jobs.base.numbers import heard
from jobs.base.times import maybe_rfc3339, rfc3339
from jobs.store import sweepfacts, sweepwriting
from jobs.store.sweeptables import SweepRow, SweepTrialRow
from jobs.store.tables import AttemptRow, JobRow, RankRow
from jobs.sweeps.decisions import pareto
from jobs.wire.sweepviews import BestTrial, SweepDetail, SweepView, TrialStateName, TrialView

_FRONT = 1000
"""Complete trials among which a front is looked for, the newest: it takes the square of their number."""
_TRIAL: Any = SweepTrialRow.__table__.c  # type: ignore[attr-defined]
_JOB: Any = JobRow.__table__.c  # type: ignore[attr-defined]
_DOCUMENTS = (_TRIAL.params, _TRIAL["values"], _TRIAL.constraints, _JOB.placed_on, _JOB.objective)
_READ = sqlalchemy.select(
    # As text, to be decoded together: one by one takes longer than all the rest.
    *(sqlalchemy.cast(column, sqlalchemy.Text) for column in _DOCUMENTS),
    _JOB.state, _JOB.gpus, _JOB.started_at, _JOB.ended_at,
    _TRIAL.number, _TRIAL.state, _TRIAL.wish, _TRIAL.reason, _TRIAL.job_id, _TRIAL.losses,
    _TRIAL.asked_at, _TRIAL.started_at, _TRIAL.ended_at, _TRIAL.gpu_seconds, _TRIAL.origin,
    _TRIAL.parent, _TRIAL.member, _TRIAL.generation, _TRIAL.pinned, _TRIAL.feasible,
).join(JobRow, _TRIAL.job_id == _JOB.id)  # fmt: skip
"""What a view of a trial takes, without the rest of its job: of ten thousand the specs take a second."""


def sweep_views(session: Session, now: float, limit: int = 200) -> list[SweepView]:
    """Sweeps, newest first."""
    rows = session.exec(select(SweepRow).order_by(col(SweepRow.id).desc()).limit(limit)).all()
    return [sweep_view(session, row, now) for row in rows]


def sweep_view(session: Session, row: SweepRow, now: float) -> SweepView:
    assert row.id is not None
    spec = row.spec
    counts, _, used = sweepfacts.tally(session, row.id)
    if counts.get("OPEN"):
        used += sweepfacts.gpu_seconds_of_open(session, row.id, now)
    return {
        "id": sweepwriting.sweep_name(row.id),
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
    row = sweepwriting.get(session, number)
    view = sweep_view(session, row, now)
    return {
        **view,
        "spec": sweepwriting.plain(row),
        "snapshot": row.snapshot,
        "study": sweepwriting.study_name(number, row.name),
        "front": _front(session, row),
    }


def trial_views(
    session: Session,
    sweep: int,
    now: float,
    only: Collection[int] | None = None,
    *,
    after: int = -1,
    limit: int | None = None,
) -> list[TrialView]:
    """Trials in order of their numbers: `only` those, or `limit` of those after a number."""
    query = _READ.where(_TRIAL.sweep_id == sweep).order_by(_TRIAL.number)
    if only is not None:
        query = query.where(_TRIAL.number.in_(sorted(only)))
    rows = session.execute(query.where(_TRIAL.number > after).limit(limit)).all()
    texts = (f"[{','.join([text or 'null' for text in row[:5]])}]" for row in rows)
    documents = json.loads(f"[{','.join(texts)}]")
    found = [_trial_view(row, document, now) for row, document in zip(rows, documents, strict=True)]
    numbers = [view["number"] for view, row in zip(found, rows, strict=True) if row[6] > 0]
    if numbers:
        gpus = _gpus(session, sweep, min(numbers), max(numbers))
        for view in found:
            view["gpus"] = gpus.get(view["number"], [])
    return found


def _gpus(session: Session, sweep: int, first: int, last: int) -> dict[int, list[str]]:
    """Of the trials between two numbers, those included: the GPUs of their ranks, each once, in the newest
    attempt of their jobs."""
    query = (
        select(SweepTrialRow.number, RankRow.gpus)
        .join(AttemptRow, col(SweepTrialRow.job_id) == col(AttemptRow.job_id))
        .join(JobRow, col(JobRow.id) == col(AttemptRow.job_id))
        .join(RankRow, col(RankRow.attempt_id) == col(AttemptRow.id))
        .where(SweepTrialRow.sweep_id == sweep, AttemptRow.number == JobRow.attempts)
        .where(JobRow.gpus > 0, col(SweepTrialRow.number).between(first, last))
        .order_by(col(SweepTrialRow.number), col(RankRow.rank))
    )
    found: dict[int, dict[str, None]] = {}
    for number, uuids in session.exec(query).all():
        found.setdefault(number, {}).update(dict.fromkeys(uuids))
    return {number: list(uuids) for number, uuids in found.items()}


def _trial_view(row: Sequence[Any], documents: Sequence[Any], now: float) -> TrialView:
    """One row of `_READ`, with its JSON decoded; without GPUs."""
    params, values, constraints, nodes, objective = documents
    values = values and [heard(value) for value in values]
    (
        *_, job_state, gpus, job_started, job_ended,
        number, state, wish, reason, job, losses,
        asked, started, ended, used, origin,
        parent, member, generation, pinned, feasible,
    ) = row  # fmt: skip
    is_open = state == "OPEN"
    if is_open and job_started is not None:
        used += max((job_ended or now) - job_started, 0.0) * gpus
    return {
        "number": number,
        "state": trial_state(state, wish, job_state),
        "params": params,
        "values": values,
        "job": f"j{job}",
        "job_state": job_state,
        "reason": reason,
        "last": heard(objective["value"]) if objective else None,
        "step": objective["step"] if objective else None,
        "losses": losses,
        "nodes": nodes,
        "gpus": [],
        "asked_at": rfc3339(asked),
        "started_at": maybe_rfc3339(job_started if is_open else started),
        "ended_at": maybe_rfc3339(ended),
        "gpu_hours": round(used / 3600, 6),
        "origin": origin,
        "parent": parent,
        "member": member,
        "generation": generation,
        "pinned": pinned,
        "constraints": constraints,
        "feasible": feasible,
    }


def trial_state(state: str, wish: str, job_state: str) -> TrialStateName:
    """A trial's state for people: one that is open is as its job is."""
    if state != "OPEN":
        return state  # type: ignore[return-value]
    if wish:
        return "STOPPING"
    return "QUEUED" if job_state in ("QUEUED", "PLACING", "STAGING") else "RUNNING"


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
