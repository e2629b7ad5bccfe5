"""Metric points: from the lines a script logs to rows of the registry, and back.

What one fetch brings of a rank is one row, its points as columns of numbers: a row, an index entry and
a Python object for each point would cost ten times as much, and points come by the thousand. Like
`jobs/store/writing.py`, what writes takes an open Session and never commits.
"""

from __future__ import annotations

import json
import math
import sys
from array import array
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import count
from operator import itemgetter
from typing import Any

from sqlalchemy import Table, bindparam, text
from sqlmodel import Session, col, select

from jobs.base.errors import Damaged
from jobs.base.times import rfc3339
from jobs.store import runfacts
from jobs.store import writing as registry
from jobs.store.tables import AttemptRow, JobRow, MetricChunkRow, RankRow
from jobs.wire.views import MetricPoint, SeriesPoint

MAX_NAME = 200
"""Characters of a metric's name that are kept."""
_STEPS = 2**63
"""Steps are stored in 64 bits."""
_PLACES = 1 << 24
"""More than the points of any chunk: a cursor is a chunk's id times this, plus points read of it."""
_NAN = math.nan
_FORMAT = b"\x01"
"""Version of the format in which points are stored."""


@dataclass(frozen=True, slots=True)
class Point:
    name: str
    step: int
    at: float  # unix time
    value: float | None  # None for NaN and infinities


@dataclass(frozen=True, slots=True)
class Points:
    """Points in the order in which they were logged, by column.

    Attributes:
        names: the different names.
        which: of each point, the index of its name; empty where there is but one name.
        values: NaN where there is no value.
    """

    names: list[str]
    which: array[int]  # unsigned, 32 bits
    steps: array[int]  # signed, 64 bits
    ats: array[float]  # unix times
    values: array[float]

    def __len__(self) -> int:
        return len(self.steps)

    def __getitem__(self, i: int) -> Point:
        value = self.values[i]
        name = self.names[self.which[i] if self.which else 0]
        return Point(name, self.steps[i], self.ats[i], None if math.isnan(value) else value)

    def __iter__(self) -> Iterator[Point]:
        return map(self.__getitem__, range(len(self)))

    def of(self, name: str) -> Sequence[int]:
        """The indices of a metric's points."""
        if name not in self.names:
            return ()
        if not self.which:
            return range(len(self))
        wanted = self.names.index(name)
        return [i for i, which in enumerate(self.which) if which == wanted]

    def only(self, name: str) -> Iterator[Point]:
        """A metric's points."""
        return map(self.__getitem__, self.of(name))

    def newest(self) -> dict[str, Point]:
        """The last point of each metric."""
        if not self.which:
            return {self.names[0]: self[-1]} if len(self) else {}
        last = dict(zip(self.which, count(), strict=False))
        return {self.names[which]: self[i] for which, i in last.items()}

    def to_bytes(self) -> bytes:
        """All but the names: the version of the format, then column after column, little-endian."""
        columns = (self.steps, self.ats, self.values, self.which)
        return b"".join((_FORMAT, *(_portable(column).tobytes() for column in columns)))

    @classmethod
    def from_bytes(cls, names: list[str], data: bytes) -> Points:
        """The inverse of `to_bytes`. What was stored before there were versions is columns alone, whose
        length is a multiple of four.

        Raises Damaged for a version that is not known here.
        """
        at = len(data) % 4
        if at and data[:1] != _FORMAT:
            raise Damaged(
                f"metric points are stored in a format that this version does not know ({data[0]})",
                "A newer version of Quarterdeck has written them: use that one.",
            )
        size = (len(data) - at) // (24 if len(names) == 1 else 28)
        columns: tuple[array[Any], ...] = (array("q"), array("d"), array("d"), array("I"))
        for column in columns:
            end = at + size * column.itemsize
            column.frombytes(data[at:end])
            at = end
        steps, ats, values, which = (_portable(column) for column in columns)
        return cls(names, which, steps, ats, values)


def _portable(column: array[Any]) -> array[Any]:
    if sys.byteorder == "big":
        column = column[:]
        column.byteswap()
    return column


# -- parsing --------------------------------------------------------------------------------------


def parse_points(data: bytes) -> Points:
    """Read whole NDJSON lines as `quarterdeck.log` writes them. A line that is not one, or holds what
    no database stores, is skipped: it can only be the user's own doing, and must not stop the lines
    behind it."""
    try:
        return _parse_at_once(data.rstrip(b"\n"))
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        lines = data.splitlines()
        return _columns(point for line in lines if (point := _parse(line)) is not None)


def _parse_at_once(data: bytes) -> Points:
    """All lines in one go, at a tenth of the price of one by one. Raises whatever it is when there is
    anything odd about any of them."""
    items = json.loads(b"[" + data.replace(b"\n", b",") + b"]")
    if len(items) != data.count(b"\n") + 1:
        raise ValueError("a line that is no JSON by itself")
    names = list(map(itemgetter("n"), items))
    steps = array("q", map(itemgetter("s"), items))
    ats = array("d", map(itemgetter("t"), items))
    given = list(map(itemgetter("v"), items))
    if None in given:
        given = [_NAN if value is None else value for value in given]
    values = array("d", given)
    different = list(dict.fromkeys(names))
    if not math.isfinite(sum(ats)) or any(_kept(name) != name for name in different):
        raise ValueError("not as quarterdeck.log writes it")
    if not math.isfinite(sum(values)):
        values = array("d", (value if math.isfinite(value) else _NAN for value in values))
    which = array("I")
    if len(different) > 1:
        which = array("I", map({name: i for i, name in enumerate(different)}.__getitem__, names))
    return Points(different, which, steps, ats, values)


def _parse(line: bytes) -> Point | None:
    try:
        item = json.loads(line)
        step, at, value = int(item["s"]), float(item["t"]), item["v"]
        number = None if value is None else float(value)
        name = _kept(str(item["n"]))
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
    if not -_STEPS <= step < _STEPS or not math.isfinite(at):
        return None
    return Point(name, step, at, number if number is not None and math.isfinite(number) else None)


def _kept(name: str) -> str:
    """What of a name is kept. Raises UnicodeEncodeError, a ValueError, for half a surrogate pair."""
    name = name[:MAX_NAME]
    name.encode()
    if not name.isprintable():  # a terminal could act on it, and `quarterdeck.log` takes none such
        name = "".join(char if char.isprintable() else "\ufffd" for char in name)
    return name


def _columns(points: Iterator[Point]) -> Points:
    found = Points([], array("I"), array("q"), array("d"), array("d"))
    index: dict[str, int] = {}
    for point in points:
        found.which.append(index.setdefault(point.name, len(index)))
        found.steps.append(point.step)
        found.ats.append(point.at)
        found.values.append(_NAN if point.value is None else point.value)
    found.names.extend(index)
    if len(index) == 1:
        del found.which[:]
    return found


def pack(points: Sequence[Point]) -> Points:
    """Points as columns."""
    return _columns(iter(points))


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
_SPEC = _JOBS.select().with_only_columns(_JOBS.c.spec).where(_JOBS.c.id == bindparam("job"))
_OBJECTIVE = (
    _JOBS.update()
    .where(_JOBS.c.id == bindparam("job"))
    .values(objective=bindparam("objective"), revision=bindparam("revision"))
)


@dataclass(frozen=True, slots=True)
class Ingested:
    """`points` and `facts` are those that are new; `offset` is how many bytes of the rank's file are stored
    by now, None for a rank that is not known."""

    points: Points
    offset: int | None
    facts: Sequence[runfacts.Fact] = ()


def ingest_metrics(session: Session, epoch: int, rank: int, offset: int, data: bytes) -> Ingested:
    """Store the part of a metrics chunk that is not stored yet; exactly once by (epoch, rank, offset).

    Args:
        offset: byte offset of `data` in the rank's metrics file.

    Returns:
        Without points for a chunk that is known, or that would leave a gap.
    """
    nothing = _columns(iter(()))
    connection = session.connection()
    where = {"epoch": epoch, "number": rank}
    known = connection.execute(_OFFSET, where).scalar()
    if known is None or offset > known or offset + len(data) <= known:
        return Ingested(nothing, known)
    end = offset + len(data)
    lines, facts = runfacts.split(data[known - offset :])
    points = parse_points(lines)
    connection.execute(_MOVE, {**where, "offset": end})
    if not len(points):
        return Ingested(points, end, facts)
    connection.execute(
        _CHUNKS.insert(),
        {"attempt_id": epoch, "rank": rank, "names": points.names, "data": points.to_bytes()},
    )
    connection.execute(
        _LATEST,
        [
            {
                "epoch": epoch,
                "name": name,
                "rank": rank,
                "step": p.step,
                "at": p.at,
                "value": p.value,
            }
            for name, p in points.newest().items()
        ],
    )
    return Ingested(points, end, facts)


def note_objective(session: Session, job: int, points: Points) -> None:
    """Keep the newest value of the job's objective on its row, where lists show it."""
    if not len(points):
        return
    connection = session.connection()
    spec: Mapping[str, Any] = connection.execute(_SPEC, {"job": job}).scalar() or {}
    found = points.of((spec.get("objective") or {}).get("metric") or "")
    if found:
        point = points[found[-1]]
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
