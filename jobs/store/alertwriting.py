"""Alerts in the registry. Like `jobs/store/writing.py`: functions take a Session and never commit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from sqlalchemy import Table, bindparam
from sqlmodel import Session, col, select

from jobs.alerts.course import Alert, covers
from jobs.alerts.rules import Rules
from jobs.base.errors import NotFound
from jobs.base.times import maybe_rfc3339, rfc3339
from jobs.store.alerttables import AlertNoteRow, AlertRow, SilenceRow
from jobs.store.tables import EventRow, MetaRow
from jobs.wire.alertviews import AlertView, SilenceView

_ALERTS: Table = AlertRow.__table__  # type: ignore[attr-defined]
_NOTES: Table = AlertNoteRow.__table__  # type: ignore[attr-defined]
_FORGET = _ALERTS.delete().where(
    _ALERTS.c.rule == bindparam("r"), _ALERTS.c.subject == bindparam("s")
)
_SEEN = "alerts_event"
_SHOWN = 200
AT_ONCE = 1000
"""Notes of one message at most, and events of one look."""


def load(session: Session) -> list[Alert]:
    """Alerts that are not over."""
    rows = session.exec(select(AlertRow).where(AlertRow.state != "RESOLVED")).all()
    return [
        Alert(
            row.rule, row.subject, row.state, row.text, row.since, row.seen, row.node, row.until,  # type: ignore[arg-type]
            row.told, row.acked_by, row.acked_why,
        )
        for row in rows
    ]  # fmt: skip


def seen_event(session: Session) -> int:
    """The newest event that alerts have looked at; of a registry that is new to them, the newest one."""
    row = session.get(MetaRow, _SEEN)
    if row is not None:
        return int(row.value)
    newest = session.exec(select(EventRow.id).order_by(col(EventRow.id).desc()).limit(1)).first()
    return newest or 0


def save(
    session: Session,
    rules: Rules,
    changed: Sequence[Alert],
    gone: Sequence[Alert],
    notes: Sequence[AlertNoteRow],
    seen: int,
    now: float,
) -> None:
    """Write down one look: alerts, notes about them, and up to which event it went."""
    known, connection = rules.every(), session.connection()
    keys = [{"r": alert.rule, "s": alert.subject} for alert in (*changed, *gone)]
    if keys:
        connection.execute(_FORGET, keys)
    rows = [
        {
            **asdict(alert),
            "severity": known[alert.rule].severity if alert.rule in known else "warning",
            "changed_at": now,
        }
        for alert in changed
    ]
    if rows:
        connection.execute(_ALERTS.insert(), rows)
    if notes:
        connection.execute(_NOTES.insert(), [note.model_dump(exclude={"id"}) for note in notes])
    session.merge(MetaRow(name=_SEEN, value=str(seen)))


def unsent(session: Session) -> dict[str, list[AlertNoteRow]]:
    """Notes that are not delivered, by channel, oldest first."""
    found: dict[str, list[AlertNoteRow]] = {}
    rows = session.exec(
        select(AlertNoteRow)
        .where(col(AlertNoteRow.sent_at).is_(None))
        .order_by(col(AlertNoteRow.id))
        .limit(10 * AT_ONCE)
    ).all()
    for row in rows:
        found.setdefault(row.channel, []).append(row)
    return found


def sent(session: Session, channel: str, last: int, now: float) -> None:
    """A channel has taken its notes up to this one."""
    session.connection().execute(
        _NOTES.update()
        .where(_NOTES.c.channel == channel, _NOTES.c.sent_at.is_(None), _NOTES.c.id <= last)
        .values(sent_at=now)
    )


def silences(session: Session, now: float) -> list[SilenceRow]:
    """Silences that have not ended."""
    return list(session.exec(select(SilenceRow).where(SilenceRow.until > now)).all())


def get(session: Session, rule: str, subject: str) -> AlertRow:
    row = session.get(AlertRow, (rule, subject))
    if row is None:
        raise NotFound(f"there is no alert {rule} about '{subject}'", "`qd alerts` lists them.")
    return row


def views(session: Session, now: float, *, over: bool = True) -> list[AlertView]:
    """Alerts: those that are not over, then (if `over`) the newest that are."""
    held = sorted(silences(session, now), key=lambda silence: -silence.until)
    order = col(AlertRow.changed_at).desc()
    open_ = session.exec(select(AlertRow).where(AlertRow.state != "RESOLVED").order_by(order)).all()
    ended = select(AlertRow).where(AlertRow.state == "RESOLVED").order_by(order).limit(_SHOWN)
    return [view(row, held) for row in [*open_, *(session.exec(ended).all() if over else ())]]


def view(row: AlertRow, silences: Sequence[SilenceRow]) -> AlertView:
    """An alert as the API tells of it; `silences` that have not ended, the longest first."""
    held = (one for one in silences if covers(one.rule, one.subject, row.rule, row.subject))
    silence = next(held, None)
    return {
        "rule": row.rule,
        "subject": row.subject,
        "state": row.state,  # type: ignore[typeddict-item]  # only states of alerts are stored
        "severity": row.severity,  # type: ignore[typeddict-item]
        "text": row.text,
        "node": row.node,
        "since": rfc3339(row.since),
        "told_at": maybe_rfc3339(row.told),
        "acked_by": row.acked_by,
        "acked_why": row.acked_why,
        "changed_at": rfc3339(row.changed_at),
        "silence": None if silence is None else silence_view(silence),
    }


def silence_view(row: SilenceRow) -> SilenceView:
    return {
        "id": row.id or 0,
        "rule": row.rule,
        "subject": row.subject,
        "until": rfc3339(row.until),
        "user": row.user,
        "reason": row.reason,
    }
