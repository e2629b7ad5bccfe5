"""The audit log: append-only rows, each hash covering the row and the hash before it.

A row that is changed or removed breaks the chain from there on (`verify` names the place). What the
chain cannot show by itself is the loss of its newest rows: `verify_all` holds it against heads that were
written down elsewhere.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Table
from sqlmodel import Session, col, or_, select
from sqlmodel.sql.expression import SelectOfScalar

from jobs.base.times import rfc3339
from jobs.store.tables import AuditRow
from jobs.wire.modelviews import AuditView

GENESIS = "0" * 64
_PAGE = 2_000


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


def verify(rows: Iterable[AuditRow], previous: str = GENESIS) -> int | None:
    """The id of the first row that does not fit the chain, or None. Rows come oldest first, `previous`
    is the hash of the one before them."""
    for row in rows:
        expected = _digest(previous, row.at, row.user, row.uid, row.action, row.target, row.data)
        if row.previous != previous or row.hash != expected:
            return row.id
        previous = row.hash
    return None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of looking at the whole chain."""

    rows: int
    head: str
    broken_at: int | None = None
    reason: str = ""


def verify_all(session: Session, heads: Iterable[tuple[int, str]]) -> Verdict:
    """Look at every row, and at heads that were written down elsewhere (id of a row, its hash)."""
    previous, rows, last = GENESIS, 0, 0
    unseen: dict[int, set[str]] = {}
    for number, digest in heads:
        unseen.setdefault(number, set()).add(digest)
    for page in _pages(session):
        broken = verify(page, previous)
        if broken is not None:
            return Verdict(
                rows, previous, broken, f"row {broken} or the one before it was changed or removed"
            )
        for row in page:
            # Two hashes of one row: its end was cut off, and the number used again.
            if unseen.pop(row.id or 0, {row.hash}) != {row.hash}:
                why = f"row {row.id} is not the one of its checkpoint: the log was written anew"
                return Verdict(rows, previous, row.id, why)
        previous, rows, last = page[-1].hash, rows + len(page), page[-1].id or 0
    if unseen:
        gone = min(unseen)
        why = f"row {gone} has a checkpoint and is gone"
        if gone > last:
            why = f"its end was cut off: row {max(unseen)} was there, and the last one is {last}"
        return Verdict(rows, previous, gone, why)
    return Verdict(rows, previous)


def _pages(session: Session) -> Iterator[Sequence[AuditRow]]:
    after = 0
    while True:
        query = select(AuditRow).where(col(AuditRow.id) > after).order_by(col(AuditRow.id))
        page = session.exec(query.limit(_PAGE)).all()
        if not page:
            return
        yield page
        after = page[-1].id or 0
        session.expunge_all()


@dataclass(frozen=True, slots=True)
class Wanted:
    """What `GET /v1/audit` may ask for. Times are unix time, `action` also means what is below it."""

    user: str | None = None
    action: str | None = None
    target: str | None = None
    since: float | None = None
    until: float | None = None


def rows(session: Session, wanted: Wanted, after: int, limit: int) -> list[AuditView]:
    """Rows with an id above `after`, oldest first."""
    query = _filtered(wanted).where(col(AuditRow.id) > after).order_by(col(AuditRow.id))
    return [_view(row) for row in session.exec(query.limit(limit)).all()]


def newest(session: Session, wanted: Wanted, limit: int) -> list[AuditView]:
    """The last `limit` rows, oldest first."""
    query = _filtered(wanted).order_by(col(AuditRow.id).desc())
    return [_view(row) for row in reversed(session.exec(query.limit(limit)).all())]


def head(session: Session) -> tuple[int, str] | None:
    """Id and hash of the newest row."""
    query = select(AuditRow.id, AuditRow.hash).order_by(col(AuditRow.id).desc()).limit(1)
    found = session.exec(query).first()
    return None if found is None or found[0] is None else (found[0], found[1])


def _filtered(wanted: Wanted) -> SelectOfScalar[AuditRow]:
    query = select(AuditRow)
    if wanted.user is not None:
        query = query.where(AuditRow.user == wanted.user)
    if wanted.action is not None:
        below = col(AuditRow.action).startswith(f"{wanted.action}.", autoescape=True)
        query = query.where(or_(AuditRow.action == wanted.action, below))
    if wanted.target is not None:
        query = query.where(AuditRow.target == wanted.target)
    if wanted.since is not None:
        query = query.where(col(AuditRow.at) >= wanted.since)
    if wanted.until is not None:
        query = query.where(col(AuditRow.at) <= wanted.until)
    return query


def _view(row: AuditRow) -> AuditView:
    return {
        "id": row.id or 0,
        "at": rfc3339(row.at),
        "user": row.user,
        "uid": row.uid,
        "action": row.action,
        "target": row.target,
        "data": _read(row.data),
        "hash": row.hash,
        "previous": row.previous,
    }


def _read(data: str) -> dict[str, Any]:
    """A row's data; of a row that somebody has changed, what is there instead."""
    try:
        found = json.loads(data)
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {"unreadable": data}
