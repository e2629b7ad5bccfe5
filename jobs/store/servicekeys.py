"""API keys of services in the registry: given out, revoked, listed. Of a key only its digest is stored.

Like `jobs/store/writing.py`: every function takes an open Session and never commits.
"""

from __future__ import annotations

from sqlmodel import Session, col, select

from jobs.base.errors import Conflict, NotFound
from jobs.base.times import rfc3339
from jobs.services.keys import MOST, Key, Policy, Rate
from jobs.store.servicetables import DeploymentRow, ServiceKeyRow
from jobs.store.writing import Caller
from jobs.wire.serviceviews import KeyView


def add(
    session: Session,
    deployment: DeploymentRow,
    name: str,
    digest: str,
    rate: Rate | None,
    who: Caller,
    now: float,
) -> ServiceKeyRow:
    """Record a key; from the first one on, the service asks for keys. Raises Conflict."""
    valid = _valid(session, deployment.id or 0)
    if any(row.name == name for row in valid):
        raise Conflict(
            f"{deployment.name} has a key '{name}'",
            "Revoke that one first, or choose another name.",
        )
    if len(valid) >= MOST:
        raise Conflict(f"{deployment.name} has {MOST} keys", "Revoke those that nobody needs.")
    row = ServiceKeyRow(
        deployment_id=deployment.id or 0,
        name=name,
        digest=digest,
        rate=None if rate is None else str(rate),
        user=who.user,
        created_at=now,
    )
    deployment.keyed = True
    session.add(deployment)
    session.add(row)
    session.flush()
    return row


def revoke(session: Session, deployment: DeploymentRow, name: str, now: float) -> ServiceKeyRow:
    """Raises NotFound."""
    for row in _valid(session, deployment.id or 0):
        if row.name == name:
            row.revoked_at = now
            session.add(row)
            session.flush()
            return row
    raise NotFound(
        f"{deployment.name} has no key '{name}'", f"`qd service key list {deployment.name}`."
    )


def policy(session: Session, deployment: DeploymentRow) -> Policy:
    rows = _valid(session, deployment.id or 0)
    return Policy(deployment.keyed, tuple(_key(row) for row in rows))


def views(session: Session, deployment: DeploymentRow) -> list[KeyView]:
    """All of them, those that are revoked too, in the order in which they were given out."""
    query = select(ServiceKeyRow).where(ServiceKeyRow.deployment_id == deployment.id)
    rows = session.exec(query.order_by(col(ServiceKeyRow.id))).all()
    return [view(deployment, row) for row in rows]


def view(deployment: DeploymentRow, row: ServiceKeyRow) -> KeyView:
    return {
        "service": deployment.name,
        "target": deployment.target,  # type: ignore[typeddict-item]  # only targets are ever stored
        "name": row.name,
        "rate": row.rate,
        "user": row.user,
        "created_at": rfc3339(row.created_at),
        "revoked_at": None if row.revoked_at is None else rfc3339(row.revoked_at),
    }


def _valid(session: Session, deployment: int) -> list[ServiceKeyRow]:
    query = select(ServiceKeyRow).where(
        ServiceKeyRow.deployment_id == deployment, col(ServiceKeyRow.revoked_at).is_(None)
    )
    return list(session.exec(query.order_by(col(ServiceKeyRow.id))).all())


def _key(row: ServiceKeyRow) -> Key:
    assert row.id is not None
    return Key(row.id, row.digest, None if row.rate is None else Rate.parse(row.rate))
