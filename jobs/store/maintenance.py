"""What the registry holds of planned absences of the head: one line of the table `meta`."""

from __future__ import annotations

import json
from typing import Any, TypedDict

from sqlmodel import Session

from jobs.store.tables import MetaRow

_NAME = "maintenance"


class Window(TypedDict):
    """A planned absence. Times are unix times; `seconds` is how long it was meant to be."""

    since: float
    until: float
    seconds: float
    reason: str
    user: str


class Record(TypedDict):
    """`longest`: the longest span, in seconds, that leases were granted ahead for and that may not be
    over yet; 0 when all are."""

    longest: float
    window: Window | None


def read(session: Session) -> Record:
    row = session.get(MetaRow, _NAME)
    if row is None:
        return {"longest": 0.0, "window": None}
    told: dict[str, Any] = json.loads(row.value)
    return {"longest": float(told["longest"]), "window": told["window"]}


def write(session: Session, record: Record) -> None:
    session.merge(MetaRow(name=_NAME, value=json.dumps(record)))
