"""What triggers of schedules look out for, in the registry."""

from __future__ import annotations

from sqlmodel import Session, col, func, or_, select

from jobs.flows.triggers import DRIFT, Cause, Trigger, about
from jobs.store.alerttables import AlertRow
from jobs.store.datatables import DataVersionRow
from jobs.store.flowtables import FiringRow

AT_ONCE = 100
"""Causes that are looked at in one go."""


def from_now_on(session: Session, trigger: Trigger, now: float) -> float:
    """What `seen` is for a trigger to which only what comes from now on counts: of data the newest
    version there is, as a clock may be set back; else unix time."""
    if trigger.what != "data":
        return now
    newest = select(func.max(DataVersionRow.number)).where(DataVersionRow.name == trigger.name)
    return float(session.exec(newest).one() or 0)


def causes(
    session: Session, schedule: int, trigger: Trigger, seen: float
) -> tuple[list[Cause], float]:
    """What has happened since, oldest first, without what has fired; and the new `seen`."""
    if trigger.what == "data":
        rows = session.exec(
            select(DataVersionRow)
            .where(DataVersionRow.name == trigger.name, col(DataVersionRow.number) > seen)
            .order_by(col(DataVersionRow.number))
            .limit(AT_ONCE)
        ).all()
        refs = [(f"{row.name}@{row.number}", row) for row in rows]
        found = [Cause(ref, ref, row.created_at) for ref, row in refs]
        return found, float(rows[-1].number) if rows else seen
    return _alerts(session, schedule, trigger, seen), seen


def _alerts(session: Session, schedule: int, trigger: Trigger, seen: float) -> list[Cause]:
    """Alerts of which people were told, each occurrence by when it began: also of one that is over by
    the time somebody looks."""
    rule = col(AlertRow.rule)
    wanted = rule.startswith(DRIFT) if trigger.what == "drift" else rule == trigger.name
    rows = session.exec(
        select(AlertRow)
        .where(
            wanted,
            or_(AlertRow.state == "FIRING", col(AlertRow.told).is_not(None)),
            col(AlertRow.changed_at) > seen,
        )
        .order_by(col(AlertRow.since))
        .limit(AT_ONCE)
    ).all()
    fired = set(
        session.exec(select(FiringRow.cause).where(FiringRow.schedule_id == schedule)).all()
    )
    found = []
    for row in rows:
        if trigger.what == "drift" and not about(trigger.name, row.subject):
            continue
        key = f"{row.rule} {row.subject} {row.since!r}"
        if key not in fired:
            found.append(Cause(key, row.text, row.since))
    return found
