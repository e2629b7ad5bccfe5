"""An attempt as the registry knows it, whether it runs or is over: enough to ask its nodes for its files."""

from __future__ import annotations

from dataclasses import dataclass

from sqlmodel import Session, col, select

from jobs.base.names import AttemptKey, RunRef
from jobs.store import reading
from jobs.store.tables import AllocationRow, ArtifactRow, AttemptRow, JobRow


@dataclass(frozen=True, slots=True)
class Ran:
    """An attempt that has begun: where it ran, what it left, and what agents know it by."""

    job: int
    number: int
    nodes: list[str]  # by node rank
    artifacts: list[ArtifactRow]
    token: str
    identity: str

    def key(self, cluster: str) -> str:
        return str(AttemptKey(cluster, self.job, self.number, self.token, self.identity))


def ran(session: Session, ref: RunRef) -> Ran | None:
    """The attempt that is meant; None when the job has not begun."""
    found = reading.epoch_of(session, ref.job, ref.attempt)
    if found is None:
        return None
    epoch, number = found
    token, identity = session.exec(
        select(JobRow.token, AttemptRow.identity)
        .join(AttemptRow, col(AttemptRow.job_id) == col(JobRow.id))
        .where(AttemptRow.id == epoch)
    ).one()
    allocations = session.exec(
        select(AllocationRow.node)
        .where(AllocationRow.attempt_id == epoch)
        .order_by(col(AllocationRow.node_rank))
    ).all()
    artifacts = session.exec(
        select(ArtifactRow).where(ArtifactRow.attempt_id == epoch).order_by(ArtifactRow.name)
    ).all()
    for row in artifacts:
        session.expunge(row)
    return Ran(ref.job, number, list(allocations), list(artifacts), token, identity)
