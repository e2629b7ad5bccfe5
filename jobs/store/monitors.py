"""Monitors in the registry: references, windows, and what they came to.

Like `jobs/store/writing.py`: every function takes an open Session and never commits.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, cast

from sqlalchemy import delete
from sqlmodel import Session, col, select

from jobs.base.errors import NotFound
from jobs.base.names import job_name
from jobs.base.times import rfc3339
from jobs.services.monitoring import Watch
from jobs.store.monitortables import MonitorRow, MonitorRunRow
from jobs.store.servicetables import DeploymentRow
from jobs.store.tables import ArtifactRow, JobRow
from jobs.wire.monitorviews import MonitorRunView, RunState

LISTED = 30


def monitor(session: Session, deployment: int, version: str, since: float) -> MonitorRow:
    """What is known of a version; a new one begins with what it serves from `since` on (unix time)."""
    row = session.get(MonitorRow, (deployment, version))
    if row is None:
        row = MonitorRow(deployment_id=deployment, version=version, judged=since, looked=since)
        session.add(row)
        session.flush()
    return row


def watch_of(row: MonitorRow) -> Watch:
    return Watch(row.judged, row.looked, row.drifting, row.windows, row.clean)


def save_watch(session: Session, row: MonitorRow, watch: Watch) -> None:
    row.judged, row.looked = watch.judged, watch.looked
    row.drifting, row.windows, row.clean = watch.drifting, watch.windows, watch.clean
    session.add(row)


def running(session: Session) -> list[tuple[MonitorRunRow, DeploymentRow, JobRow | None]]:
    """Windows that are being looked at, with their jobs."""
    query = (
        select(MonitorRunRow, DeploymentRow, JobRow)
        .join(DeploymentRow, col(MonitorRunRow.deployment_id) == col(DeploymentRow.id))
        .outerjoin(JobRow, col(MonitorRunRow.job_id) == col(JobRow.id))
        .where(MonitorRunRow.state == "RUNNING")
        .order_by(col(MonitorRunRow.id))
    )
    return cast(
        "list[tuple[MonitorRunRow, DeploymentRow, JobRow | None]]", session.exec(query).all()
    )


def report_of(session: Session, job: int) -> str | None:
    """The digest of what a monitor's job has written."""
    query = select(ArtifactRow.digest).where(
        ArtifactRow.job_id == job, ArtifactRow.name == "report"
    )
    return session.exec(query).first()


def runs(session: Session, deployment: int, limit: int = LISTED) -> list[MonitorRunRow]:
    """Newest first."""
    query = (
        select(MonitorRunRow)
        .where(MonitorRunRow.deployment_id == deployment)
        .order_by(col(MonitorRunRow.id).desc())
        .limit(limit)
    )
    return list(session.exec(query).all())


def get(session: Session, number: int) -> tuple[MonitorRunRow, DeploymentRow]:
    """Raises NotFound."""
    row = session.get(MonitorRunRow, number)
    deployment = session.get(DeploymentRow, row.deployment_id) if row is not None else None
    if row is None or deployment is None:
        raise NotFound(f"there is no window {number}", "`qd monitor NAME --history` lists them.")
    return row, deployment


def jobs_that_served(
    session: Session,
    service: str,
    target: str,
    version: str | None,
    since: float,
    held: Collection[int],
) -> list[int]:
    """Jobs that may have logged requests of a version, or of any, since then (unix time): `held` are the
    replicas of now."""
    query = select(JobRow.id, JobRow.tags).where(
        JobRow.kind == "service", col(JobRow.ended_at).is_(None) | (col(JobRow.ended_at) >= since)
    )
    wanted = {"service": service, "target": target}
    wanted |= {} if version is None else {"version": version}
    return [
        number
        for number, tags in session.exec(query).all()
        if number is not None
        and (
            wanted.items() <= tags.items()
            or (number in held and version in (None, tags.get("version")))
        )
    ]


def references(session: Session) -> set[str]:
    """Digests of blobs that are references."""
    query = select(MonitorRow.reference).where(col(MonitorRow.reference).is_not(None))
    return {digest for digest in session.exec(query).all() if digest is not None}


KEPT = 1000
"""Windows of a service that are kept."""


def prune(session: Session, deployment: int) -> None:
    """Drop the oldest windows beyond `KEPT`."""
    query = select(col(MonitorRunRow.id)).where(MonitorRunRow.deployment_id == deployment)
    edge = session.exec(query.order_by(col(MonitorRunRow.id).desc()).offset(KEPT).limit(1)).first()
    if edge is not None:
        session.execute(
            delete(MonitorRunRow).where(
                col(MonitorRunRow.deployment_id) == deployment, col(MonitorRunRow.id) <= edge
            )
        )


def view(row: MonitorRunRow, deployment: DeploymentRow, *, whole: bool) -> MonitorRunView:
    features: list[dict[str, Any]] = row.report.get("features", [])
    return {
        "id": row.id or 0,
        "service": deployment.name,
        "target": deployment.target,
        "version": row.version,
        "since": rfc3339(row.since),
        "until": rfc3339(row.until),
        "scheduled": row.scheduled,
        "user": row.user,
        "requests": row.requests,
        "job": None if row.job_id is None else job_name(row.job_id),
        "state": cast("RunState", row.state),
        "status": row.status,
        "reason": row.reason,
        "drifted": [feature["name"] for feature in features if feature["drift"]],
        "report": dict(row.report) if whole else {},
    }
