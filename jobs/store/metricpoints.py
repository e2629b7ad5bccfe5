"""Metric points in the registry: stored from the lines that a script logs, and read.

What one fetch brings of a rank is one row, its points as columns of numbers: a row, an index entry and
a Python object for each point would cost ten times as much, and points come by the thousand. Like
`jobs/store/writing.py`, what writes takes an open Session and never commits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from sqlalchemy import Table, bindparam, text
from sqlmodel import Session, col, select

from jobs.base.times import rfc3339
from jobs.metrics.points import Point, Points, by_rank
from jobs.store import runfacts
from jobs.store import writing as registry
from jobs.store.tables import AttemptRow, JobRow, MetricChunkRow, RankRow
from jobs.wire.views import MetricPoint, SeriesPoint

_PLACES = 1 << 24
"""More than the points of any chunk: a cursor is a chunk's id times this, plus points read of it."""

# -- writing --------------------------------------------------------------------------------------

_CHUNKS: Table = MetricChunkRow.__table__  # type: ignore[attr-defined]
_RANKS: Table = RankRow.__table__  # type: ignore[attr-defined]
_JOBS: Table = JobRow.__table__  # type: ignore[attr-defined]

_OFFSET = _RANKS.select().with_only_columns(_RANKS.c.metric_offset).where(
    _RANKS.c.attempt_id == bindparam("epoch"), _RANKS.c.rank == bindparam("number")
)  # fmt: skip
_MOVE = (
    _RANKS.update()
    .where(_RANKS.c.attempt_id == bindparam("epoch"), _RANKS.c.rank == bindparam("number"))
    .values(metric_offset=bindparam("offset"))
)
_LATEST = text(
    "INSERT INTO metric_latest (attempt_id, name, rank, step, at, value)"
    " VALUES (:epoch, :name, :rank, :step, :at, :value)"
    " ON CONFLICT (attempt_id, name, rank)"
    " DO UPDATE SET step = excluded.step, at = excluded.at, value = excluded.value"
)
_LOWEST = text("SELECT min(rank) FROM metric_latest WHERE attempt_id = :epoch AND name = :name")
_SPEC = _JOBS.select().with_only_columns(_JOBS.c.spec).where(_JOBS.c.id == bindparam("job"))
_OBJECTIVE = (
    _JOBS.update()
    .where(_JOBS.c.id == bindparam("job"))
    .values(objective=bindparam("objective"), revision=bindparam("revision"))
)


@dataclass(frozen=True, slots=True)
class Ingested:
    """`points`, by the rank of the process that logged them, and `facts` are those that are new; `offset` is
    how many bytes of the rank's file are stored by now, None for a rank that is not known."""

    points: Mapping[int, Points]
    offset: int | None
    facts: Sequence[runfacts.Fact] = ()


def ingest_metrics(session: Session, epoch: int, rank: int, offset: int, data: bytes) -> Ingested:
    """Store the part of a metrics chunk that is not stored yet; exactly once by (epoch, rank, offset).

    Args:
        offset: byte offset of `data` in the rank's metrics file.

    Returns:
        Without points for a chunk that is known, or that would leave a gap.
    """
    connection = session.connection()
    where = {"epoch": epoch, "number": rank}
    known = connection.execute(_OFFSET, where).scalar()
    if known is None or offset > known or offset + len(data) <= known:
        return Ingested({}, known)
    end = offset + len(data)
    lines, facts = runfacts.split(data[known - offset :])
    found = {number: points for number, points in by_rank(lines, rank).items() if len(points)}
    connection.execute(_MOVE, {**where, "offset": end})
    for number, points in found.items():
        connection.execute(
            _CHUNKS.insert(),
            {"attempt_id": epoch, "rank": number, "names": points.names, "data": points.to_bytes()},
        )
        connection.execute(
            _LATEST,
            [
                {
                    "epoch": epoch,
                    "name": name,
                    "rank": number,
                    "step": p.step,
                    "at": p.at,
                    "value": p.value,
                }
                for name, p in points.newest().items()
            ],
        )
    return Ingested(found, end, facts)


def note_objective(session: Session, job: int, epoch: int, points: Mapping[int, Points]) -> None:
    """Keep the newest value of the job's objective on its row, where lists show it: that of the lowest rank
    that logs it.

    Args:
        points: what was ingested of an attempt, by rank.
    """
    if not points:
        return
    connection = session.connection()
    spec: Mapping[str, Any] = connection.execute(_SPEC, {"job": job}).scalar() or {}
    metric = (spec.get("objective") or {}).get("metric") or ""
    rank = min((rank for rank, of_rank in points.items() if of_rank.of(metric)), default=None)
    if (
        rank is None
        or connection.execute(_LOWEST, {"epoch": epoch, "name": metric}).scalar() != rank
    ):
        return
    point = points[rank][points[rank].of(metric)[-1]]
    objective = {"value": point.value, "step": point.step, "at": point.at}
    revision = registry.next_revision(session)
    connection.execute(_OBJECTIVE, {"job": job, "objective": objective, "revision": revision})


# -- reading --------------------------------------------------------------------------------------


def metric_points(
    session: Session, epoch: int, names: Sequence[str], after: int, limit: int
) -> tuple[list[MetricPoint], int]:
    """Points in the order they were recorded, from a place on.

    Args:
        names: the metrics that are wanted; all, when it is empty.
        after: 0, or what an earlier call returned.

    Returns:
        At most `limit` points, and the place from which to go on.
    """
    first, skip = divmod(after, _PLACES)
    query = (
        select(MetricChunkRow)
        .where(MetricChunkRow.attempt_id == epoch, col(MetricChunkRow.id) >= first)
        .order_by(col(MetricChunkRow.id))
        .execution_options(yield_per=8)
    )
    found: list[MetricPoint] = []
    with closing(session.exec(query)) as rows:
        for row in rows:
            assert row.id is not None
            start = skip if row.id == first else 0
            points = Points.from_bytes(row.names, row.data)
            for i in range(start, len(points)):
                if len(found) == limit:
                    return found, after
                after = row.id * _PLACES + i + 1
                point = points[i]
                if not names or point.name in names:
                    found.append(_view(point, row.rank))
    return found, after


def _view(point: Point, rank: int) -> MetricPoint:
    return {
        "name": point.name,
        "step": point.step,
        "at": rfc3339(point.at),
        "value": point.value,
        "rank": rank,
    }


def series(session: Session, epoch: int, names: Sequence[str]) -> dict[str, list[SeriesPoint]]:
    """Every metric as a line over its steps; of metrics that several ranks log, the lowest rank's."""
    rows = session.exec(
        select(MetricChunkRow)
        .where(MetricChunkRow.attempt_id == epoch)
        .order_by(col(MetricChunkRow.rank), col(MetricChunkRow.id))
        .execution_options(yield_per=8)
    )
    lines: dict[str, list[SeriesPoint]] = {}
    rank_of: dict[str, int] = {}
    for row in rows:
        points = Points.from_bytes(row.names, row.data)
        for name in row.names:
            if (names and name not in names) or rank_of.setdefault(name, row.rank) != row.rank:
                continue
            line = lines.setdefault(name, [])
            for point in points.only(name):
                line.append({"step": point.step, "at": point.at, "value": point.value})
    for line in lines.values():
        line.sort(key=itemgetter("step"))  # stable: of one step, the last logged comes last
    return dict(sorted(lines.items()))


def spans(session: Session, epoch: int) -> dict[tuple[str, int], tuple[int, int]]:
    """The lowest and the highest step that each rank of an attempt logged of each metric."""
    rows = session.exec(
        select(MetricChunkRow)
        .where(MetricChunkRow.attempt_id == epoch)
        .execution_options(yield_per=8)
    )
    found: dict[tuple[str, int], tuple[int, int]] = {}
    for row in rows:
        points = Points.from_bytes(row.names, row.data)
        for name in row.names:
            steps = [points.steps[i] for i in points.of(name)]
            low, high = found.get((name, row.rank), (steps[0], steps[0]))
            found[name, row.rank] = min(low, *steps), max(high, *steps)
    return found


def of_rank_0(
    session: Session, job: int, metric: str, cursor: int = 0
) -> tuple[int, list[tuple[int, float | None]]]:
    """What rank 0 of a job has logged of a metric since `cursor`, in all its attempts, as (step, value),
    and the cursor from there."""
    rows = session.exec(
        select(MetricChunkRow)
        .join(AttemptRow, col(MetricChunkRow.attempt_id) == col(AttemptRow.id))
        .where(
            AttemptRow.job_id == job,
            MetricChunkRow.rank == 0,
            col(MetricChunkRow.id) > cursor,
        )
        .order_by(col(MetricChunkRow.id))
    ).all()
    found: list[tuple[int, float | None]] = []
    for row in rows:
        cursor = row.id or cursor
        points = Points.from_bytes(row.names, row.data)
        found += [(point.step, point.value) for point in points.only(metric)]
    return cursor, found
