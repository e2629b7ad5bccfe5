"""Sweeps in the registry: writing them, and reading what the next decision needs.

Like `jobs/store/writing.py`: every function takes an open Session and never commits.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from sqlalchemy import func
from sqlmodel import Session, col, select

from jobs.base.errors import Conflict, InvalidInput, NotFound
from jobs.life.lifecycle import Note
from jobs.spec.job import JobSpec
from jobs.store import audit, metricpoints
from jobs.store import writing as registry
from jobs.store.entering import Submission
from jobs.store.sweeptables import SweepRow, SweepTrialRow
from jobs.store.tables import JobRow
from jobs.store.writing import Caller
from jobs.sweeps.decisions import Limits, Sweep
from jobs.sweeps.populations import Turn
from jobs.sweeps.spec import SweepSpec
from jobs.wire.views import EventView

_ID = re.compile(r"s?([1-9][0-9]{0,17})")


def sweep_name(number: int) -> str:
    return f"s{number}"


def study_name(number: int, name: str) -> str:
    """What the sweep's study is called in Optuna's storage."""
    return f"{sweep_name(number)}-{name}"


def resolve(session: Session, text: str) -> int:
    """The sweep that a person means: `s1`, `1`, or `last`. Raises InvalidInput, NotFound."""
    if text == "last":
        newest = session.exec(select(func.max(SweepRow.id))).one()
        if newest is None:
            raise NotFound("there are no sweeps yet", "Start one: `qd sweep FILE`.")
        return newest
    match = _ID.fullmatch(text.strip())
    if match is None:
        raise InvalidInput(f"'{text}' is not a sweep's id", "Ids look like s1, or `last`.")
    return get(session, int(match[1])).id or 0


def get(session: Session, number: int) -> SweepRow:
    row = session.get(SweepRow, number)
    if row is None:
        raise NotFound(f"there is no sweep s{number}", "`qd sweeps` lists them.")
    return row


def trial_of(session: Session, sweep: int, number: int) -> SweepTrialRow:
    """One trial of a sweep. Raises NotFound."""
    row = session.get(SweepTrialRow, (sweep, number))
    if row is None:
        raise NotFound(f"s{sweep} has no trial {number}", f"`qd trials s{sweep}` lists them.")
    return row


def create(
    session: Session,
    spec: SweepSpec,
    who: Caller,
    now: float,
    *,
    key: str | None,
    snapshot: str | None,
    git: Mapping[str, Any] | None,
) -> tuple[SweepRow, bool]:
    """Insert a sweep, or find the one that this caller submitted under the same key."""
    if key is not None:
        known = session.exec(
            select(SweepRow).where(SweepRow.uid == who.uid, SweepRow.key == key)
        ).first()
        if known is not None:
            return known, False
    row = SweepRow(
        name=spec.name,
        user=who.user,
        uid=who.uid,
        key=key,
        spec=stored(spec),
        snapshot=snapshot,
        git=dict(git) if git else None,
        state="RUNNING",
        submitted_at=now,
    )
    session.add(row)
    session.flush()
    assert row.id is not None
    note(session, row, "sweep.started", f"started by {who.user}", now, user=who.user)
    record(session, row, who, "sweep.submit", now, {"name": row.name, "snapshot": snapshot})
    return row, True


def stored(spec: SweepSpec, reruns: Mapping[str, int] | None = None) -> dict[str, Any]:
    """A spec as its row holds it.

    With it stand `limit`, the number of trials, which takes a while to count for a grid, `cells`, how
    many points it had at first (see `SweepSpec.points`), and `reruns`, which of the enqueued points
    (by their place, in decimal) run which trial again. A population enqueues nothing for them: they are
    counted, and add to its limit.
    """
    limit = spec.limit
    if limit is not None and spec.sampler.name == "pbt":
        limit += len(reruns or {})
    return {**spec.to_json(), "limit": limit, "cells": spec.cells, "reruns": dict(reruns or {})}


def plain(row: SweepRow) -> dict[str, Any]:
    """A row's spec as people write it."""
    return {key: row.spec[key] for key in row.spec if key not in ("limit", "cells", "reruns")}


def reruns(row: SweepRow) -> dict[str, int]:
    """Which enqueued points run a trial again: see `stored`."""
    return dict(row.spec.get("reruns", {}))


def to_run_again(row: SweepRow) -> list[int]:
    """Of a population: the trials that a person has had run again, in that order."""
    return [trial for _, trial in sorted(reruns(row).items(), key=lambda item: int(item[0]))]


def spec_of(row: SweepRow) -> SweepSpec:
    return changed(row, plain(row))


def changed(row: SweepRow, data: dict[str, Any]) -> SweepSpec:
    """The spec of a row as a person has changed it, with the grid that it began with. Raises InvalidInput."""
    return SweepSpec.from_json(data).with_cells(row.spec.get("cells"))


def note(
    session: Session, row: SweepRow, kind: str, text: str, now: float, *, user: str | None = None
) -> list[EventView]:
    """Store an event about a sweep; gives it as it is told."""
    severity = "error" if kind in ("sweep.failed", "sweep.trouble") else "info"
    told = Note(kind, f"s{row.id} {text}", severity, user=user)  # type: ignore[arg-type]
    return registry.add_events(session, None, [told], now)


def record(
    session: Session, row: SweepRow, who: Caller, action: str, now: float, data: Mapping[str, Any]
) -> None:
    """Add to the audit log."""
    audit.append(
        session,
        at=now,
        user=who.user,
        uid=who.uid,
        action=action,
        target=f"s{row.id}",
        data=data,
    )


def submission_of(sweep: SweepRow, spec: JobSpec, number: int, losses: int) -> Submission:
    """The job of a trial as it is asked for, under a key by which it can never be made twice."""
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
        key=f"sweep:s{sweep.id}:{number}:{losses}",
        snapshot=sweep.snapshot,
        git=sweep.git,
    )


# -- what a decision needs, beside `jobs/store/sweepfacts.py` --------------------------------------------


def sweep_of(row: SweepRow, spec: SweepSpec) -> Sweep:
    """The sweep as decisions see it."""
    budget = spec.budget
    return Sweep(
        state=row.state,  # type: ignore[arg-type]  # only SweepState values are stored
        limits=Limits(
            parallel=spec.parallel,
            trials=row.spec["limit"],
            seconds=budget.time,
            gpu_seconds=budget.gpu_hours * 3600 if budget.gpu_hours is not None else None,
        ),
        started_at=row.submitted_at,
        reason=row.reason,
        ending=row.ending,  # type: ignore[arg-type]
        paused_at=row.paused_at,
        paused_for=row.paused_for,
    )


def gpu_seconds(job: JobRow, now: float) -> float:
    """GPUs times seconds of a job, from its first start to its end or now."""
    if job.started_at is None:
        return 0.0
    return max((job.ended_at or now) - job.started_at, 0.0) * job.gpus


def turns(session: Session, sweep: int) -> list[Turn]:
    """All trials of a population, as the choice of further ones sees them."""
    rows = session.exec(
        select(SweepTrialRow)
        .where(SweepTrialRow.sweep_id == sweep)
        .order_by(col(SweepTrialRow.number))
    ).all()
    return [
        Turn(
            number=row.number,
            member=row.member,
            generation=row.generation,
            params=row.params,
            over=row.state != "OPEN",
            value=row.value if row.state == "COMPLETE" else None,
            feasible=row.feasible is not False,
            checkpoint=row.checkpoint is not None,
            parent=row.parent,
            again=row.origin == "rerun",
        )
        for row in rows
        if row.member is not None and row.generation is not None
    ]


def start_of(session: Session, trial: SweepTrialRow) -> str | None:
    """The checkpoint that a turn of a population begins with; None for a first one. One that runs
    another again begins where that one did.

    Raises:
        Conflict: it is not kept any more.
    """
    while trial.origin == "rerun" and trial.parent is not None:
        trial = trial_of(session, trial.sweep_id, trial.parent)
    if trial.parent is None:
        return None
    start = trial_of(session, trial.sweep_id, trial.parent).checkpoint
    if start is None:
        raise Conflict(
            f"the checkpoint of trial {trial.parent}, with which trial {trial.number} of "
            f"s{trial.sweep_id} began, is no longer stored",
            "What further turns may begin with is kept, and the best one's: docs/sweeps.md.",
        )
    return start


def points_after(
    session: Session, job: int, metric: str, cursor: int
) -> tuple[int, list[tuple[int, float | None]]]:
    """What rank 0 of a job has logged of a metric since `cursor`, and the cursor from there."""
    return metricpoints.of_rank_0(session, job, metric, cursor)


def numbers(session: Session, sweep: int) -> set[int]:
    """Numbers of all trials of a sweep."""
    return set(
        session.exec(select(SweepTrialRow.number).where(SweepTrialRow.sweep_id == sweep)).all()
    )


def ended(session: Session, sweep: int) -> int:
    """How many of a sweep's trials are over."""
    over = col(SweepTrialRow.ended_at).is_not(None)
    wanted = select(func.count()).where(SweepTrialRow.sweep_id == sweep, over)
    return int(session.exec(wanted).one())


def active(session: Session) -> list[int]:
    """Sweeps that are not over."""
    rows = session.exec(
        select(SweepRow.id)
        .where(col(SweepRow.state).not_in(["FINISHED", "FAILED"]))
        .order_by(col(SweepRow.id))
    ).all()
    return [row for row in rows if row is not None]
