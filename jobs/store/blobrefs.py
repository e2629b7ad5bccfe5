"""What the registry refers to in the store of blobs, and what it may let go of.

Like `jobs/store/writing.py`: every function takes an open Session and never commits.

Whatever a row refers to is kept: snapshots of jobs and sweeps, outputs and checkpoints of runs, versions
of models and data sets, what a job that is not over begins with. One kind of thing goes by itself: in a
population each turn leaves a checkpoint for others to begin with, and once nobody can begin there any
more (`jobs.sweeps.populations.spent`) it is forgotten.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from sqlmodel import Session, col, or_, select

from jobs.base.names import CHECKPOINT
from jobs.base.states import TERMINAL
from jobs.store import datasets, features, models, monitors, sweepwriting
from jobs.store.sweeptables import SweepRow, SweepTrialRow
from jobs.store.tables import ArtifactRow, JobRow, SnapshotRow
from jobs.sweeps.populations import spent


@dataclass(slots=True)
class Roots:
    """Digests ("sha256:..."). A manifest refers to the blobs of its files in turn."""

    manifests: set[str] = field(default_factory=set)
    blobs: set[str] = field(default_factory=set)


def roots(session: Session, without: Collection[tuple[int, int]] = ()) -> Roots:
    """Everything that is referred to.

    Args:
        without: trials, as (sweep, number), whose checkpoints are left out, as if `forget` had been
            called of them.
    """
    found = Roots()
    for column in (col(SnapshotRow.digest), col(JobRow.snapshot), col(SweepRow.snapshot)):
        found.manifests.update(
            digest for digest in session.scalars(select(column).distinct()) if digest is not None
        )
    gone = {
        (job, digest)
        for job, digest in (_checkpoint(session, *trial) for trial in without)
        if digest is not None
    }
    for job, kind, digest in session.exec(
        select(ArtifactRow.job_id, ArtifactRow.kind, ArtifactRow.digest)
    ).all():
        if kind == "file":
            found.blobs.add(digest)
        elif (job, digest) not in gone:
            found.manifests.add(digest)
    left = select(SweepTrialRow.job_id, SweepTrialRow.checkpoint)
    for job, kept in session.exec(left.where(col(SweepTrialRow.checkpoint).is_not(None))).all():
        if kept is not None and (job, kept) not in gone:
            found.manifests.add(kept)
    found.blobs |= monitors.references(session)
    found.manifests |= _starts(session) | models.digests(session) | datasets.digests(session)
    found.manifests |= features.digests(session)
    return found


def _starts(session: Session) -> set[str]:
    """What jobs begin with: those of sweeps, those that are not over, and, since they may be run again,
    those that a person has submitted."""
    start = col(JobRow.spec)["checkpoint"]["start"].as_string()
    of_sweep = select(SweepTrialRow.job_id).where(col(SweepTrialRow.job_id) == JobRow.id).exists()
    rows = session.exec(
        select(start)
        .where(start.is_not(None))
        .where(or_(col(JobRow.state).not_in(sorted(TERMINAL)), ~of_sweep))
        .distinct()
    ).all()
    every = col(SweepRow.spec)["job"]["checkpoint"]["start"].as_string()
    trials = session.exec(select(every).where(every.is_not(None)).distinct()).all()
    return {row for row in [*rows, *trials] if row is not None}


def _checkpoint(session: Session, sweep: int, number: int) -> tuple[int, str | None]:
    row = sweepwriting.trial_of(session, sweep, number)
    return row.job_id, row.checkpoint


def spent_checkpoints(session: Session, before: float) -> list[tuple[int, int]]:
    """Trials, as (sweep, number), that have ended before then and whose checkpoints nobody needs.

    Of a sweep whose own job says `checkpoint: {keep: true}`, none.
    """
    sweeps = session.exec(
        select(SweepTrialRow.sweep_id)
        .where(col(SweepTrialRow.checkpoint).is_not(None), col(SweepTrialRow.ended_at) < before)
        .distinct()
    ).all()
    found = []
    for number in sweeps:
        row = sweepwriting.get(session, number)
        spec = sweepwriting.spec_of(row)
        if spec.sampler.name != "pbt" or spec.job.checkpoint.artifact:
            continue
        maximize = spec.objective[0].goal == "maximize"
        turns = sweepwriting.turns(session, number)
        old = _old(session, number, before)
        found += [
            (number, turn)
            for turn in spent(
                spec.population, turns, maximize=maximize, reruns=sweepwriting.to_run_again(row)
            )
            if turn in old
        ]
    return found


def _old(session: Session, sweep: int, before: float) -> set[int]:
    query = select(SweepTrialRow.number).where(
        SweepTrialRow.sweep_id == sweep, col(SweepTrialRow.ended_at) < before
    )
    return set(session.exec(query).all())


def forget_spent(session: Session, before: float) -> int:
    """Let go of what `spent_checkpoints` names; how many. The artifacts of their jobs go with them."""
    trials = spent_checkpoints(session, before)
    for sweep, number in trials:
        trial = sweepwriting.trial_of(session, sweep, number)
        for artifact in session.exec(
            select(ArtifactRow).where(
                ArtifactRow.job_id == trial.job_id,
                ArtifactRow.name == CHECKPOINT,
                ArtifactRow.digest == trial.checkpoint,
            )
        ).all():
            session.delete(artifact)
        trial.checkpoint = None
        session.add(trial)
    return len(trials)
