"""Writing the registry: how domain objects become rows, inside the caller's transaction.

Every function takes an open Session and never commits: the controller's one writer does, so a status
change, its events and its audit row land together or not at all.

Statements are made once, for the tables and not the classes, and only what changed is written: a
registry that keeps up with hundreds of jobs a second has a millisecond for each.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, Table, bindparam, func, select, text
from sqlmodel import Session

from jobs.access.roles import Role
from jobs.base.errors import TimedOut
from jobs.life.lifecycle import Attempt, Job, Note, Placed, Result
from jobs.placement.gpus import gpus_of_rank
from jobs.store import reading
from jobs.store.loading import load_job, load_unfinished, new_job
from jobs.store.tables import (
    AllocationRow,
    ArtifactRow,
    AttemptRow,
    EventRow,
    JobRow,
    MetaRow,
    RankRow,
    SnapshotRow,
)
from jobs.wire.messages import AttemptReport
from jobs.wire.views import EventView, JobView

__all__ = [
    "Caller",
    "Saved",
    "Via",
    "add_events",
    "cluster_id",
    "event_values",
    "insert_events",
    "load_job",
    "load_unfinished",
    "lose_ranks",
    "mark",
    "meta",
    "new_epoch",
    "new_job",
    "newest_epoch",
    "newest_job",
    "next_job",
    "next_revision",
    "number_above",
    "save",
    "save_artifact",
    "save_ranks",
    "save_snapshot",
    "set_mark",
]


@dataclass(frozen=True, slots=True)
class Via:
    """A step of a pipeline that acts for somebody, and which try of it."""

    pipeline: int
    step: str
    number: int
    tries: int

    def to_json(self) -> dict[str, str]:
        """What the audit log says of it."""
        return {"pipeline": f"p{self.pipeline}", "step": self.step}


@dataclass(frozen=True, slots=True)
class Caller:
    """Who acts: as the kernel says, or as the gateway says of a key.

    Attributes:
        uid: the account's; for a person without one here, a number that no account has.
        role: what they may do.
        via: what acts in their name; None for themselves.
    """

    user: str
    uid: int
    role: Role = Role.ADMIN
    via: Via | None = None


_JOBS: Table = JobRow.__table__  # type: ignore[attr-defined]
_ATTEMPTS: Table = AttemptRow.__table__  # type: ignore[attr-defined]
_ALLOCATIONS: Table = AllocationRow.__table__  # type: ignore[attr-defined]
_RANKS: Table = RankRow.__table__  # type: ignore[attr-defined]
_EVENTS: Table = EventRow.__table__  # type: ignore[attr-defined]


def meta(session: Session, name: str, default: str) -> str:
    """A fact of this registry, set to `default` when it is new."""
    row = session.get(MetaRow, name)
    if row is None:
        row = MetaRow(name=name, value=default)
        session.add(row)
        session.flush()
    return row.value


def cluster_id(session: Session) -> str:
    """Names this registry: six letters and digits, made once. Part of every attempt's key."""
    return meta(session, "cluster_id", secrets.token_hex(3))


def mark(session: Session) -> str:
    """What a controller left here when it began; empty in a registry that none has begun with."""
    row = session.get(MetaRow, "mark")
    return row.value if row is not None else ""


def set_mark(session: Session, value: str) -> None:
    row = session.get(MetaRow, "mark") or MetaRow(name="mark", value="")
    row.value = value
    session.add(row)


_COUNT = text(
    "INSERT INTO meta (name, value) VALUES ('revision', :first) ON CONFLICT (name) DO UPDATE"
    " SET value = CAST(CAST(meta.value AS BIGINT) + CAST(:first AS BIGINT) AS VARCHAR)"
    " RETURNING value"
)


def next_revision(session: Session, count: int = 1) -> int:
    """Count on by so many; gives the newest."""
    return int(session.connection().execute(_COUNT, {"first": str(count)}).scalar_one())


# -- numbers --------------------------------------------------------------------------------------

_NEWEST_JOB = select(func.max(_JOBS.c.id))
_NEWEST_EPOCH = select(func.max(_ATTEMPTS.c.id))
_SEQUENCE = text(
    "SELECT setval(pg_get_serial_sequence('attempts', 'id'),"
    " GREATEST(nextval(pg_get_serial_sequence('attempts', 'id')), :epoch))"
)


def newest_job(session: Session) -> int:
    """The highest number that a job has, or that is known to have been given by another registry."""
    row = session.get(MetaRow, "newest_job")
    floor = int(row.value) if row is not None else 0
    return max(session.connection().execute(_NEWEST_JOB).scalar() or 0, floor)


def next_job(session: Session) -> int:
    """The number of the next job. Nobody else gives numbers: there is one writer."""
    return newest_job(session) + 1


def newest_epoch(session: Session) -> int:
    """The highest epoch of an attempt that is stored."""
    return session.connection().execute(_NEWEST_EPOCH).scalar() or 0


def number_above(session: Session, *, job: int = 0, epoch: int = 0) -> bool:
    """Give numbers above these only; whether they are higher than any that this registry gave. Then
    they were given by one that knew more: jobs and attempts that a backup does not have may still be on
    nodes, and their logs in the store.
    """
    higher = job > newest_job(session)
    if job > newest_job(session):
        row = session.get(MetaRow, "newest_job") or MetaRow(name="newest_job", value="")
        row.value = str(job)
        session.add(row)
        session.flush()
    if epoch <= newest_epoch(session):
        return higher
    connection = session.connection()
    if connection.dialect.name == "postgresql":
        connection.execute(_SEQUENCE, {"epoch": epoch})
        return True
    known = connection.execute(
        text("UPDATE sqlite_sequence SET seq = max(seq, :epoch) WHERE name = 'attempts'"),
        {"epoch": epoch},
    )
    if not known.rowcount:
        connection.execute(
            text("INSERT INTO sqlite_sequence (name, seq) VALUES ('attempts', :epoch)"),
            {"epoch": epoch},
        )
    return True


_DOUBTED = "doubted"


def doubt(session: Session) -> None:
    """Note that this registry is older than what was written last: of the jobs that it has now, attempts may
    run that it does not know of."""
    newest = session.connection().execute(_NEWEST_JOB).scalar() or 0
    session.merge(MetaRow(name=_DOUBTED, value=f"{newest} {newest_epoch(session)}"))


def doubted(session: Session) -> tuple[int, int]:
    """The highest number of a job and the highest epoch of which that was noted; zeros when never."""
    row = session.get(MetaRow, _DOUBTED)
    job, epoch = row.value.split() if row is not None else (0, 0)
    return int(job), int(epoch)


# -- events ---------------------------------------------------------------------------------------

_ADD_EVENTS = _EVENTS.insert().returning(*_EVENTS.c, sort_by_parameter_order=True)


def add_events(
    session: Session, job: int | None, notes: Sequence[Note], now: float
) -> list[EventView]:
    """Store notes as events; gives them as they are told, oldest first."""
    return insert_events(session, [event_values(job, note, now) for note in notes])


def event_values(job: int | None, note: Note, now: float) -> dict[str, Any]:
    """A note as a row of the table `events`."""
    return {
        "at": now,
        "kind": note.kind,
        "severity": note.severity,
        "job_id": job,
        "node": note.node,
        "user": note.user,
        "message": note.message,
    }


def insert_events(session: Session, rows: Sequence[Mapping[str, Any]]) -> list[EventView]:
    """Store rows that `event_values` made; gives them as they are told, in their order."""
    if not rows:
        return []
    found = session.connection().execute(_ADD_EVENTS, rows).all()
    return [reading.event_view(row) for row in found]


# -- what the lifecycle decides -------------------------------------------------------------------

_ADD_ATTEMPT = _ATTEMPTS.insert()
_ADD_ALLOCATION = _ALLOCATIONS.insert()
_VIEWED = [_JOBS.c[name] for name in reading.VIEWED]
_SET_JOB = _JOBS.update().where(_JOBS.c.id == bindparam("which")).returning(*_VIEWED)
_SET_ATTEMPT = _ATTEMPTS.update().where(_ATTEMPTS.c.id == bindparam("which"))
_SET_ALLOCATION = _ALLOCATIONS.update().where(
    _ALLOCATIONS.c.attempt_id == bindparam("which"),
    _ALLOCATIONS.c.node_rank == bindparam("allocation"),
)


@dataclass(frozen=True, slots=True)
class Saved:
    """The job and its new events as they are shown from now on."""

    view: JobView
    events: list[EventView]


def new_epoch(
    session: Session,
    job: int,
    number: int,
    now: float,
    identity: str = "",
    *,
    waits: bool = False,
) -> int:
    """Reserve an epoch by inserting the attempt's row. The lifecycle fills in the rest."""
    row = {
        "job_id": job,
        "number": number,
        "state": "PLACING",
        "ending": "",
        "reason": "",
        "released": False,
        "placed_at": now,
        "identity": identity,
        "waits": waits,
    }
    key = session.connection().execute(_ADD_ATTEMPT, row).inserted_primary_key
    assert key is not None
    return int(key[0])


def save(session: Session, before: Job, result: Result, event: object, now: float) -> Saved:
    """Store what `lifecycle.handle` decided, with its notes.

    Args:
        before: the job as it is stored.
    """
    session.flush()  # what the caller has added comes first
    connection = session.connection()
    job, attempt = result.job, result.job.attempt
    was, values = _job_values(before), _job_values(job)
    changed = {name: value for name, value in values.items() if value != was[name]}
    if job.terminal or before.terminal:
        changed["exit_code"] = _exit_code(session, job)
    changed["revision"] = next_revision(session)
    row: Row[Any] = connection.execute(_SET_JOB, {"which": job.id, **changed}).one()
    if attempt is None and before.attempt is not None:
        epoch = before.attempt.epoch
        connection.execute(_ALLOCATIONS.delete().where(_ALLOCATIONS.c.attempt_id == epoch))
        connection.execute(_RANKS.delete().where(_RANKS.c.attempt_id == epoch))
        connection.execute(_ATTEMPTS.delete().where(_ATTEMPTS.c.id == epoch))
    if attempt is not None and attempt != before.attempt:
        if isinstance(event, Placed):
            _add_parts(session, attempt)
        else:
            assert before.attempt is not None
            _save_attempt(session, before.attempt, attempt, job)
    return Saved(reading.job_view(row), add_events(session, job.id, result.notes, now))


def _job_values(job: Job) -> dict[str, Any]:
    """What of a job's row follows from the job."""
    return {
        "state": job.state,
        "reason": job.reason,
        "intent": "cancel" if job.cancel else "run",
        "attempts": job.attempts,
        "restarts_left": job.restarts_left,
        "losses": job.losses,
        "not_before": job.not_before,
        "started_at": job.started_at,
        "ended_at": job.ended_at,
        "placed_on": [one.node for one in job.attempt.allocations] if job.attempt else [],
    }


def _add_parts(session: Session, attempt: Attempt) -> None:
    allocations = [
        {
            "attempt_id": attempt.epoch,
            "node_rank": rank,
            "node": allocation.node,
            "phase": allocation.phase,
            "outcome": allocation.outcome,
            "boot": allocation.boot,
        }
        for rank, allocation in enumerate(attempt.allocations)
    ]
    session.connection().execute(_ADD_ALLOCATION, allocations)


def _save_attempt(session: Session, before: Attempt, attempt: Attempt, job: Job) -> None:
    was, values = _attempt_values(before), _attempt_values(attempt)
    changed = {name: value for name, value in values.items() if value != was[name]}
    failure = attempt.failure
    changed["reason"] = failure.reason if failure else job.reason if attempt.ending else ""
    connection = session.connection()
    connection.execute(_SET_ATTEMPT, {"which": attempt.epoch, **changed})
    moved = [
        {
            "which": attempt.epoch,
            "allocation": rank,
            "phase": allocation.phase,
            "outcome": allocation.outcome,
            "boot": allocation.boot,
        }
        for rank, allocation in enumerate(attempt.allocations)
        if allocation != before.allocations[rank]
    ]
    if moved:
        connection.execute(_SET_ALLOCATION, moved)


def _attempt_values(attempt: Attempt) -> dict[str, Any]:
    """What of an attempt's row follows from the attempt alone."""
    failure = attempt.failure
    return {
        "state": attempt.state,
        "ending": attempt.ending,
        "failure": {
            "node": failure.node,
            "reason": failure.reason,
            "rank": failure.rank,
            "at": failure.at,
        }
        if failure
        else None,
        "started_at": attempt.started_at,
        "ended_at": attempt.ended_at,
        "released": attempt.released,
    }


def _exit_code(session: Session, job: Job) -> int | None:
    """What `qd wait` ends with: the first failing rank's code, 128 + n for a signal, 1 without one.

    A job that its own time limit ended has the code of `timeout(1)`, whatever its ranks made of SIGTERM.
    """
    if job.state == "SUCCEEDED":
        return 0
    if job.state not in ("FAILED", "CANCELLED") or job.attempt is None:
        return 1 if job.state in ("FAILED", "CANCELLED") else None
    if job.state == "FAILED" and job.attempt.ending == "timeout":
        return TimedOut.exit_code
    failure = job.attempt.failure
    if job.state == "FAILED" and failure is not None and failure.rank is not None:
        row = session.connection().execute(
            _RANKS.select().where(
                _RANKS.c.attempt_id == job.attempt.epoch, _RANKS.c.rank == failure.rank
            )
        ).first()  # fmt: skip
        if row is not None and row.signal:
            return 128 + int(row.signal)
        if row is not None and row.exit_code:
            return int(row.exit_code)
    return 1


# -- what nodes tell ------------------------------------------------------------------------------

_SAVE_RANK = text(
    "INSERT INTO ranks"
    " (attempt_id, rank, node, local_rank, pid, gpus, state, exit_code, signal, metric_offset)"
    " VALUES (:epoch, :rank, :node, :local_rank, :pid, :gpus, :state, :exit_code, :signal, 0)"
    " ON CONFLICT (attempt_id, rank) DO UPDATE SET node = excluded.node, pid = excluded.pid,"
    " gpus = excluded.gpus, state = excluded.state, exit_code = excluded.exit_code,"
    " signal = excluded.signal"
).bindparams(bindparam("gpus", type_=_RANKS.c.gpus.type))


_SAVE_LEFT = (
    _ALLOCATIONS.update()
    .where(
        _ALLOCATIONS.c.attempt_id == bindparam("epoch"), _ALLOCATIONS.c.node == bindparam("on_node")
    )
    .values(left_files=bindparam("files"), left_bytes=bindparam("size"))
)


def save_ranks(session: Session, epoch: int, node: str, report: AttemptReport) -> None:
    """Store what a node says of its ranks: pids, GPUs, how each ended, what they left there."""
    ended = report["state"] == "ended"
    running = "LOST" if ended else "RUNNING"
    rows = []
    for rank in report["ranks"]:
        over = rank["exit_code"] is not None or rank["signal"] is not None
        rows.append(
            {
                "epoch": epoch,
                "rank": rank["rank"],
                "node": node,
                "local_rank": rank["local_rank"],
                "pid": rank["pid"],
                "gpus": gpus_of_rank(report["gpus"], len(report["ranks"]), rank["local_rank"]),
                "exit_code": rank["exit_code"],
                "signal": rank["signal"],
                "state": "EXITED" if over else running if rank["pid"] is not None else "PENDING",
            }
        )
    if rows:
        session.connection().execute(_SAVE_RANK, rows)
    left = report.get("left")
    if left is not None and left["files"]:
        where = {"epoch": epoch, "on_node": node}
        values = {"files": left["files"], "size": left["bytes"]}
        session.connection().execute(_SAVE_LEFT, {**where, **values})


_LOSE_RANKS = (
    _RANKS.update()
    .where(
        _RANKS.c.attempt_id == bindparam("epoch"),
        _RANKS.c.node == bindparam("on_node"),
        _RANKS.c.state.in_(("PENDING", "RUNNING")),
    )
    .values(state="LOST")
)


def lose_ranks(session: Session, epoch: int, node: str) -> None:
    """The node is gone: its ranks that had not ended are LOST."""
    session.connection().execute(_LOSE_RANKS, {"epoch": epoch, "on_node": node})


def save_snapshot(session: Session, digest: str, files: int, size: int, now: float) -> None:
    if session.get(SnapshotRow, digest) is None:
        session.add(SnapshotRow(digest=digest, files=files, size=size, created_at=now))


def save_artifact(session: Session, row: ArtifactRow) -> None:
    session.merge(row)
