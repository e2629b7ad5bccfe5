"""Choosing runs by what they were asked and what they came to. Functions take an open Session."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy import ColumnElement
from sqlmodel import Session, col, select

from jobs.base.errors import InvalidInput
from jobs.base.names import parse_run
from jobs.base.times import maybe_rfc3339, rfc3339
from jobs.metrics.points import Points
from jobs.runs.filters import TEXTS, All, Any_, Condition, Expression, Not
from jobs.store import runfacts, sweepcharts
from jobs.store.sweeptables import SweepTrialRow
from jobs.store.tables import AttemptRow, JobRow, MetricChunkRow, MetricLatestRow, RunFactRow
from jobs.wire.runviews import RunPage, RunView

MAX_PAGE = 500
_OPS: dict[str, Callable[[Any, Any], Any]] = {
    "=": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
    "~": lambda a, b: a.icontains(str(b), autoescape=True),
}


@dataclass(frozen=True, slots=True)
class RunQuery:
    """`before` is a job's number; `sort` a metric or param.NAME, `-` in front for the largest first. With
    `points`, each run has its objective as a line of about so many values."""

    where: Expression | None = None
    before: int | None = None
    sort: Condition | None = None
    descending: bool = False
    limit: int = 50
    points: int = 0


def page(session: Session, wanted: RunQuery) -> RunPage:
    """The last attempt of each job that matches, newest first unless they are sorted by a value."""
    last = sa.and_(
        col(AttemptRow.job_id) == col(JobRow.id), col(AttemptRow.number) == col(JobRow.attempts)
    )
    query = select(JobRow, AttemptRow.id).join(AttemptRow, last, isouter=True)
    sql = _Sql(session.get_bind().dialect.name)
    if wanted.where is not None:
        query = query.where(sql.of(wanted.where))
    count = session.exec(select(sa.func.count()).select_from(query.subquery())).one()
    if wanted.before is not None:
        query = query.where(col(JobRow.id) < wanted.before)
    if wanted.sort is not None:
        key = sql.value(wanted.sort)
        query = query.where(key.is_not(None))
        query = query.order_by(key.desc() if wanted.descending else key)
    limit = max(1, min(wanted.limit, MAX_PAGE))
    rows = session.exec(query.order_by(col(JobRow.id).desc()).limit(limit + 1)).all()
    shown = rows[:limit]
    metrics = _metrics(session, [epoch for _, epoch in shown if epoch is not None])
    logged = runfacts.of_jobs(session, [job.id for job, _ in shown if job.id is not None])
    more = len(rows) > limit and wanted.sort is None
    views = [
        _view(job, metrics.get(epoch or -1, {}), logged.get(job.id or -1, {}))
        for job, epoch in shown
    ]
    if wanted.points:
        names = {
            epoch: job.spec["objective"]["metric"]
            for job, epoch in shown
            if epoch is not None and job.spec.get("objective")
        }
        lines = _curves(session, names, wanted.points)
        for view, (_, epoch) in zip(views, shown, strict=True):
            view["curve"] = lines.get(epoch or -1, [])
    return {
        "runs": views,
        "next": f"j{shown[-1][0].id}" if more else None,
        "total": count,
    }


def _metrics(session: Session, epochs: list[int]) -> dict[int, dict[str, float | None]]:
    """The last value of each metric; where several ranks log one, that of the lowest rank."""
    found: dict[int, dict[str, float | None]] = {}
    query = (
        select(MetricLatestRow.attempt_id, MetricLatestRow.name, MetricLatestRow.value)
        .where(col(MetricLatestRow.attempt_id).in_(epochs))
        .order_by(col(MetricLatestRow.rank).desc())
    )
    for epoch, name, value in session.exec(query).all():
        found.setdefault(epoch, {})[name] = value
    return found


def _curves(session: Session, names: Mapping[int, str], points: int) -> dict[int, list[float]]:
    """What rank 0 of each attempt has logged of a metric, by steps.

    Args:
        names: epoch of an attempt -> the metric.
        points: of a line about so many, with the extremes of every stretch.
    """
    query = (
        sa.select(
            col(MetricChunkRow.attempt_id), col(MetricChunkRow.names), col(MetricChunkRow.data)
        )
        .where(col(MetricChunkRow.attempt_id).in_(names), col(MetricChunkRow.rank) == 0)
        .order_by(col(MetricChunkRow.id))
    )
    lines: dict[int, dict[int, float]] = {}
    for epoch, logged, data in session.execute(query):
        line = lines.setdefault(epoch, {})
        for point in Points.from_bytes(logged, data).only(names[epoch]):
            if point.value is not None:
                line[point.step] = point.value  # of a step that was repeated, the newest
    return {
        epoch: [value for _, value in sweepcharts.thinned(line, points)]
        for epoch, line in lines.items()
    }


def _view(
    job: JobRow, metrics: dict[str, float | None], logged: Mapping[str, dict[str, Any]]
) -> RunView:
    """What a job was submitted with takes precedence over what it logged itself."""
    git = job.git or {}
    return {
        "id": f"j{job.id}.{job.attempts}" if job.attempts else f"j{job.id}",
        "job": f"j{job.id}",
        "name": job.name,
        "user": job.user,
        "state": cast("Any", job.state),
        "params": {**logged.get("param", {}), **(job.spec.get("params") or {})},
        "metrics": dict(sorted(metrics.items())),
        "tags": {**logged.get("tag", {}), **job.tags},
        "data": job.spec.get("data") or {},
        "seed": job.spec.get("seed"),
        "commit": git.get("commit", ""),
        "dirty": bool(git.get("dirty", False)),
        "snapshot": job.snapshot,
        "submitted_at": rfc3339(job.submitted_at),
        "started_at": maybe_rfc3339(job.started_at),
        "ended_at": maybe_rfc3339(job.ended_at),
    }


class _Sql:
    """Expressions as conditions of SQL. Values are bound; names were checked by `jobs.runs.filters`."""

    def __init__(self, dialect: str) -> None:
        self._sqlite = dialect == "sqlite"

    def of(self, expression: Expression) -> ColumnElement[bool]:
        match expression:
            case All(parts):
                return sa.and_(*map(self.of, parts))
            case Any_(parts):
                return sa.or_(*map(self.of, parts))
            case Not(inner):
                # What is not there is not equal to anything either: `not lr = 1` holds without an lr.
                return sa.not_(sa.func.coalesce(self.of(inner), sa.false()))
            case Condition():
                return self._condition(expression)

    def _condition(self, wanted: Condition) -> ColumnElement[bool]:
        if wanted.kind == "metric":
            return sa.exists(
                select(MetricLatestRow.name).where(
                    col(MetricLatestRow.attempt_id) == col(AttemptRow.id),
                    col(MetricLatestRow.name) == wanted.name,
                    _OPS[wanted.op](col(MetricLatestRow.value), wanted.value),
                )
            )
        if wanted.kind == "field" and wanted.name == "id":
            return _OPS[wanted.op](col(JobRow.id), _number(wanted))  # type: ignore[no-any-return]
        value, other = self.value(wanted), wanted.value
        if wanted.kind == "param" and isinstance(other, str):
            value = sa.func.coalesce(self._text(wanted.name), _logged(wanted, RunFactRow.value))
        elif wanted.kind in ("tag", "data") or wanted.name in TEXTS:
            other = _plain(other).upper() if wanted.name == "state" else _plain(other)
        return _OPS[wanted.op](value, other)  # type: ignore[no-any-return]

    def value(self, wanted: Condition) -> Any:
        """What a condition compares."""
        job = col(JobRow.spec)
        match wanted.kind:
            case "metric":
                return (
                    select(sa.func.max(MetricLatestRow.value))
                    .where(
                        col(MetricLatestRow.attempt_id) == col(AttemptRow.id),
                        col(MetricLatestRow.name) == wanted.name,
                    )
                    .scalar_subquery()
                )
            case "param":
                given = self._numeric(job["params"][wanted.name], f'$.params."{wanted.name}"')
                return sa.func.coalesce(given, _logged(wanted, RunFactRow.number))
            case "tag":
                tag = col(JobRow.tags)[wanted.name].as_string()
                return sa.func.coalesce(tag, _logged(wanted, RunFactRow.value))
            case "data":
                return job["data"][wanted.name].as_string()
            case _:
                return self._field(wanted.name)

    def _text(self, param: str) -> Any:
        """A parameter as text: true and false by their names, which SQLite has as 1 and 0."""
        text = col(JobRow.spec)["params"][param].as_string()
        if not self._sqlite:
            return text
        kind = sa.func.json_type(col(JobRow.spec), f'$.params."{param}"')
        return sa.case((kind.in_(["true", "false"]), kind), else_=text)

    def _numeric(self, element: Any, path: str) -> ColumnElement[Any]:
        """The number at a place in the spec; NULL where there is something else, which a cast would take for
        0 or stumble over."""
        if self._sqlite:
            kind = sa.func.json_type(col(JobRow.spec), path)
            return sa.case((kind.in_(["integer", "real"]), element.as_float()))
        return sa.case((sa.func.json_typeof(element) == "number", element.as_float()))

    def _field(self, name: str) -> Any:
        match name:
            case "commit" | "branch":
                return col(JobRow.git)[name].as_string()
            case "seed":
                return self._numeric(col(JobRow.spec)["seed"], "$.seed")
            case "duration":
                return col(JobRow.ended_at) - col(JobRow.started_at)
            case "restarts":
                return sa.case((col(JobRow.attempts) > 0, col(JobRow.attempts) - 1), else_=0)
            case "sweep":
                number = select(SweepTrialRow.sweep_id).where(
                    col(SweepTrialRow.job_id) == col(JobRow.id)
                )
                return sa.literal("s").concat(sa.cast(number.scalar_subquery(), sa.String))
            case _:
                return getattr(JobRow, name)


def _logged(wanted: Condition, column: Any) -> Any:
    """A parameter or tag that the job's program logged."""
    return (
        select(column)
        .where(
            col(RunFactRow.job_id) == col(JobRow.id),
            col(RunFactRow.kind) == wanted.kind,
            col(RunFactRow.name) == wanted.name,
        )
        .scalar_subquery()
    )


def _plain(value: str | float) -> str:
    """A number that was written where text is compared, as it was most likely written."""
    return f"{value:g}" if isinstance(value, float) else value


def _number(wanted: Condition) -> int:
    if wanted.op not in ("=", "!="):
        raise InvalidInput(f"filter: id {wanted.op} ... cannot be", "Use = or !=.")
    return parse_run(str(wanted.value)).job
