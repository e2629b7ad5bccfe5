"""Copied checkpoints in the registry. As in `jobs/store/writing.py`, nothing here commits."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from sqlmodel import Session, col, delete, select

from jobs.base.states import TERMINAL
from jobs.store.copytables import CopyRow
from jobs.store.tables import AttemptRow, JobRow


@dataclass(frozen=True, slots=True)
class Copy:
    """A checkpoint that the head has (`CopyRow`). `attempt` is the number of the one that wrote it."""

    id: int
    job: int
    attempt: int
    digest: str
    names: tuple[str, ...]
    step: int | None
    at: float
    copied_at: float
    seconds: float
    files: int
    size: int
    sent: int
    sources: dict[str, float]


def load(session: Session) -> list[Copy]:
    """All of them, oldest first."""
    found = session.exec(
        select(CopyRow, AttemptRow.number)
        .join(AttemptRow, col(AttemptRow.id) == col(CopyRow.attempt_id))
        .order_by(col(CopyRow.id))
    ).all()
    return [_copy(row, number) for row, number in found]


def _copy(row: CopyRow, number: int) -> Copy:
    assert row.id is not None
    return Copy(
        id=row.id,
        job=row.job_id,
        attempt=number,
        digest=row.digest,
        names=tuple(row.names),
        step=row.step,
        at=row.at,
        copied_at=row.copied_at,
        seconds=row.seconds,
        files=row.files,
        size=row.size,
        sent=row.sent,
        sources=dict(row.sources),
    )


def record(session: Session, row: CopyRow, drop: Collection[int]) -> Copy:
    """Store a copy, and forget others by their ids."""
    forget(session, drop)
    session.add(row)
    session.flush()
    number = session.exec(select(AttemptRow.number).where(AttemptRow.id == row.attempt_id)).one()
    return _copy(row, number)


def forget(session: Session, ids: Collection[int]) -> None:
    if ids:
        session.exec(delete(CopyRow).where(col(CopyRow.id).in_(list(ids))))


def of_ended(session: Session, before: float) -> list[int]:
    """The ids of copies of jobs that have ended before then (unix time), oldest first."""
    found = session.exec(
        select(CopyRow.id)
        .join(JobRow, col(JobRow.id) == col(CopyRow.job_id))
        .where(col(JobRow.state).in_(sorted(TERMINAL)), col(JobRow.ended_at) < before)
        .order_by(col(JobRow.ended_at), col(CopyRow.id))
    ).all()
    return [number for number in found if number is not None]
