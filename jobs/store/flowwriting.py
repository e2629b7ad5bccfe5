"""Pipelines in the registry: writing them, and reading what the next decision needs.

Like `jobs/store/writing.py`: every function takes an open Session and never commits.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Table, func
from sqlmodel import Session, col, select

from jobs.base.errors import Conflict, InvalidInput, NotFound
from jobs.base.numbers import finite
from jobs.base.states import TERMINAL
from jobs.flows.course import Run, Selection, Task, TaskId, Tasks
from jobs.flows.spec import PipelineSpec
from jobs.life.lifecycle import Note
from jobs.spec.command import Scalar
from jobs.spec.job import JobSpec
from jobs.store import audit
from jobs.store import writing as registry
from jobs.store.entering import Submission
from jobs.store.flowtables import PipelineRow, PipelineTaskRow
from jobs.store.sweeptables import SweepRow, SweepTrialRow
from jobs.store.tables import ArtifactRow, AttemptRow, JobRow, MetricLatestRow
from jobs.store.writing import Caller, Via
from jobs.wire.views import EventView

_ID = re.compile(r"p?([1-9][0-9]{0,17})")
_TASKS: Table = PipelineTaskRow.__table__  # type: ignore[attr-defined]


def pipeline_name(number: int) -> str:
    return f"p{number}"


def resolve(session: Session, text: str) -> int:
    """The run that a person means: `p1`, `1`, or `last`. Raises InvalidInput, NotFound."""
    if text == "last":
        newest = session.exec(select(func.max(PipelineRow.id))).one()
        if newest is None:
            raise NotFound("there are no pipelines yet", "Run one: `qd pipeline run FILE`.")
        return newest
    match = _ID.fullmatch(text.strip())
    if match is None:
        raise InvalidInput(f"'{text}' is not a pipeline's id", "Ids look like p1, or `last`.")
    return get(session, int(match[1])).id or 0


def get(session: Session, number: int) -> PipelineRow:
    row = session.get(PipelineRow, number)
    if row is None:
        raise NotFound(f"there is no pipeline p{number}", "`qd pipelines` lists them.")
    return row


@dataclass(frozen=True, slots=True)
class Wanted:
    """A run that is asked for. `code` is, by step, its snapshot and what git says of it; `given` the
    results of earlier runs that are taken, by task: the pipeline and the job."""

    spec: PipelineSpec
    params: Mapping[str, Scalar]
    code: Mapping[str, Mapping[str, Any]]
    selection: Selection = field(default_factory=Selection)
    cached: bool = True
    key: str | None = None
    given: Mapping[TaskId, Result] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Result:
    """What a task came to: in which pipeline, and its job or sweep."""

    pipeline: int
    job: int | None
    sweep: int | None
    left: Mapping[str, str] = field(default_factory=dict)  # of a step that is no job


def create(session: Session, wanted: Wanted, who: Caller, now: float) -> tuple[PipelineRow, bool]:
    """Insert a run with its tasks, or find the one that this caller submitted under the same key."""
    if wanted.key is not None:
        known = session.exec(
            select(PipelineRow).where(PipelineRow.uid == who.uid, PipelineRow.key == wanted.key)
        ).first()
        if known is not None:
            return known, False
    spec, selection = wanted.spec, wanted.selection
    row = PipelineRow(
        name=spec.name,
        user=who.user,
        uid=who.uid,
        role=int(who.role),
        key=wanted.key,
        spec=spec.to_json(),
        params=dict(wanted.params),
        code={name: dict(item) for name, item in wanted.code.items()},
        fresh=sorted(selection.fresh) if wanted.cached else list(spec.steps),
        state="RUNNING",
        submitted_at=now,
        started_at=now,
    )
    session.add(row)
    session.flush()
    assert row.id is not None
    values = []
    for name, step in spec.steps.items():
        for number in range(step.count):
            values.append(_task_values(row.id, name, number, wanted, now))
    session.connection().execute(_TASKS.insert(), values)
    note(session, row, "pipeline.started", f"started by {who.user}", now, user=who.user)
    record(session, row, who, "pipeline.run", now, {"name": row.name, "params": row.params})
    return row, True


def _task_values(
    pipeline: int, step: str, number: int, wanted: Wanted, now: float
) -> dict[str, Any]:
    values: dict[str, Any] = {
        "pipeline_id": pipeline,
        "step": step,
        "number": number,
        "state": "WAITING",
        "reason": "",
        "tries": 0,
        "left_out": False,
        "job_id": None,
        "sweep_id": None,
        "taken_from": None,
        "result": None,
        "ended_at": None,
    }
    given = wanted.given.get((step, number))
    if given is not None:
        values |= {
            "state": "CACHED",
            "reason": f"taken from {pipeline_name(given.pipeline)} as it was",
            "job_id": given.job,
            "sweep_id": given.sweep,
            "taken_from": given.pipeline,
            "result": {"left": dict(given.left)} if given.left else None,
            "left_out": True,
            "ended_at": now,
        }
    elif step in wanted.selection.skip or step in wanted.selection.take:
        values |= {"state": "SKIPPED", "reason": "left out", "left_out": True, "ended_at": now}
    return values


def note(
    session: Session, row: PipelineRow, kind: str, text: str, now: float, *, user: str | None = None
) -> list[EventView]:
    severity = "error" if kind in ("pipeline.failed", "pipeline.trouble") else "info"
    told = Note(kind, f"p{row.id} {text}", severity, user=user)  # type: ignore[arg-type]
    return registry.add_events(session, None, [told], now)


def record(
    session: Session,
    row: PipelineRow,
    who: Caller,
    action: str,
    now: float,
    data: Mapping[str, Any],
) -> None:
    """Add to the audit log."""
    audit.append(
        session,
        at=now,
        user=who.user,
        uid=who.uid,
        action=action,
        target=f"p{row.id}",
        data=data,
    )


def submission_of(
    row: PipelineRow, task: Task, spec: JobSpec, snapshot: str | None, git: Any
) -> Submission:
    """The job of a task as it is asked for, under a key by which it can never be made twice."""
    return Submission(
        name=spec.name,
        kind=spec.kind,
        spec=spec.to_json(),
        nodes=spec.nodes,
        ranks=spec.world_size,
        gpus=spec.total_gpus,
        cpus=spec.total_cpus,
        priority=spec.priority,
        max_restarts=spec.max_restarts,
        tags=spec.tags,
        key=task_key(row, task),
        snapshot=snapshot,
        git=git,
    )


def task_key(row: PipelineRow, task: Task) -> str:
    return f"pipeline:p{row.id}:{task.step}:{task.number}:{task.tries + 1}"


# -- what a decision needs --------------------------------------------------------------------------


def run_of(row: PipelineRow) -> Run:
    """The run as decisions see it."""
    return Run(row.state, row.started_at, row.reason, row.ending)  # type: ignore[arg-type]


def tasks_of(session: Session, number: int, spec: PipelineSpec) -> dict[str, list[Task]]:
    """All tasks of a run, by step."""
    c = _TASKS.c
    rows = session.connection().execute(
        _TASKS.select()
        .with_only_columns(c.step, c.number, c.state, c.reason, c.tries, c.left_out)
        .where(c.pipeline_id == number)
        .order_by(c.step, c.number)
    )
    found: dict[str, list[Task]] = {name: [] for name in spec.steps}
    for row in rows:
        found[row.step].append(Task(*row))
    return found


@dataclass(frozen=True, slots=True)
class Place:
    """Where a task runs, or ran: its job or its sweep."""

    job: int | None
    sweep: int | None


def places_of(session: Session, number: int, steps: Collection[str]) -> dict[TaskId, Place]:
    """The jobs and sweeps of the tasks of some steps."""
    c = _TASKS.c
    rows = session.connection().execute(
        _TASKS.select()
        .with_only_columns(c.step, c.number, c.job_id, c.sweep_id)
        .where(c.pipeline_id == number, c.step.in_(list(steps)))
    )
    return {(row.step, row.number): Place(row.job_id, row.sweep_id) for row in rows}


def running(session: Session, number: int) -> dict[TaskId, Place]:
    c = _TASKS.c
    rows = session.connection().execute(
        _TASKS.select()
        .with_only_columns(c.step, c.number, c.job_id, c.sweep_id)
        .where(c.pipeline_id == number, c.state == "RUNNING")
    )
    return {(row.step, row.number): Place(row.job_id, row.sweep_id) for row in rows}


def ended_jobs(session: Session, number: int) -> dict[int, tuple[str, str]]:
    """Jobs of tasks that run, and that are over themselves: state and reason."""
    rows = session.exec(
        select(JobRow.id, JobRow.state, JobRow.reason)
        .join(PipelineTaskRow, col(PipelineTaskRow.job_id) == col(JobRow.id))
        .where(
            PipelineTaskRow.pipeline_id == number,
            PipelineTaskRow.state == "RUNNING",
            col(JobRow.state).in_(sorted(TERMINAL)),
        )
    ).all()
    return {job: (state, reason) for job, state, reason in rows if job is not None}


def ended_sweeps(session: Session, number: int) -> dict[int, tuple[str, str]]:
    """The same of sweeps. One that a person has stopped with a best trial has succeeded."""
    rows = session.exec(
        select(SweepRow.id, SweepRow.state, SweepRow.reason)
        .join(PipelineTaskRow, col(PipelineTaskRow.sweep_id) == col(SweepRow.id))
        .where(
            PipelineTaskRow.pipeline_id == number,
            PipelineTaskRow.state == "RUNNING",
            col(SweepRow.state).in_(["FINISHED", "FAILED"]),
        )
    ).all()
    found = {}
    for sweep, state, reason in rows:
        assert sweep is not None
        well = state == "FINISHED" and best_of(session, sweep) is not None
        told = reason if state == "FAILED" or well else f"no trial is complete: {reason}"
        found[sweep] = ("SUCCEEDED" if well else "FAILED", told)
    return found


def best_of(session: Session, sweep: int) -> SweepTrialRow | None:
    """The best trial of a sweep by its first objective."""
    spec = get_sweep_spec(session, sweep)
    value = col(SweepTrialRow.value)
    goal = spec["objective"][0]["goal"]
    return session.exec(
        select(SweepTrialRow)
        .where(
            SweepTrialRow.sweep_id == sweep,
            SweepTrialRow.state == "COMPLETE",
            col(SweepTrialRow.feasible).is_not(False),
            value.is_not(None),
        )
        .order_by(value.desc() if goal == "maximize" else value, col(SweepTrialRow.number))
        .limit(1)
    ).first()


def get_sweep_spec(session: Session, sweep: int) -> dict[str, Any]:
    row = session.get(SweepRow, sweep)
    assert row is not None
    return row.spec


@dataclass(frozen=True, slots=True)
class Artifact:
    """An output of a job: its digest, its bytes, and the path under which it was written."""

    digest: str
    size: int
    path: str
    folder: bool = False  # the digest is that of a manifest
    data: str | None = None  # the version of a data set that it became


def artifacts(session: Session, jobs: Collection[int]) -> dict[int, dict[str, Artifact]]:
    """The outputs of jobs, those of the newest attempt that left each."""
    found: dict[int, dict[str, Artifact]] = {job: {} for job in jobs}
    rows = session.exec(
        select(ArtifactRow)
        .where(col(ArtifactRow.job_id).in_(sorted(jobs)))
        .order_by(col(ArtifactRow.attempt_id))
    ).all()
    for row in rows:
        found[row.job_id][row.name] = Artifact(
            row.digest, row.size, row.path, row.kind == "folder", row.data
        )
    return found


def metrics(session: Session, jobs: Collection[int]) -> dict[int, dict[str, float | None]]:
    """What rank 0 of each job logged last; None for what is no finite number, and so no parameter."""
    found: dict[int, dict[str, float | None]] = {job: {} for job in jobs}
    rows = session.exec(
        select(AttemptRow.job_id, MetricLatestRow.name, MetricLatestRow.value)
        .join(MetricLatestRow, col(MetricLatestRow.attempt_id) == col(AttemptRow.id))
        .where(col(AttemptRow.job_id).in_(sorted(jobs)), MetricLatestRow.rank == 0)
        .order_by(col(AttemptRow.number))
    ).all()
    for job, name, value in rows:
        found[job][name] = finite(value)
    return found


def equal_result(session: Session, uid: int, fingerprint: str) -> Result | None:
    """The newest result of this user's of a task with this fingerprint."""
    row = session.exec(
        select(PipelineTaskRow)
        .join(PipelineRow, col(PipelineRow.id) == col(PipelineTaskRow.pipeline_id))
        .where(
            PipelineTaskRow.fingerprint == fingerprint,
            PipelineTaskRow.state == "SUCCEEDED",
            PipelineRow.uid == uid,
        )
        .order_by(col(PipelineTaskRow.ended_at).desc())
        .limit(1)
    ).first()
    if row is None:
        return None
    left = (row.result or {}).get("left", {})
    return Result(row.pipeline_id, row.job_id, row.sweep_id, left)


def earlier_result(session: Session, uid: int, name: str, step: str, number: int) -> Result | None:
    """The newest result of a step in the runs of this user's of the pipeline with this name."""
    row = session.exec(
        select(PipelineTaskRow)
        .join(PipelineRow, col(PipelineRow.id) == col(PipelineTaskRow.pipeline_id))
        .where(
            PipelineRow.name == name,
            PipelineRow.uid == uid,
            PipelineTaskRow.step == step,
            PipelineTaskRow.number == number,
            col(PipelineTaskRow.state).in_(["SUCCEEDED", "CACHED"]),
        )
        .order_by(col(PipelineTaskRow.pipeline_id).desc())
        .limit(1)
    ).first()
    if row is None:
        return None
    left = (row.result or {}).get("left", {})
    return Result(row.taken_from or row.pipeline_id, row.job_id, row.sweep_id, left)


# -- steps that are no jobs --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Acting:
    """A task that runs and has neither job nor sweep.

    Args:
        asked: its fields with their references filled in.
        left: what its effect has left; None before it took place.
        since: when this try began, unix time.
    """

    tries: int
    reason: str
    asked: Mapping[str, str]
    left: Mapping[str, Any] | None
    since: float


def acting(session: Session, number: int) -> dict[TaskId, Acting]:
    """The tasks of a run that run as acts of the controller."""
    rows = session.exec(
        select(PipelineTaskRow).where(
            PipelineTaskRow.pipeline_id == number,
            PipelineTaskRow.state == "RUNNING",
            col(PipelineTaskRow.job_id).is_(None),
            col(PipelineTaskRow.sweep_id).is_(None),
        )
    ).all()
    found = {}
    for row in rows:
        result = row.result or {}
        found[row.step, row.number] = Acting(
            row.tries,
            row.reason,
            result.get("asked", {}),
            result.get("left"),
            row.started_at or 0.0,
        )
    return found


def effect(session: Session, via: Via, left: Mapping[str, Any]) -> None:
    """Record that a step's effect takes place, in the transaction in which it does: so it does once.

    Raises Conflict when it has taken place before, or the step does not run any more.
    """
    row = session.get(PipelineTaskRow, (via.pipeline, via.step, via.number))
    if row is None or row.state != "RUNNING" or row.tries != via.tries:
        raise Conflict(f"step {via.step} of p{via.pipeline} does not run any more")
    result = row.result or {}
    if "left" in result:
        raise Conflict(f"step {via.step} of p{via.pipeline} has done this already")
    row.result = {**result, "left": dict(left)}
    session.add(row)
    session.flush()


def left_by(session: Session, number: int, steps: Collection[str]) -> dict[TaskId, dict[str, Any]]:
    """What the tasks of some steps have left, by name."""
    c = _TASKS.c
    rows = session.connection().execute(
        _TASKS.select()
        .with_only_columns(c.step, c.number, c.result)
        .where(c.pipeline_id == number, c.step.in_(list(steps)))
    )
    return {(row.step, row.number): (row.result or {}).get("left", {}) for row in rows}


def tell(session: Session, number: int, reasons: Mapping[TaskId, str]) -> None:
    """Write down what tasks that run wait for."""
    save_tasks(
        session,
        number,
        [{"step": step, "number": n, "reason": told} for (step, n), told in reasons.items()],
    )


def save_tasks(session: Session, number: int, changes: Sequence[Mapping[str, Any]]) -> None:
    """Write down what has become of tasks: each with `step`, `number`, and the columns that change."""
    for change in changes:
        values = {key: value for key, value in change.items() if key not in ("step", "number")}
        session.connection().execute(
            _TASKS.update()
            .where(
                _TASKS.c.pipeline_id == number,
                _TASKS.c.step == change["step"],
                _TASKS.c.number == change["number"],
            )
            .values(**values)
        )


def active(session: Session) -> list[int]:
    """Runs that are not over."""
    rows = session.exec(
        select(PipelineRow.id)
        .where(col(PipelineRow.state).in_(["RUNNING", "STOPPING"]))
        .order_by(col(PipelineRow.id))
    ).all()
    return [row for row in rows if row is not None]


__all__ = [
    "Acting",
    "Artifact",
    "Place",
    "Result",
    "Tasks",
    "Wanted",
    "acting",
    "active",
    "artifacts",
    "best_of",
    "create",
    "earlier_result",
    "effect",
    "ended_jobs",
    "ended_sweeps",
    "equal_result",
    "get",
    "left_by",
    "metrics",
    "note",
    "pipeline_name",
    "places_of",
    "record",
    "resolve",
    "run_of",
    "running",
    "save_tasks",
    "submission_of",
    "task_key",
    "tasks_of",
    "tell",
]
