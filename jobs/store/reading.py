"""Reading the registry: rows become the views of `jobs/wire/views.py`. Nothing here writes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import sqlalchemy
from sqlalchemy import func
from sqlmodel import Session, col, or_, select

from jobs.base.errors import NotFound
from jobs.base.names import OUTPUT_EVENT, AttemptKey, RunRef, parse_run
from jobs.base.signals import signal_name
from jobs.base.states import TERMINAL
from jobs.base.times import maybe_rfc3339, rfc3339
from jobs.life.vocabulary import stalled
from jobs.metrics.series import in_order
from jobs.placement.nodehealth import Loss
from jobs.store.tables import (
    AllocationRow,
    ArtifactRow,
    AttemptRow,
    EventRow,
    JobRow,
    MetricLatestRow,
    RankRow,
)
from jobs.wire.views import (
    ArtifactView,
    AttemptView,
    EventView,
    FirstFailure,
    GitView,
    JobDetail,
    JobPage,
    JobView,
    MetricValue,
    RankView,
)

MAX_PAGE = 1000


@dataclass(frozen=True, slots=True)
class JobFilter:
    """What `GET /v1/jobs` may ask for. `states` may hold "active" for all that is not terminal."""

    states: Sequence[str] = ()
    user: str | None = None
    name: str | None = None
    text: str | None = None
    before: int | None = None
    limit: int = 50


def resolve(session: Session, text: str) -> RunRef:
    """The job (and attempt) that a person means: an id, or `last` for the newest job.

    Raises:
        InvalidInput: not an id.
        NotFound: no such job or attempt.
    """
    if text == "last":
        newest = session.exec(select(func.max(JobRow.id))).one()
        if newest is None:
            raise NotFound("there are no jobs yet", "Submit one: `qd submit -- echo hello`.")
        return RunRef(newest)
    ref = parse_run(f"j{text}" if text.isdigit() else text)
    row = session.get(JobRow, ref.job)
    if row is None:
        raise NotFound(f"there is no job j{ref.job}", "`qd jobs --all` lists them.")
    if ref.attempt is not None and not 1 <= ref.attempt <= row.attempts:
        raise NotFound(
            f"j{ref.job} has no attempt {ref.attempt}",
            f"It has had {row.attempts} so far." if row.attempts else "It has not started yet.",
        )
    return ref


VIEWED = (
    "id", "name", "user", "state", "reason", "priority", "nodes", "ranks", "gpus", "cpus", "kind",
    "tags", "attempts", "submitted_at", "started_at", "ended_at", "exit_code", "placed_on",
    "objective", "revision",
)  # fmt: skip
"""The columns of a job that its view is made of: all but the large ones."""


def job_view(row: JobRow | sqlalchemy.Row[Any]) -> JobView:
    """Args:
    row: a job, or a row of the table `jobs` with the columns of `VIEWED`.
    """
    objective = row.objective
    return {
        "id": f"j{row.id}",
        "name": row.name,
        "user": row.user,
        "state": row.state,  # type: ignore[typeddict-item]  # only JobState values are stored
        "reason": row.reason,
        "priority": row.priority,
        "nodes": row.nodes,
        "ranks": row.ranks,
        "gpus": row.gpus,
        "cpus": row.cpus,
        "kind": row.kind,
        "tags": row.tags,
        "attempt": row.attempts,
        "restarts": max(row.attempts - 1, 0),
        "submitted_at": rfc3339(row.submitted_at),
        "started_at": maybe_rfc3339(row.started_at),
        "ended_at": maybe_rfc3339(row.ended_at),
        "exit_code": row.exit_code,
        "placed_on": row.placed_on,
        "objective": {
            "value": objective["value"],
            "step": objective["step"],
            "at": rfc3339(objective["at"]),
        }
        if objective
        else None,
        "revision": row.revision,
        "stalled": stalled(row.state, row.reason),
    }


def get_job(session: Session, number: int) -> JobRow:
    row = session.get(JobRow, number)
    if row is None:
        raise NotFound(f"there is no job j{number}", "`qd jobs --all` lists them.")
    return row


def jobs_page(session: Session, wanted: JobFilter) -> JobPage:
    """One page of jobs, newest first."""
    query = select(JobRow)
    states = set(wanted.states)
    if "active" in states:
        query = query.where(
            or_(
                col(JobRow.state).not_in(sorted(TERMINAL)),
                col(JobRow.state).in_(sorted(states - {"active"})),
            )
        )
    elif states:
        query = query.where(col(JobRow.state).in_(sorted(states)))
    if wanted.user:
        query = query.where(JobRow.user == wanted.user)
    if wanted.name:
        query = query.where(JobRow.name == wanted.name)
    if wanted.text:
        query = query.where(
            or_(
                col(JobRow.name).icontains(wanted.text, autoescape=True),
                col(JobRow.reason).icontains(wanted.text, autoescape=True),
            )
        )
    total = session.exec(select(func.count()).select_from(query.subquery())).one()
    if wanted.before is not None:
        query = query.where(col(JobRow.id) < wanted.before)
    limit = max(1, min(wanted.limit, MAX_PAGE))
    rows = session.exec(query.order_by(col(JobRow.id).desc()).limit(limit + 1)).all()
    page = rows[:limit]
    more = len(rows) > limit
    return {
        "jobs": [job_view(row) for row in page],
        "next": f"j{page[-1].id}" if more else None,
        "total": total,
    }


def job_detail(session: Session, number: int, log_sizes: dict[tuple[int, int], int]) -> JobDetail:
    """Everything about one job.

    Args:
        log_sizes: (attempt number, rank) -> bytes of log, which the log store knows.
    """
    row = get_job(session, number)
    attempts = session.exec(
        select(AttemptRow).where(AttemptRow.job_id == number).order_by(col(AttemptRow.number))
    ).all()
    ids = [attempt.id for attempt in attempts]
    ranks = session.exec(
        select(RankRow).where(col(RankRow.attempt_id).in_(ids)).order_by(col(RankRow.rank))
    ).all()
    artifacts = session.exec(select(ArtifactRow).where(ArtifactRow.job_id == number)).all()
    allocations = session.exec(
        select(AllocationRow).where(
            col(AllocationRow.attempt_id).in_(ids), AllocationRow.left_files > 0
        )
    ).all()
    numbers = {attempt.id: attempt.number for attempt in attempts}
    return {
        **job_view(row),
        "spec": row.spec,
        "snapshot": row.snapshot,
        "image": row.image,
        "git": cast("GitView | None", row.git),
        "attempts": [
            _attempt_view(
                a,
                [r for r in ranks if r.attempt_id == a.id],
                [p for p in allocations if p.attempt_id == a.id],
                log_sizes,
                number,
            )
            for a in attempts
        ],
        "metrics": _latest(session, [i for i in ids if i is not None], row.spec),
        "artifacts": [_artifact_view(item, numbers[item.attempt_id]) for item in artifacts],
        "warnings": _warnings(session, number),
        "checkpoint": None,  # the controller knows more of it than the registry
    }


def _warnings(session: Session, job: int) -> list[str]:
    """What has become of its outputs that people have to see."""
    rows = session.exec(
        select(EventRow.message)
        .where(EventRow.job_id == job, EventRow.kind == OUTPUT_EVENT)
        .order_by(col(EventRow.id))
    ).all()
    return list(dict.fromkeys(rows))


def _artifact_view(row: ArtifactRow, attempt: int) -> ArtifactView:
    view: ArtifactView = {
        "name": row.name,
        "path": row.path,
        "digest": row.digest,
        "size": row.size,
        "attempt": attempt,
        "kind": row.kind,  # type: ignore[typeddict-item]
        "files": row.files,
    }
    return view if row.data is None else {**view, "data": row.data}


def _attempt_view(
    row: AttemptRow,
    ranks: Sequence[RankRow],
    allocations: Sequence[AllocationRow],
    log_sizes: dict[tuple[int, int], int],
    job: int,
) -> AttemptView:
    return {
        "id": f"j{job}.{row.number}",
        "number": row.number,
        "state": row.state,  # type: ignore[typeddict-item]
        "reason": row.reason,
        "started_at": maybe_rfc3339(row.started_at),
        "ended_at": maybe_rfc3339(row.ended_at),
        "first_failure": _first_failure(row, ranks),
        "ranks": [_rank_view(rank, log_sizes.get((row.number, rank.rank), 0)) for rank in ranks],
        "left": {
            "files": sum(one.left_files for one in allocations),
            "bytes": sum(one.left_bytes for one in allocations),
        },
    }


def _first_failure(row: AttemptRow, ranks: Sequence[RankRow]) -> FirstFailure | None:
    failure = row.failure
    if failure is None:
        return None
    number = failure["rank"]
    rank = next((rank for rank in ranks if rank.rank == number), None)
    return {
        "rank": number,
        "node": failure["node"],
        "exit_code": rank.exit_code if rank else None,
        "signal": _signal(rank.signal) if rank else None,
        "tail": [],  # filled from the log store by the caller
        "reason": failure["reason"],
    }


def losses(session: Session, since: float) -> list[Loss]:
    """Attempts lost to the infrastructure since a unix time, for which a node is known."""
    rows = session.exec(
        select(AttemptRow).where(AttemptRow.state == "LOST", col(AttemptRow.ended_at) > since)
    ).all()
    return [
        Loss(row.failure["node"], row.job_id, row.ended_at)
        for row in rows
        if row.failure is not None and row.ended_at is not None
    ]


def _signal(number: int | None) -> str | None:
    return signal_name(number) if number is not None else None


def _rank_view(row: RankRow, log_bytes: int) -> RankView:
    return {
        "rank": row.rank,
        "node": row.node,
        "local_rank": row.local_rank,
        "pid": row.pid,
        "gpus": row.gpus,
        "state": row.state,  # type: ignore[typeddict-item]
        "exit_code": row.exit_code,
        "signal": _signal(row.signal),
        "log_bytes": log_bytes,
    }


def _latest(
    session: Session, epochs: Sequence[int], spec: dict[str, Any]
) -> dict[str, MetricValue]:
    """The newest value of each metric over a job's attempts, oldest first; the objective leads."""
    found: dict[str, MetricValue] = {}
    for epoch in epochs:
        found |= latest_metrics(session, epoch)
    objective = (spec.get("objective") or {}).get("metric")
    return {name: found[name] for name in in_order(found, objective)}


def latest_metrics(session: Session, epoch: int) -> dict[str, MetricValue]:
    """The newest value of each metric; where several ranks log one, that of the lowest rank."""
    rows = session.exec(
        select(MetricLatestRow)
        .where(MetricLatestRow.attempt_id == epoch)
        .order_by(col(MetricLatestRow.rank).desc())
    ).all()
    return {row.name: {"value": row.value, "step": row.step, "at": rfc3339(row.at)} for row in rows}


def epochs_of(session: Session, job: int, attempt: int | None) -> list[int]:
    """The epochs of all attempts of a job, oldest first; with `attempt`, of that one."""
    query = select(AttemptRow.id).where(AttemptRow.job_id == job)
    if attempt is not None:
        query = query.where(AttemptRow.number == attempt)
    found = session.exec(query.order_by(col(AttemptRow.number))).all()
    return [epoch for epoch in found if epoch is not None]


def epoch_of(session: Session, job: int, attempt: int | None) -> tuple[int, int] | None:
    """(epoch, attempt number) of an attempt, the newest when `attempt` is None."""
    query = select(AttemptRow.id, AttemptRow.number).where(AttemptRow.job_id == job)
    if attempt is not None:
        query = query.where(AttemptRow.number == attempt)
    found = session.exec(query.order_by(col(AttemptRow.number).desc()).limit(1)).first()
    if found is None or found[0] is None:
        return None
    return found[0], found[1]


def epoch_by_key(session: Session, key: AttemptKey) -> int | None:
    """The epoch of the attempt that a key names; None when the registry never gave it."""
    return session.exec(
        select(AttemptRow.id)
        .join(JobRow, col(AttemptRow.job_id) == col(JobRow.id))
        .where(
            AttemptRow.job_id == key.job,
            AttemptRow.number == key.attempt,
            AttemptRow.identity == key.identity,
            JobRow.token == key.token,
        )
    ).first()


def events(
    session: Session,
    after: int,
    limit: int,
    job: int | None = None,
    *,
    newest: bool = False,
    before: int | None = None,
    text: str = "",
    severities: Sequence[str] = (),
) -> list[EventView]:
    """Events with an id above `after`, oldest first; with `newest`, the last `limit` of them.

    Args:
        before: only those with an id below it.
        text: only those that have it in their message, kind, node or user.
        severities: only those of one of these.
    """
    query = select(EventRow).where(col(EventRow.id) > after)
    if before is not None:
        query = query.where(col(EventRow.id) < before)
    if text:
        places = (EventRow.message, EventRow.kind, EventRow.node, EventRow.user)
        query = query.where(or_(*(col(place).icontains(text, autoescape=True) for place in places)))
    if severities:
        query = query.where(col(EventRow.severity).in_(severities))
    if job is not None:
        query = query.where(EventRow.job_id == job)
    order = col(EventRow.id).desc() if newest else col(EventRow.id)
    rows = list(session.exec(query.order_by(order).limit(limit)).all())
    return [event_view(row) for row in (reversed(rows) if newest else rows)]


def event_view(row: EventRow | sqlalchemy.Row[Any]) -> EventView:
    assert row.id is not None
    return {
        "id": row.id,
        "at": rfc3339(row.at),
        "kind": row.kind,
        "severity": row.severity,  # type: ignore[typeddict-item]
        "job": f"j{row.job_id}" if row.job_id is not None else None,
        "node": row.node,
        "user": row.user,
        "message": row.message,
    }


def state_counts(session: Session) -> dict[str, int]:
    """How many jobs are in each state that is not terminal."""
    rows = session.exec(
        select(JobRow.state, func.count())
        .where(col(JobRow.state).not_in(sorted(TERMINAL)))
        .group_by(JobRow.state)
    ).all()
    return dict(rows)
