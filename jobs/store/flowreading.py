"""Reading pipelines: rows become the views of `jobs/wire/flowviews.py`."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import func
from sqlmodel import Session, col, select

from jobs.base.times import maybe_rfc3339, rfc3339
from jobs.flows import graph
from jobs.flows.course import TaskId
from jobs.flows.spec import PipelineSpec, Step
from jobs.store import flowwriting
from jobs.store.flowtables import PipelineRow, PipelineTaskRow
from jobs.store.tables import JobRow
from jobs.wire.flowviews import PipelineDetail, PipelineView, TaskView


def pipeline_views(session: Session, limit: int = 200) -> list[PipelineView]:
    """Runs of pipelines, newest first."""
    rows = session.exec(select(PipelineRow).order_by(col(PipelineRow.id).desc()).limit(limit)).all()
    numbers = [row.id for row in rows if row.id is not None]
    counts: dict[int, dict[str, int]] = {number: {} for number in numbers}
    for number, state, count in session.exec(
        select(PipelineTaskRow.pipeline_id, PipelineTaskRow.state, func.count())
        .where(col(PipelineTaskRow.pipeline_id).in_(numbers))
        .group_by(col(PipelineTaskRow.pipeline_id), PipelineTaskRow.state)
    ).all():
        counts[number][state] = count
    open_ = [row.id for row in rows if row.state in ("RUNNING", "STOPPING") and row.id is not None]
    steps: dict[int, list[str]] = {number: [] for number in numbers}
    for number, step in session.exec(
        select(PipelineTaskRow.pipeline_id, PipelineTaskRow.step)
        .where(col(PipelineTaskRow.pipeline_id).in_(open_), PipelineTaskRow.state == "RUNNING")
        .distinct()
    ).all():
        steps[number].append(step)
    return [_view(row, counts[row.id or 0], sorted(steps[row.id or 0])) for row in rows]


def pipeline_view(session: Session, row: PipelineRow) -> PipelineView:
    counts = dict(
        session.exec(
            select(PipelineTaskRow.state, func.count())
            .where(PipelineTaskRow.pipeline_id == row.id)
            .group_by(PipelineTaskRow.state)
        ).all()
    )
    steps = session.exec(
        select(PipelineTaskRow.step)
        .where(PipelineTaskRow.pipeline_id == row.id, PipelineTaskRow.state == "RUNNING")
        .distinct()
    ).all()
    return _view(row, counts, sorted(steps))


def _view(row: PipelineRow, counts: dict[str, int], running: Sequence[str]) -> PipelineView:
    assert row.id is not None
    return {
        "id": flowwriting.pipeline_name(row.id),
        "name": row.name,
        "user": row.user,
        "state": row.state,  # type: ignore[typeddict-item]  # only states of runs are stored
        "reason": row.reason,
        "params": row.params,
        "counts": {**counts, "total": sum(counts.values())},
        "running": list(running),
        "submitted_at": rfc3339(row.submitted_at),
        "ended_at": maybe_rfc3339(row.ended_at),
    }


def pipeline_detail(session: Session, number: int) -> PipelineDetail:
    """Raises NotFound."""
    row = flowwriting.get(session, number)
    spec = PipelineSpec.from_json(row.spec)
    rows = session.exec(
        select(PipelineTaskRow, JobRow.state)
        .outerjoin(JobRow, col(PipelineTaskRow.job_id) == col(JobRow.id))
        .where(PipelineTaskRow.pipeline_id == number)
    ).all()
    places = {name: place for place, name in enumerate(graph.order(spec.needs))}
    values = {name: step.instances() for name, step in spec.steps.items()}
    found = sorted(rows, key=lambda item: (places[item[0].step], item[0].number))
    return {
        **pipeline_view(session, row),
        "spec": row.spec,
        "tasks": [_task(spec, task, values[task.step][task.number], job) for task, job in found],
    }


def task_views(session: Session, row: PipelineRow, only: Collection[TaskId]) -> list[TaskView]:
    """Some tasks of a run."""
    if not only:
        return []
    spec = PipelineSpec.from_json(row.spec)
    found = session.exec(
        select(PipelineTaskRow, JobRow.state)
        .outerjoin(JobRow, col(PipelineTaskRow.job_id) == col(JobRow.id))
        .where(
            PipelineTaskRow.pipeline_id == row.id,
            col(PipelineTaskRow.step).in_(sorted({step for step, _ in only})),
        )
    ).all()
    values = {name: spec.steps[name].instances() for name in {step for step, _ in only}}
    return [
        _task(spec, task, values[task.step][task.number], job)
        for task, job in found
        if (task.step, task.number) in only
    ]


def _task(
    spec: PipelineSpec, row: PipelineTaskRow, matrix: dict[str, Any], job_state: str | None
) -> TaskView:
    taken = row.taken_from
    return {
        "step": row.step,
        "number": row.number,
        "matrix": matrix,
        "kind": spec.steps[row.step].kind,
        "left": _left(spec.steps[row.step], row),
        "needs": list(spec.needs[row.step]),
        "state": row.state,  # type: ignore[typeddict-item]  # only states of tasks are stored
        "job_state": (job_state or "") if row.state == "RUNNING" else "",
        "reason": row.reason,
        "tries": row.tries,
        "job": None if row.job_id is None else f"j{row.job_id}",
        "sweep": None if row.sweep_id is None else f"s{row.sweep_id}",
        "taken_from": None if taken is None else flowwriting.pipeline_name(taken),
        "started_at": maybe_rfc3339(row.started_at),
        "ended_at": maybe_rfc3339(row.ended_at),
    }


def _left(step: Step, row: PipelineTaskRow) -> dict[str, str]:
    left = (row.result or {}).get("left", {})
    known = step.act.LEAVES if step.act is not None else ()
    return {name: str(left[name]) for name in known if name in left}
