"""Schedules in the registry: writing them, firing them, and their views.

Like `jobs/store/writing.py`: every function takes an open Session and never commits. A moment, what came
of it and the pipeline that it started are recorded together, and a moment is recorded once: whatever is
killed when, it fires once.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import delete, func
from sqlmodel import Session, col, select

from jobs.access.roles import Role
from jobs.base.errors import Conflict, NotFound
from jobs.base.times import maybe_rfc3339, rfc3339
from jobs.base.units import format_duration
from jobs.flows import schedules
from jobs.flows.schedules import Schedule
from jobs.flows.spec import PipelineSpec
from jobs.flows.triggers import Cause, Trigger
from jobs.life.lifecycle import Note
from jobs.spec.command import Scalar
from jobs.store import audit, causes, flowwriting
from jobs.store import writing as registry
from jobs.store.flowtables import FiringRow, PipelineRow, ScheduleRow
from jobs.store.flowwriting import Wanted
from jobs.store.writing import Caller
from jobs.wire.flowviews import FiringView, ScheduleView
from jobs.wire.views import EventView

SHOWN = 5
"""Moments to come that are shown."""
_FIRINGS = 20


@dataclass(slots=True)
class Fired:
    """What became of a schedule: pipelines that were started, and those that are being stopped."""

    next: float
    started: list[int] = field(default_factory=list)
    stopped: list[int] = field(default_factory=list)
    events: list[EventView] = field(default_factory=list)


def get(session: Session, name: str) -> ScheduleRow:
    """Raises NotFound."""
    row = session.exec(select(ScheduleRow).where(ScheduleRow.name == name)).first()
    if row is None:
        raise NotFound(f"there is no schedule '{name}'", "`qd schedules` lists them.")
    return row


def add(
    session: Session,
    name: str,
    schedule: Schedule,
    spec: PipelineSpec,
    params: Mapping[str, Scalar],
    code: Mapping[str, Mapping[str, Any]],
    who: Caller,
    now: float,
) -> ScheduleRow:
    """Raises Conflict when there is one of this name."""
    if session.exec(select(ScheduleRow.id).where(ScheduleRow.name == name)).first() is not None:
        raise Conflict(
            f"there is a schedule '{name}' already",
            f"Give another --name, or remove it: `qd schedule rm {name}`.",
        )
    row = ScheduleRow(
        name=name,
        user=who.user,
        uid=who.uid,
        role=int(who.role),
        schedule=schedule.to_json(),
        spec=spec.to_json(),
        params=dict(params),
        code={step: dict(item) for step, item in code.items()},
        added_at=now,
        seen=from_now_on(session, schedule, now),
    )
    session.add(row)
    session.flush()
    record(session, row, who, "schedule.add", now, {"schedule": schedule.to_json()})
    return row


def from_now_on(session: Session, schedule: Schedule, now: float) -> float:
    """What `seen` is when nothing from before counts."""
    return now if schedule.on is None else causes.from_now_on(session, schedule.on, now)


def record(
    session: Session,
    row: ScheduleRow,
    who: Caller,
    action: str,
    now: float,
    data: Mapping[str, Any],
) -> None:
    """Add to the audit log."""
    audit.append(
        session, at=now, user=who.user, uid=who.uid, action=action, target=row.name, data=data
    )


def owner(row: ScheduleRow) -> Caller:
    """In whose name its pipelines act: of who added it."""
    return Caller(row.user, row.uid, Role(row.role))


def remove(session: Session, row: ScheduleRow) -> None:
    """Delete a schedule and the record of its moments; the pipelines that it started stay."""
    session.connection().execute(delete(FiringRow).where(col(FiringRow.schedule_id) == row.id))
    session.delete(row)


def every(session: Session) -> list[ScheduleRow]:
    return list(session.exec(select(ScheduleRow).order_by(ScheduleRow.name)).all())


def fire(session: Session, number: int, now: float) -> Fired | None:
    """Do what the clock asks of a schedule; None when it is gone or paused."""
    row = session.get(ScheduleRow, number)
    if row is None or row.paused:
        return None
    schedule = Schedule.from_json(row.schedule)
    due = schedules.due(schedule, row.name, row.added_at, row.seen, now)
    fired = Fired(due.next)
    if due.missed:
        told = f"{row.name} missed {len(due.missed)} moments, the last {rfc3339(due.missed[-1])}"
        _note(session, fired, "schedule.missed", told, now, "warning")
        _decided(session, row, due.missed[-1], "MISSED", told, now)
    for moment in due.fire:
        _admit(session, row, schedule, moment, fired, now)
    if schedule.on is not None:
        _triggered(session, row, schedule, schedule.on, fired, now)
    if schedule.on is None and due.seen != row.seen:
        row.seen = due.seen
        session.add(row)
    _start_waiting(session, row, fired, now)
    return fired


def idle(session: Session, number: int) -> bool:
    """Whether a schedule waits for something that has not happened: looking costs no write then."""
    row = session.get(ScheduleRow, number)
    if row is None or row.paused:
        return False
    on = Schedule.from_json(row.schedule).on
    if on is None or _waiting(session, row):
        return False
    return not causes.causes(session, number, on, row.seen)[0]


def fire_now(session: Session, row: ScheduleRow, who: Caller, now: float) -> Fired:
    """Start its pipeline once, whatever the clock says. Raises Conflict in a moment that has fired."""
    fired = Fired(0.0)
    if session.get(FiringRow, (row.id, now)) is not None:
        raise Conflict(f"{row.name} fired in this very moment", "Try again.")
    _start(session, row, now, f"run by {who.user}", fired, now)
    return fired


def _triggered(
    session: Session, row: ScheduleRow, schedule: Schedule, on: Trigger, fired: Fired, now: float
) -> None:
    """Fire for what has happened, each thing once."""
    found, seen = causes.causes(session, row.id or 0, on, row.seen)
    for cause in found:
        moment = cause.at
        while session.get(FiringRow, (row.id, moment)) is not None:
            moment = math.nextafter(moment, math.inf)  # two at once
        last = session.exec(
            select(func.max(FiringRow.at)).where(
                FiringRow.schedule_id == row.id, FiringRow.state == "STARTED"
            )
        ).one()
        if schedule.cooldown and last is not None and last <= now < last + schedule.cooldown:
            told = f"within {format_duration(schedule.cooldown)} of the run before"
            _decided(session, row, moment, "SKIPPED", told, now, cause=cause)
        else:
            _admit(session, row, schedule, moment, fired, now, cause)
    if seen != row.seen:
        row.seen = seen
        session.add(row)


def _admit(
    session: Session,
    row: ScheduleRow,
    schedule: Schedule,
    moment: float,
    fired: Fired,
    now: float,
    cause: Cause | None = None,
) -> None:
    if session.get(FiringRow, (row.id, moment)) is not None:
        return
    running, waiting = _running(session, row), _waiting(session, row)
    verdict = schedules.admit(schedule, running=bool(running), waiting=len(waiting))
    if verdict == "start":
        _start(session, row, moment, "", fired, now, cause)
    elif verdict == "skip":
        names = ", ".join(flowwriting.pipeline_name(item.id or 0) for item in running)
        told = f"{names} is not over" if names else f"{len(waiting)} wait already"
        _decided(session, row, moment, "SKIPPED", told, now, cause=cause)
        _note(session, fired, "schedule.skipped", f"{row.name} was skipped: {told}", now, "warning")
    else:
        if verdict == "replace":
            for item in waiting:
                item.state, item.reason = "SKIPPED", "replaced by the next one"
                session.add(item)
            for pipeline in running:
                _stop(session, row, pipeline, fired)
        told = "the run before is not over"
        _decided(session, row, moment, "WAITING", told, now, cause=cause)


def _start_waiting(session: Session, row: ScheduleRow, fired: Fired, now: float) -> None:
    """Start the oldest firing that waits, once nothing runs."""
    waiting = _waiting(session, row)
    if not waiting:
        return
    if _running(session, row):
        fired.next = min(fired.next, now + 1.0)
        return
    first = waiting[0]
    cause = None
    if first.cause is not None:
        cause = Cause(first.cause, first.value or "", first.moment)
    session.delete(first)
    session.flush()
    _start(session, row, first.moment, "after the run before", fired, now, cause)


def _start(
    session: Session,
    row: ScheduleRow,
    moment: float,
    why: str,
    fired: Fired,
    now: float,
    cause: Cause | None = None,
) -> None:
    spec = PipelineSpec.from_json(row.spec)
    key = f"schedule:{row.id}:{moment!r}"
    params, into = row.params, row.schedule.get("into")
    if cause is not None and into is not None:
        params = {**params, into: cause.value}
    wanted = Wanted(spec, params, row.code, key=key)
    pipeline, created = flowwriting.create(session, wanted, owner(row), now)
    assert pipeline.id is not None
    _decided(session, row, moment, "STARTED", why, now, pipeline.id, cause=cause)
    if created:
        fired.started.append(pipeline.id)
        told = f"{row.name} started {flowwriting.pipeline_name(pipeline.id)}"
        if cause is not None:
            told += f": {cause.value}"
            data = {"schedule": row.name, "on": row.schedule["on"], "cause": cause.key}
            flowwriting.record(session, pipeline, owner(row), "pipeline.triggered", now, data)
        _note(session, fired, "schedule.fired", told, now)


def _stop(session: Session, row: ScheduleRow, pipeline: PipelineRow, fired: Fired) -> None:
    if pipeline.state == "RUNNING":
        pipeline.state, pipeline.ending = "STOPPING", "CANCELLED"
        pipeline.reason = f"replaced by the next run of schedule {row.name}"
        pipeline.steered += 1
        session.add(pipeline)
        fired.stopped.append(pipeline.id or 0)


def _decided(
    session: Session,
    row: ScheduleRow,
    moment: float,
    state: str,
    reason: str,
    now: float,
    pipeline: int | None = None,
    *,
    cause: Cause | None = None,
) -> None:
    session.add(
        FiringRow(
            schedule_id=row.id or 0,
            moment=moment,
            state=state,
            reason=reason,
            pipeline_id=pipeline,
            at=now,
            cause=None if cause is None else cause.key,
            value=None if cause is None else cause.value,
        )
    )
    session.flush()


def _running(session: Session, row: ScheduleRow) -> list[PipelineRow]:
    return list(
        session.exec(
            select(PipelineRow)
            .join(FiringRow, col(FiringRow.pipeline_id) == col(PipelineRow.id))
            .where(
                FiringRow.schedule_id == row.id,
                col(PipelineRow.state).in_(["RUNNING", "STOPPING"]),
            )
        ).all()
    )


def _waiting(session: Session, row: ScheduleRow) -> list[FiringRow]:
    return list(
        session.exec(
            select(FiringRow)
            .where(FiringRow.schedule_id == row.id, FiringRow.state == "WAITING")
            .order_by(col(FiringRow.moment))
        ).all()
    )


def _note(
    session: Session, fired: Fired, kind: str, text: str, now: float, severity: str = "info"
) -> None:
    note = Note(kind, f"schedule {text}", severity)  # type: ignore[arg-type]
    fired.events += registry.add_events(session, None, [note], now)


# -- views -------------------------------------------------------------------------------------------


def view(session: Session, row: ScheduleRow, now: float) -> ScheduleView:
    """A schedule with its next moments and its last firings."""
    schedule = Schedule.from_json(row.schedule)
    upcoming = schedule.moments(max(row.seen, now), row.added_at)
    firings = session.exec(
        select(FiringRow)
        .where(FiringRow.schedule_id == row.id)
        .order_by(col(FiringRow.moment).desc())
        .limit(_FIRINGS)
    ).all()
    total = session.exec(
        select(func.count()).where(FiringRow.schedule_id == row.id, FiringRow.state == "STARTED")
    ).one()
    return {
        "name": row.name,
        "user": row.user,
        "pipeline": row.spec["name"],
        "state": "PAUSED" if row.paused else "ACTIVE",
        "schedule": row.schedule,
        "told": schedule.told(),
        "params": row.params,
        "next": [] if row.paused else [rfc3339(at) for at in itertools.islice(upcoming, SHOWN)],
        "fired": total,
        "firings": [_firing(item) for item in firings],
        "added_at": rfc3339(row.added_at),
    }


def _firing(row: FiringRow) -> FiringView:
    number = row.pipeline_id
    return {
        "moment": rfc3339(row.moment),
        "state": row.state,  # type: ignore[typeddict-item]  # only states of firings are stored
        "reason": row.reason,
        "cause": row.value,
        "pipeline": None if number is None else flowwriting.pipeline_name(number),
        "at": maybe_rfc3339(row.at) or "",
    }
