"""Writing the registry: how domain objects become rows, inside the caller's transaction.

Every function takes an open Session and never commits: the controller's one writer does, so a status
change, its events and its audit row land together or not at all.
"""

from __future__ import annotations

import json
import math
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Table, delete, update
from sqlmodel import Session, col, select

from jobs import audit
from jobs.gpus import gpus_of_rank
from jobs.lifecycle import Attempt, Failure, Job, Note, Part, Placed, Result
from jobs.states import TERMINAL
from jobs.tables import (
    ArtifactRow,
    AttemptRow,
    EventRow,
    JobRow,
    MetaRow,
    MetricLatestRow,
    MetricPointRow,
    PartRow,
    RankRow,
    SnapshotRow,
)
from jobs.wire import AttemptReport


@dataclass(frozen=True, slots=True)
class Caller:
    """Who acts, as the kernel says."""

    user: str
    uid: int


@dataclass(frozen=True, slots=True)
class Submission:
    """A job as it is asked for; `spec` is a checked spec in JSON form."""

    name: str
    kind: str
    spec: Mapping[str, Any]
    nodes: int
    ranks: int
    gpus: float
    cpus: float
    priority: int
    max_restarts: int
    tags: Mapping[str, str] = field(default_factory=dict)
    key: str | None = None
    snapshot: str | None = None
    git: Mapping[str, Any] | None = None


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


def next_revision(session: Session) -> int:
    row = session.get(MetaRow, "revision")
    if row is None:
        row = MetaRow(name="revision", value="0")
    row.value = str(int(row.value) + 1)
    session.add(row)
    return int(row.value)


def create_job(
    session: Session, submission: Submission, caller: Caller, now: float
) -> tuple[int, bool]:
    """Insert a job, or find the one that this caller submitted under the same key.

    Returns:
        The job's number, and whether it is new.
    """
    if submission.key is not None:
        known = session.exec(
            select(JobRow.id).where(JobRow.uid == caller.uid, JobRow.key == submission.key)
        ).first()
        if known is not None:
            return known, False
    row = JobRow(
        name=submission.name,
        user=caller.user,
        uid=caller.uid,
        key=submission.key,
        kind=submission.kind,
        state="QUEUED",
        priority=submission.priority,
        nodes=submission.nodes,
        ranks=submission.ranks,
        gpus=submission.gpus,
        cpus=submission.cpus,
        spec=dict(submission.spec),
        tags=dict(submission.tags),
        snapshot=submission.snapshot,
        git=dict(submission.git) if submission.git else None,
        submitted_at=now,
        restarts_left=submission.max_restarts,
        revision=next_revision(session),
    )
    session.add(row)
    session.flush()
    assert row.id is not None
    add_events(
        session,
        row.id,
        [Note("job.submitted", f"submitted by {caller.user}", user=caller.user)],
        now,
    )
    audit.append(
        session,
        at=now,
        user=caller.user,
        uid=caller.uid,
        action="job.submit",
        target=f"j{row.id}",
        data={"name": row.name, "snapshot": row.snapshot},
    )
    return row.id, True


def add_events(session: Session, job: int | None, notes: Sequence[Note], now: float) -> None:
    for note in notes:
        session.add(
            EventRow(
                at=now,
                kind=note.kind,
                severity=note.severity,
                job_id=job,
                node=note.node,
                user=note.user,
                message=note.message,
            )
        )


def new_epoch(session: Session, job: int, number: int, now: float) -> int:
    """Reserve an epoch by inserting the attempt's row. The lifecycle fills in the rest."""
    row = AttemptRow(job_id=job, number=number, state="PLACING", placed_at=now)
    session.add(row)
    session.flush()
    assert row.id is not None
    return row.id


def load_job(session: Session, row: JobRow) -> Job:
    """The lifecycle's view of a stored job: its newest attempt with its parts."""
    attempt_row = session.exec(
        select(AttemptRow)
        .where(AttemptRow.job_id == row.id)
        .order_by(col(AttemptRow.number).desc())
        .limit(1)
    ).first()
    attempt = None
    if attempt_row is not None:
        parts = session.exec(
            select(PartRow)
            .where(PartRow.attempt_id == attempt_row.id)
            .order_by(col(PartRow.node_rank))
        ).all()
        attempt = _load_attempt(attempt_row, parts)
    assert row.id is not None
    return Job(
        id=row.id,
        state=row.state,  # type: ignore[arg-type]  # only JobState values are ever stored
        reason=row.reason,
        cancel=row.intent == "cancel",
        attempt=attempt,
        attempts=row.attempts,
        max_restarts=int(row.spec.get("max_restarts", 0)),
        restarts_left=row.restarts_left,
        losses=row.losses,
        not_before=row.not_before,
        started_at=row.started_at,
        ended_at=row.ended_at,
    )


def _load_attempt(row: AttemptRow, parts: Sequence[PartRow]) -> Attempt:
    assert row.id is not None
    return Attempt(
        number=row.number,
        epoch=row.id,
        state=row.state,  # type: ignore[arg-type]
        parts=tuple(Part(part.node, part.phase, part.outcome) for part in parts),  # type: ignore[arg-type]
        ending=row.ending,  # type: ignore[arg-type]
        failure=_load_failure(row.failure),
        placed_at=row.placed_at,
        started_at=row.started_at,
        ended_at=row.ended_at,
        released=row.released,
    )


def _load_failure(data: Mapping[str, Any] | None) -> Failure | None:
    if data is None:
        return None
    return Failure(data["node"], data["reason"], data["rank"], data["at"])


def load_unfinished(session: Session) -> list[tuple[JobRow, Job]]:
    """Every job that still wants something: not terminal, or with a reservation to give back."""
    unreleased = select(AttemptRow.job_id).where(col(AttemptRow.released).is_(False))
    rows = session.exec(
        select(JobRow).where(
            col(JobRow.state).not_in(sorted(TERMINAL)) | col(JobRow.id).in_(unreleased)
        )
    ).all()
    return [(row, load_job(session, row)) for row in rows]


def save(session: Session, before: Job, result: Result, event: object, now: float) -> None:
    """Store what `lifecycle.handle` decided, with its notes."""
    job, attempt = result.job, result.job.attempt
    placed_on = [part.node for part in attempt.parts] if attempt else []
    values: dict[str, Any] = {
        "state": job.state,
        "reason": job.reason,
        "intent": "cancel" if job.cancel else "run",
        "attempts": job.attempts,
        "restarts_left": job.restarts_left,
        "losses": job.losses,
        "not_before": job.not_before,
        "started_at": job.started_at,
        "ended_at": job.ended_at,
        "placed_on": placed_on,
        "exit_code": _exit_code(session, job),
        "revision": next_revision(session),
    }
    session.execute(update(JobRow).where(col(JobRow.id) == job.id).values(**values))
    if attempt is None and before.attempt is not None:
        session.execute(delete(PartRow).where(col(PartRow.attempt_id) == before.attempt.epoch))
        session.execute(delete(RankRow).where(col(RankRow.attempt_id) == before.attempt.epoch))
        session.execute(delete(AttemptRow).where(col(AttemptRow.id) == before.attempt.epoch))
    if attempt is not None and attempt != before.attempt:
        _save_attempt(session, attempt, job, new=isinstance(event, Placed))
    add_events(session, job.id, result.notes, now)


def _save_attempt(session: Session, attempt: Attempt, job: Job, *, new: bool) -> None:
    failure = attempt.failure
    session.execute(
        update(AttemptRow)
        .where(col(AttemptRow.id) == attempt.epoch)
        .values(
            state=attempt.state,
            ending=attempt.ending,
            reason=failure.reason if failure else job.reason if attempt.ending else "",
            failure={
                "node": failure.node,
                "reason": failure.reason,
                "rank": failure.rank,
                "at": failure.at,
            }
            if failure
            else None,
            started_at=attempt.started_at,
            ended_at=attempt.ended_at,
            released=attempt.released,
        )
    )
    if new:
        session.add_all(
            PartRow(attempt_id=attempt.epoch, node_rank=rank, node=part.node, phase=part.phase)
            for rank, part in enumerate(attempt.parts)
        )
        return
    for rank, part in enumerate(attempt.parts):
        session.execute(
            update(PartRow)
            .where(col(PartRow.attempt_id) == attempt.epoch, col(PartRow.node_rank) == rank)
            .values(phase=part.phase, outcome=part.outcome)
        )


def _exit_code(session: Session, job: Job) -> int | None:
    """What `qd wait` ends with: the first failing rank's code, 128 + n for a signal, 1 without one."""
    if job.state == "SUCCEEDED":
        return 0
    if job.state not in ("FAILED", "CANCELLED") or job.attempt is None:
        return 1 if job.state in ("FAILED", "CANCELLED") else None
    failure = job.attempt.failure
    if job.state == "FAILED" and failure is not None and failure.rank is not None:
        row = session.get(RankRow, (job.attempt.epoch, failure.rank))
        if row is not None and row.signal:
            return 128 + row.signal
        if row is not None and row.exit_code:
            return row.exit_code
    return 1


def save_ranks(session: Session, epoch: int, node: str, report: AttemptReport) -> None:
    """Store what a node says of its ranks: pids, GPUs, how each ended."""
    ended = report["state"] == "ended"
    for rank in report["ranks"]:
        over = rank["exit_code"] is not None or rank["signal"] is not None
        running = "LOST" if ended else "RUNNING"
        row = session.get(RankRow, (epoch, rank["rank"])) or RankRow(
            attempt_id=epoch, rank=rank["rank"], node=node, local_rank=rank["local_rank"]
        )
        row.node = node
        row.pid = rank["pid"]
        row.gpus = gpus_of_rank(report["gpus"], len(report["ranks"]), rank["local_rank"])
        row.exit_code = rank["exit_code"]
        row.signal = rank["signal"]
        row.state = "EXITED" if over else running if rank["pid"] is not None else "PENDING"
        session.add(row)


def lose_ranks(session: Session, epoch: int, node: str) -> None:
    """The node is gone: its ranks that had not ended are LOST."""
    session.execute(
        update(RankRow)
        .where(
            col(RankRow.attempt_id) == epoch,
            col(RankRow.node) == node,
            col(RankRow.state).in_(("PENDING", "RUNNING")),
        )
        .values(state="LOST")
    )


def save_snapshot(session: Session, digest: str, files: int, size: int, now: float) -> None:
    if session.get(SnapshotRow, digest) is None:
        session.add(SnapshotRow(digest=digest, files=files, size=size, created_at=now))


def save_artifact(session: Session, row: ArtifactRow) -> None:
    session.merge(row)


_POINTS: Table = MetricPointRow.__table__  # type: ignore[attr-defined]
_STEPS = 2**63
"""Steps are stored in 64 bits."""


@dataclass(frozen=True, slots=True)
class Point:
    name: str
    step: int
    at: float
    value: float | None


def _items(lines: list[bytes]) -> list[Any]:
    """The JSON of each line; None for a line that is none."""
    try:  # all at once costs a fifth of one by one
        items = json.loads(b"[" + b",".join(lines) + b"]")
        if len(items) == len(lines):
            return list(items)
    except (ValueError, RecursionError):
        pass
    return [_item(line) for line in lines]


def _item(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def parse_points(data: bytes) -> list[Point]:
    """Read whole NDJSON lines as `quarterdeck.log` writes them. A line that is not one, or holds what
    no database stores, is skipped: it can only be the user's own doing, and must not stop the lines
    behind it. A value that is not finite is None."""
    points = []
    for item in _items(data.splitlines()):
        try:
            step, at, value = int(item["s"]), float(item["t"]), item["v"]
            number = None if value is None else float(value)
            name = str(item["n"])[:200].replace("\0", "\ufffd")
            name.encode()  # raises UnicodeEncodeError, a ValueError, for half a surrogate pair
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            continue
        if not -_STEPS <= step < _STEPS or not math.isfinite(at):
            continue
        finite = number is not None and math.isfinite(number)
        points.append(Point(name, step, at, number if finite else None))
    return points


def ingest_metrics(
    session: Session, epoch: int, rank: int, offset: int, data: bytes
) -> list[Point]:
    """Store the part of a metrics chunk that is not stored yet; exactly once by (epoch, rank, offset).

    Args:
        offset: byte offset of `data` in the rank's metrics file.

    Returns:
        The points that are new. Empty for a chunk that is known, or that would leave a gap.
    """
    row = session.get(RankRow, (epoch, rank))
    if row is None or offset > row.metric_offset or offset + len(data) <= row.metric_offset:
        return []
    points = parse_points(data[row.metric_offset - offset :])
    row.metric_offset = offset + len(data)
    session.add(row)
    if not points:
        return []
    # On the table, not the class: the ORM would take twice the time over a thousand rows.
    session.execute(
        _POINTS.insert(),
        [
            {
                "attempt_id": epoch,
                "rank": rank,
                "name": p.name,
                "step": p.step,
                "at": p.at,
                "value": p.value,
            }
            for p in points
        ],
    )
    for point in {point.name: point for point in points}.values():
        session.merge(
            MetricLatestRow(
                attempt_id=epoch,
                name=point.name,
                rank=rank,
                step=point.step,
                at=point.at,
                value=point.value,
            )
        )
    return points


def note_objective(session: Session, job: int, points: Sequence[Point]) -> None:
    """Keep the newest value of the job's objective on its row, where lists show it."""
    if not points:
        return
    row = session.get(JobRow, job)
    objective = (row.spec.get("objective") if row is not None else None) or {}
    metric = objective.get("metric")
    for point in reversed(points):
        if row is not None and point.name == metric:
            row.objective = {"value": point.value, "step": point.step, "at": point.at}
            row.revision = next_revision(session)
            session.add(row)
            return
