"""Services in the registry: what is deployed, what it became, and which jobs are its replicas.

Like `jobs/store/writing.py`: every function takes an open Session and never commits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlmodel import Session, col, select

from jobs.base.errors import NotFound
from jobs.life.lifecycle import Note
from jobs.services import stored
from jobs.services.rollout import Deployment
from jobs.services.spec import ServiceSpec
from jobs.spec.job import JobSpec
from jobs.store import audit
from jobs.store import writing as registry
from jobs.store.entering import Entered, Entry, Submission, enter_jobs
from jobs.store.servicetables import DeploymentRow, ReleaseRow, ReplicaRow
from jobs.store.tables import JobRow, MetaRow
from jobs.store.writing import Caller
from jobs.wire.views import EventView

_FRONT = "front_job"


def deployment_of(row: DeploymentRow) -> Deployment:
    assert row.id is not None
    return stored.from_json(row.id, row.name, row.target, row.state)


def all_deployments(session: Session) -> list[DeploymentRow]:
    return list(session.exec(select(DeploymentRow).order_by(col(DeploymentRow.id))).all())


def find(session: Session, name: str, target: str | None) -> DeploymentRow:
    """The deployment that a person means. Raises NotFound, also where it is at both targets."""
    query = select(DeploymentRow).where(DeploymentRow.name == name)
    rows = session.exec(query).all()
    if target is not None:
        rows = [row for row in rows if row.target == target]
    if not rows:
        where = "" if target is None else f" at {target}"
        raise NotFound(f"no service '{name}' is deployed{where}", "`qd deployments` lists them.")
    if len(rows) > 1:
        raise NotFound(f"'{name}' is deployed at staging and at production", "Say --to which.")
    return rows[0]


def get_or_add(
    session: Session, name: str, target: str, who: Caller, bind: str, port: int, now: float
) -> DeploymentRow:
    """The deployment's row; a new one has nothing deployed yet."""
    query = select(DeploymentRow).where(DeploymentRow.name == name, DeploymentRow.target == target)
    row = session.exec(query).first()
    if row is None:
        empty = stored.to_json(Deployment(0, name, target))  # type: ignore[arg-type]
        row = DeploymentRow(
            name=name,
            target=target,
            user=who.user,
            uid=who.uid,
            bind=bind,
            port=port,
            state=empty,
            created_at=now,
            changed_at=now,
        )
        session.add(row)
        session.flush()
    return row


def add_release(
    session: Session,
    row: DeploymentRow,
    number: int,
    version: str,
    spec: ServiceSpec,
    who: Caller,
    now: float,
    *,
    snapshot: str | None,
    digest: str | None,
) -> None:
    session.add(
        ReleaseRow(
            deployment_id=row.id or 0,
            number=number,
            version=version,
            spec=spec.to_json(),
            snapshot=snapshot,
            digest=digest,
            user=who.user,
            created_at=now,
        )
    )


def releases(session: Session, deployment: int) -> dict[int, ReleaseRow]:
    query = select(ReleaseRow).where(ReleaseRow.deployment_id == deployment)
    return {row.number: row for row in session.exec(query).all()}


def save(
    session: Session,
    number: int,
    deployment: Deployment,
    counted: Mapping[str, Any] | None,
    notes: Sequence[Note],
    who: Caller,
    now: float,
) -> list[EventView]:
    """Store what the rollout's machine decided, with its events and an audit row for each.

    Args:
        counted: where the front's counts were looked at; None: as before.
        who: a person, or the controller where it decided by itself.
    """
    row = session.get(DeploymentRow, number)
    assert row is not None
    row.state, row.changed_at = stored.to_json(deployment), now
    if counted is not None:
        row.counted = dict(counted)
    session.add(row)
    session.flush()
    for note in notes:
        audit.append(
            session,
            at=now,
            user=who.user,
            uid=who.uid,
            action=note.kind,
            target=f"{row.name}@{row.target}",
            data={"text": note.message, **(who.via.to_json() if who.via is not None else {})},
        )
    return registry.add_events(session, None, notes, now)


# -- replicas ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Held:
    """A replica's row, with what its job is now."""

    release: int
    slot: int
    job: int
    replaced: int
    state: str
    reason: str
    ran: float  # seconds, of a job that has ended


def replicas(session: Session) -> dict[int, list[Held]]:
    """The replicas of every deployment, by its number."""
    query = (
        select(ReplicaRow, JobRow)
        .join(JobRow, col(ReplicaRow.job_id) == col(JobRow.id))
        .order_by(col(ReplicaRow.release), col(ReplicaRow.slot))
    )
    found: dict[int, list[Held]] = {}
    for row, job in session.exec(query).all():
        ran = (job.ended_at or 0.0) - (job.started_at or job.ended_at or 0.0)
        held = Held(row.release, row.slot, row.job_id, row.replaced, job.state, job.reason, ran)
        found.setdefault(row.deployment_id, []).append(held)
    return found


def add_replica(
    session: Session, deployment: DeploymentRow, release: ReleaseRow, slot: int, now: float
) -> tuple[JobSpec, Entered]:
    """A job for a place that has none, or whose job has ended."""
    spec = ServiceSpec.from_json(release.spec)
    job = spec.job(release.version)
    submission = Submission(
        name=f"{spec.name}-{slot}"[:63],
        kind=job.kind,
        spec=job.to_json(),
        nodes=job.nodes,
        ranks=job.world_size,
        gpus=job.total_gpus,
        cpus=job.total_cpus,
        priority=job.priority,
        max_restarts=job.max_restarts,
        tags=job.tags | {"target": deployment.target},
        snapshot=release.snapshot,
    )
    who = Caller(deployment.user, deployment.uid)
    (entered,) = enter_jobs(session, [Entry(submission, who, now)])
    key = (deployment.id, release.number, slot)
    row = session.get(ReplicaRow, key)
    if row is None:
        row = ReplicaRow(
            deployment_id=deployment.id or 0,
            release=release.number,
            slot=slot,
            job_id=entered.number,
        )
    else:
        row.job_id, row.replaced = entered.number, row.replaced + 1
    session.add(row)
    return job, entered


def drop_replica(session: Session, deployment: int, release: int, slot: int) -> None:
    row = session.get(ReplicaRow, (deployment, release, slot))
    if row is not None:
        session.delete(row)


# -- the front --------------------------------------------------------------------------------------


def front_job(session: Session) -> JobRow | None:
    """The job that is the front now."""
    row = session.get(MetaRow, _FRONT)
    return None if row is None else session.get(JobRow, int(row.value))


def set_front(session: Session, job: int) -> None:
    row = session.get(MetaRow, _FRONT) or MetaRow(name=_FRONT, value="")
    row.value = str(job)
    session.add(row)
