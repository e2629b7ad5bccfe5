"""What charts of a sweep are drawn from: learning curves, and parameters against an objective."""

from __future__ import annotations

from collections.abc import Collection
from math import isfinite
from typing import Any

import sqlalchemy
from sqlmodel import Session, col, select

from jobs.base.errors import InvalidInput
from jobs.metrics.points import Points
from jobs.metrics.series import decimate
from jobs.store import sweepreading, sweepwriting
from jobs.store.sweeptables import SweepTrialRow
from jobs.store.tables import AttemptRow, JobRow, MetricChunkRow
from jobs.wire.sweepviews import CurveView, SliceView


def curves(
    session: Session,
    sweep: int,
    *,
    metric: str = "",
    points: int = 60,
    limit: int = 1000,
    only: Collection[int] = (),
) -> list[CurveView]:
    """What rank 0 of each trial has logged of a metric, in order of the trials' numbers.

    Args:
        metric: by default, the first objective's.
        points: of a curve at most about so many, with the extremes of every stretch.
        limit: of the newest trials at most so many.
        only: numbers of trials; empty for all.

    Raises NotFound.
    """
    row = sweepwriting.get(session, sweep)
    query = (
        select(SweepTrialRow, JobRow)
        .join(JobRow, col(SweepTrialRow.job_id) == col(JobRow.id))
        .where(SweepTrialRow.sweep_id == sweep)
        .order_by(col(SweepTrialRow.number).desc())
        .limit(limit)
    )
    if only:
        query = query.where(col(SweepTrialRow.number).in_(sorted(only)))
    trials = list(reversed(session.exec(query).all()))
    if not trials:
        return []
    logged = (
        sqlalchemy.select(
            col(SweepTrialRow.number), col(MetricChunkRow.names), col(MetricChunkRow.data)
        )
        .join(AttemptRow, col(AttemptRow.job_id) == col(SweepTrialRow.job_id))
        .join(MetricChunkRow, col(MetricChunkRow.attempt_id) == col(AttemptRow.id))
        .where(
            col(SweepTrialRow.sweep_id) == sweep,
            col(SweepTrialRow.number) >= trials[0][0].number,
            col(MetricChunkRow.rank) == 0,
        )
        .order_by(col(MetricChunkRow.id))
    )
    if only:
        logged = logged.where(col(SweepTrialRow.number).in_(sorted(only)))
    lines: dict[int, dict[int, float]] = {}
    wanted = metric or row.spec["objective"][0]["metric"]
    for number, names, data in session.execute(logged):
        line = lines.setdefault(number, {})
        for point in Points.from_bytes(names, data).only(wanted):
            if point.value is not None and isfinite(point.value):
                line[point.step] = point.value  # of a step that was repeated, the newest
    return [
        {
            "number": trial.number,
            "state": sweepreading.trial_state(trial.state, trial.wish, job.state),
            "points": thinned(lines.get(trial.number, {}), points),
        }
        for trial, job in trials
    ]


def thinned(line: dict[int, float], points: int) -> list[tuple[int, float]]:
    """Steps with their values: at most about `points`, with the extremes of every stretch."""
    ordered = sorted(line.items())
    if len(ordered) <= points:
        return ordered
    kept = decimate([(float(at), y) for at, (_, y) in enumerate(ordered)], max(points // 4, 1))
    return [ordered[int(at)] for at, _ in kept]


def slices(session: Session, sweep: int, *, objective: int = 0) -> list[SliceView]:
    """Each parameter against an objective, in the order of the space.

    Args:
        objective: its place in the list of objectives.

    Raises NotFound, InvalidInput.
    """
    row = sweepwriting.get(session, sweep)
    count = len(row.spec["objective"])
    if objective >= count:
        raise InvalidInput(f"s{sweep} has {count} objectives; the last is {count - 1}")
    rows = session.execute(
        sqlalchemy.select(
            col(SweepTrialRow.number), col(SweepTrialRow.params), col(SweepTrialRow.values)
        )
        .where(col(SweepTrialRow.sweep_id) == sweep, col(SweepTrialRow.state) == "COMPLETE")
        .order_by(col(SweepTrialRow.number))
    ).all()
    return [
        {
            "name": name,
            "log": bool(parameter.get("log")),
            "low": parameter.get("low"),
            "high": parameter.get("high"),
            "choices": parameter.get("choices"),
            "points": [
                {"number": number, "x": params[name], "y": values[objective]}
                for number, params, values in rows
                if name in params and values and isfinite(values[objective])
            ],
        }
        for name, parameter in _space(row.spec).items()
    ]


def _space(spec: dict[str, Any]) -> dict[str, dict[str, Any]]:
    space: dict[str, dict[str, Any]] = spec["space"]
    return space
