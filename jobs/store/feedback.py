"""Truths of requests, and what they make of versions.

Like `jobs/store/writing.py`: every function takes an open Session and never commits.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlmodel import Session, col, func, select

from jobs.services.feedback import Interval, Outcome, mean, wilson
from jobs.store.monitortables import FeedbackRow
from jobs.wire.monitorviews import IntervalView, OnlineView

_AT_ONCE = 500
"""Parameters of one query: databases have a limit."""


def save(
    session: Session, deployment: int, request: str, version: str, at: float, found: Outcome
) -> None:
    """What a request came to; a truth that is given again replaces the one before."""
    row = session.get(FeedbackRow, (deployment, request)) or FeedbackRow(
        deployment_id=deployment, request=request, version=version, at=at, rows=0
    )
    row.version, row.at, row.rows = version, at, found.rows
    row.correct, row.error, row.squares = found.correct, found.error, found.squares
    session.add(row)


def known(session: Session, deployment: int, requests: Sequence[str]) -> set[str]:
    """Those of the requests whose truth is stored already."""
    found: set[str] = set()
    for start in range(0, len(requests), _AT_ONCE):
        some = requests[start : start + _AT_ONCE]
        query = select(FeedbackRow.request).where(
            FeedbackRow.deployment_id == deployment, col(FeedbackRow.request).in_(some)
        )
        found.update(session.exec(query).all())
    return found


def online(session: Session) -> dict[tuple[int, str], OnlineView]:
    """By deployment and version: how right they were where the truth is known."""
    query = select(
        FeedbackRow.deployment_id,
        FeedbackRow.version,
        func.sum(FeedbackRow.rows),
        func.count(col(FeedbackRow.correct)),
        func.sum(FeedbackRow.correct),
        func.sum(FeedbackRow.error),
        func.sum(FeedbackRow.squares),
    ).group_by(FeedbackRow.deployment_id, FeedbackRow.version)  # type: ignore[call-overload]
    found: dict[tuple[int, str], OnlineView] = {}
    for deployment, version, rows, classes, correct, error, squares in session.exec(query).all():
        of_classes = bool(classes)
        found[(deployment, version)] = {
            "truths": int(rows),
            "accuracy": _view(wilson(int(correct), int(rows))) if of_classes else None,
            "error": None if of_classes else _view(mean(float(error), float(squares), int(rows))),
        }
    return found


def _view(interval: Interval) -> IntervalView:
    return {"value": interval.value, "low": interval.low, "high": interval.high}
