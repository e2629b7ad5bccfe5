"""Pushes in the registry. Every function takes an open Session and never commits."""

from __future__ import annotations

from collections.abc import Sequence

from sqlmodel import Session, col, select

from jobs.base.errors import Conflict
from jobs.edge import push as machine
from jobs.edge.fleet import Fleet
from jobs.edge.push import At, Push
from jobs.life.vocabulary import Note
from jobs.store import audit, writing
from jobs.store.edgetables import EdgePushRow
from jobs.store.writing import Caller
from jobs.wire.views import EventView


def push_of(row: EdgePushRow) -> Push:
    return machine.from_json(row.id or 0, row.fleet, row.version, row.state)


def newest(session: Session) -> list[EdgePushRow]:
    """The last push of each fleet."""
    rows = session.exec(select(EdgePushRow).order_by(col(EdgePushRow.id))).all()
    return list({row.fleet: row for row in rows}.values())


def add(
    session: Session,
    fleet: Fleet,
    model: str,
    version: str,
    digest: str,
    size: int,
    who: Caller,
    now: float,
) -> tuple[EdgePushRow, list[EventView]]:
    """A new push. Raises Conflict while another one of the fleet is under way."""
    for row in newest(session):
        if row.fleet == fleet.name and not push_of(row).over:
            raise Conflict(
                f"{fleet.name} gets {row.version} already",
                f"`qd edge rollback {fleet.name}` takes it back.",
            )
    hosts = {host.url: At(wave) for host, wave in zip(fleet.places(), fleet.numbers(), strict=True)}
    push = Push(0, fleet.name, version, size, hosts)
    row = EdgePushRow(
        fleet=fleet.name,
        model=model,
        version=version,
        digest=digest,
        spec=fleet.to_json(),
        state=machine.to_json(push),
        user=who.user,
        uid=who.uid,
        created_at=now,
        changed_at=now,
    )
    session.add(row)
    session.flush()
    waves = max(fleet.numbers()) + 1
    text = f"{version} to {len(hosts)} hosts of {fleet.name} in {waves} waves, by {who.user}"
    return row, _told(session, row, [Note("edge.started", text, user=who.user)], who, now)


def save(
    session: Session, push: Push, notes: Sequence[Note], who: Caller, now: float
) -> list[EventView]:
    """Store where a push is, with its events and an audit row for each."""
    row = session.get(EdgePushRow, push.number)
    assert row is not None
    row.state, row.changed_at = machine.to_json(push), now
    session.add(row)
    session.flush()
    return _told(session, row, notes, who, now)


def _told(
    session: Session, row: EdgePushRow, notes: Sequence[Note], who: Caller, now: float
) -> list[EventView]:
    for note in notes:
        audit.append(
            session,
            at=now,
            user=who.user,
            uid=who.uid,
            action=note.kind,
            target=f"{row.version}@{row.fleet}",
            data={"text": note.message, "digest": row.digest},
        )
    return writing.add_events(session, None, notes, now)
