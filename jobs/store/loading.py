"""From rows of the registry to the jobs that `jobs.life.lifecycle` decides about."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Row
from sqlmodel import Session, col, func, select

from jobs.base.states import TERMINAL
from jobs.life.lifecycle import Allocation, Attempt, Failure, Job
from jobs.store.tables import AllocationRow, AttemptRow, JobRow


def load_job(session: Session, row: JobRow) -> Job:
    """The lifecycle's view of a stored job: its newest attempt with its allocations."""
    attempt = session.exec(
        select(AttemptRow)
        .where(AttemptRow.job_id == row.id)
        .order_by(col(AttemptRow.number).desc())
        .limit(1)
    ).first()
    allocations: Sequence[AllocationRow] = ()
    if attempt is not None:
        allocations = session.exec(
            select(AllocationRow).where(AllocationRow.attempt_id == attempt.id)
        ).all()
    return _job(row, attempt, allocations)


def new_job(row: JobRow | Row[Any]) -> Job:
    """A job that has not had an attempt yet."""
    return _job(row, None, ())


def load_unfinished(session: Session) -> list[tuple[JobRow, Job]]:
    """Every job that still wants something: not terminal, or with a reservation to give back. A queue
    may be long, so it takes three queries however many there are."""
    unreleased = select(AttemptRow.job_id).where(col(AttemptRow.released).is_(False))
    wanted = col(JobRow.state).not_in(sorted(TERMINAL)) | col(JobRow.id).in_(unreleased)
    rows = session.exec(select(JobRow).where(wanted)).all()
    newest = (
        select(func.max(AttemptRow.id))
        .select_from(AttemptRow)
        .join(JobRow, col(AttemptRow.job_id) == col(JobRow.id))
        .where(wanted)
        .group_by(col(AttemptRow.job_id))
    )
    attempts = session.exec(select(AttemptRow).where(col(AttemptRow.id).in_(newest))).all()
    allocations = session.exec(
        select(AllocationRow).where(col(AllocationRow.attempt_id).in_(newest))
    ).all()
    of_job = {attempt.job_id: attempt for attempt in attempts}
    of_attempt: dict[int | None, list[AllocationRow]] = {}
    for allocation in allocations:
        of_attempt.setdefault(allocation.attempt_id, []).append(allocation)
    found = []
    for row in rows:
        attempt = of_job.get(row.id or 0)
        found.append((row, _job(row, attempt, of_attempt.get(attempt.id, []) if attempt else [])))
    return found


def _job(
    row: JobRow | Row[Any], attempt: AttemptRow | None, allocations: Iterable[AllocationRow]
) -> Job:
    assert row.id is not None
    return Job(
        id=row.id,
        state=row.state,  # type: ignore[arg-type]  # only JobState values are ever stored
        reason=row.reason,
        cancel=row.intent == "cancel",
        attempt=_attempt(attempt, allocations) if attempt is not None else None,
        attempts=row.attempts,
        max_restarts=int(row.spec.get("max_restarts", 0)),
        endless=_endless(row.spec),
        restarts_left=row.restarts_left,
        losses=row.losses,
        not_before=row.not_before,
        started_at=row.started_at,
        ended_at=row.ended_at,
    )


def _endless(spec: Mapping[str, Any]) -> bool:
    stream = spec.get("stream")
    return stream is not None and not stream.get("end", False)


def _attempt(row: AttemptRow, allocations: Iterable[AllocationRow]) -> Attempt:
    assert row.id is not None
    in_order = sorted(allocations, key=lambda allocation: allocation.node_rank)
    return Attempt(
        number=row.number,
        epoch=row.id,
        state=row.state,  # type: ignore[arg-type]
        allocations=tuple(
            Allocation(one.node, one.phase, one.outcome, boot=one.boot)  # type: ignore[arg-type]
            for one in in_order
        ),
        ending=row.ending,  # type: ignore[arg-type]
        failure=_failure(row.failure),
        placed_at=row.placed_at,
        started_at=row.started_at,
        ended_at=row.ended_at,
        released=row.released,
        identity=row.identity,
        waits=row.waits,
    )


def _failure(data: Mapping[str, Any] | None) -> Failure | None:
    if data is None:
        return None
    return Failure(data["node"], data["reason"], data["rank"], data["at"])
