"""The audit log: append-only rows, each hash covering the row and the hash before it.

A row that is changed or removed breaks the chain from there on (`verify` names the place). What the
chain cannot show is the loss of its newest rows: keep the last hash elsewhere for that.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Table
from sqlmodel import Session

from jobs.tables import AuditRow

GENESIS = "0" * 64


def _digest(
    previous: str, at: float, user: str, uid: int, action: str, target: str, data: str
) -> str:
    text = json.dumps([previous, repr(at), user, uid, action, target, data], ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


_AUDIT: Table = AuditRow.__table__  # type: ignore[attr-defined]
_LAST = _AUDIT.select().with_only_columns(_AUDIT.c.hash).order_by(_AUDIT.c.id.desc()).limit(1)
_ADD = _AUDIT.insert()


@dataclass(frozen=True, slots=True)
class Act:
    """Who did what to what, and when (unix time)."""

    at: float
    user: str
    uid: int
    action: str
    target: str
    data: Mapping[str, Any] | None = None


def append(
    session: Session,
    *,
    at: float,
    user: str,
    uid: int,
    action: str,
    target: str,
    data: Mapping[str, Any] | None = None,
) -> None:
    """Add a row. Call it inside the transaction that makes the change it tells of."""
    extend(session, [Act(at, user, uid, action, target, data)])


def extend(session: Session, acts: Sequence[Act]) -> None:
    """Add several rows, in their order."""
    connection = session.connection()
    previous = connection.execute(_LAST).scalar() or GENESIS
    rows = []
    for act in acts:
        text = json.dumps(dict(act.data or {}), sort_keys=True, ensure_ascii=False)
        digest = _digest(previous, act.at, act.user, act.uid, act.action, act.target, text)
        rows.append(
            {
                "at": act.at,
                "user": act.user,
                "uid": act.uid,
                "action": act.action,
                "target": act.target,
                "data": text,
                "previous": previous,
                "hash": digest,
            }
        )
        previous = digest
    if rows:
        # Several statements, not one of many rows: their ids have to follow the chain.
        connection.execute(_ADD, rows)


def verify(rows: Iterable[AuditRow]) -> int | None:
    """The id of the first row that does not fit the chain, or None. Rows come oldest first."""
    previous = GENESIS
    for row in rows:
        expected = _digest(previous, row.at, row.user, row.uid, row.action, row.target, row.data)
        if row.previous != previous or row.hash != expected:
            return row.id
        previous = row.hash
    return None
