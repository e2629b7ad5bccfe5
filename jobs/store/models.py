"""Models in the registry: reading and writing them, inside the caller's transaction.

As in `jobs/store/writing.py`, every function takes an open Session and never commits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlmodel import Session, col, select

from jobs.base.errors import Conflict, NotFound
from jobs.base.names import RunRef, job_name
from jobs.base.numbers import finite
from jobs.base.times import maybe_rfc3339, rfc3339
from jobs.models.approval import Given, Outcome, Policy, Standing, Subject, standing
from jobs.models.digests import digest_of
from jobs.models.evaluations import Evaluated
from jobs.models.gates import Measured
from jobs.models.names import ModelRef, version_name
from jobs.models.signers import Signers, statement
from jobs.models.sshsig import BadSignature
from jobs.store import datasets, features, reading
from jobs.store.modeltables import (
    ApprovalRow,
    GateRow,
    ModelAliasRow,
    ModelRow,
    ModelTagRow,
    ModelVersionRow,
)
from jobs.store.sweeptables import SweepTrialRow
from jobs.store.tables import ArtifactRow, AttemptRow, JobRow, RankRow
from jobs.store.writing import Caller
from jobs.wire.dataviews import DataPin
from jobs.wire.modelviews import ApprovalView, EvidenceView, ModelView, StandingView


@dataclass(frozen=True, slots=True)
class Source:
    """Where a version comes from: what its row says of that."""

    lineage: Mapping[str, Any]
    metrics: Mapping[str, float | None]
    job: int | None = None
    author: int | None = None  # uid


@dataclass(frozen=True, slots=True)
class Content:
    """What a version is made of."""

    digest: str
    files: int
    size: int
    format: str
    main: str | None
    pickles: Sequence[Sequence[str]]
    signature: Mapping[str, Any] | None


# -- finding --------------------------------------------------------------------------------------


def find_model(session: Session, name: str) -> ModelRow | None:
    return session.exec(select(ModelRow).where(ModelRow.name == name)).first()


def get_model(session: Session, name: str) -> ModelRow:
    """Raises NotFound."""
    row = find_model(session, name)
    if row is None:
        raise NotFound(f"there is no model '{name}'", "`qd models` lists them.")
    return row


def pins(session: Session) -> dict[str, DataPin]:
    """Every version by its name, with what a node needs to bring it."""
    query = select(ModelRow.name, ModelVersionRow.number, ModelVersionRow.digest).where(
        ModelVersionRow.model_id == ModelRow.id
    )
    return {
        version_name(name, number): DataPin(
            version=version_name(name, number), manifest=digest, file=None
        )
        for name, number, digest in session.exec(query).all()
    }


def pin(session: Session, ref: ModelRef) -> DataPin:
    """What a node needs of one. Raises NotFound, and Conflict for one that is archived."""
    model, row = get_version(session, ref)
    name = version_name(model.name, row.number)
    if row.archived_at is not None:
        raise Conflict(f"{name} is archived", "Name a version that is not.")
    return DataPin(version=name, manifest=row.digest, file=None)


def get_version(session: Session, ref: ModelRef) -> tuple[ModelRow, ModelVersionRow]:
    """Raises NotFound."""
    model = get_model(session, ref.name)
    query = select(ModelVersionRow).where(ModelVersionRow.model_id == model.id)
    if ref.alias is not None:
        alias = session.get(ModelAliasRow, (model.id, ref.alias))
        if alias is None:
            raise NotFound(
                f"{ref.name} has no version with the alias {ref.alias}",
                f"`qd models {ref.name}` lists them.",
            )
        query = query.where(ModelVersionRow.id == alias.version_id)
    elif ref.number is not None:
        query = query.where(ModelVersionRow.number == ref.number)
    elif ref.label is not None:
        query = query.where(ModelVersionRow.label == ref.label)
    else:
        query = query.where(col(ModelVersionRow.archived_at).is_(None))
    row = session.exec(query.order_by(col(ModelVersionRow.number).desc()).limit(1)).first()
    if row is None:
        raise NotFound(f"there is no {ref}", f"`qd models {ref.name}` lists its versions.")
    return model, row


@dataclass(frozen=True, slots=True)
class Wanted:
    """What `GET /v1/models` may ask for. Every value is bound, none becomes part of a statement."""

    name: str | None = None
    text: str | None = None
    tags: Sequence[tuple[str, str]] = ()
    alias: str | None = None
    job: int | None = None
    archived: bool = False
    limit: int = 200


def versions(session: Session, wanted: Wanted) -> list[tuple[ModelRow, ModelVersionRow]]:
    """Versions by the name of their model, the newest first."""
    query = select(ModelRow, ModelVersionRow).where(ModelVersionRow.model_id == ModelRow.id)
    if wanted.name is not None:
        query = query.where(ModelRow.name == wanted.name)
    if wanted.text:
        query = query.where(col(ModelRow.name).icontains(wanted.text, autoescape=True))
    for key, value in wanted.tags:
        query = query.where(
            select(ModelTagRow.version_id)
            .where(
                ModelTagRow.version_id == ModelVersionRow.id,
                ModelTagRow.key == key,
                ModelTagRow.value == value,
            )
            .exists()
        )
    if wanted.alias is not None:
        query = query.where(
            select(ModelAliasRow.version_id)
            .where(
                ModelAliasRow.version_id == ModelVersionRow.id, ModelAliasRow.alias == wanted.alias
            )
            .exists()
        )
    if wanted.job is not None:
        query = query.where(ModelVersionRow.job_id == wanted.job)
    if not wanted.archived:
        query = query.where(col(ModelVersionRow.archived_at).is_(None))
    query = query.order_by(col(ModelRow.name), col(ModelVersionRow.number).desc())
    return [(model, row) for model, row in session.exec(query.limit(wanted.limit)).all()]


def digests(session: Session) -> set[str]:
    """The manifests of all versions: what they refer to must stay."""
    return set(session.exec(select(ModelVersionRow.digest).distinct()).all())


# -- publishing -----------------------------------------------------------------------------------


def publish(
    session: Session,
    name: str,
    content: Content,
    source: Source,
    who: Caller,
    now: float,
    *,
    label: str | None = None,
    tags: Mapping[str, str] | None = None,
) -> tuple[ModelRow, ModelVersionRow, bool]:
    """Add a version, unless the model has one of these very files; whether it is new.

    Raises:
        Conflict: its label is another version's, or these files are a version that is archived.
    """
    model = find_model(session, name)
    if model is None:
        model = ModelRow(name=name, user=who.user, uid=who.uid, created_at=now)
        session.add(model)
        session.flush()
    mine = select(ModelVersionRow).where(ModelVersionRow.model_id == model.id)
    known = session.exec(mine.where(ModelVersionRow.digest == content.digest)).first()
    if known is not None:
        if known.archived_at is not None:
            raise Conflict(
                f"{version_name(name, known.number)} has these very files, and is archived",
                f"`qd model archive {version_name(name, known.number)} --undo` takes it back.",
            )
        return model, known, False
    if label is not None and session.exec(mine.where(ModelVersionRow.label == label)).first():
        raise Conflict(f"{name} has a version {label} already", "A version never changes.")
    model.versions += 1
    session.add(model)
    row = ModelVersionRow(
        model_id=model.id or 0,
        number=model.versions,
        label=label,
        digest=content.digest,
        files=content.files,
        size=content.size,
        format=content.format,
        main=content.main,
        pickles=[list(item) for item in content.pickles],
        signature=None if content.signature is None else dict(content.signature),
        metrics=dict(source.metrics),
        lineage=dict(source.lineage),
        job_id=source.job,
        author=source.author,
        user=who.user,
        uid=who.uid,
        created_at=now,
    )
    session.add(row)
    session.flush()
    for key, value in (tags or {}).items():
        session.add(ModelTagRow(version_id=row.id or 0, key=key, value=value))
    session.flush()
    return model, row, True


@dataclass(frozen=True, slots=True)
class Run:
    """An attempt that has left something: its outputs by name, and what a version says of it."""

    ref: str
    outputs: Mapping[str, ArtifactRow]
    source: Source


def run_of(session: Session, ref: RunRef) -> Run:
    """The attempt that is meant: the one that is named, else the newest that has left something.

    Raises:
        NotFound: it has left nothing.
    """
    job = reading.get_job(session, ref.job)
    query = (
        select(AttemptRow)
        .where(AttemptRow.job_id == ref.job)
        .where(select(ArtifactRow.name).where(ArtifactRow.attempt_id == AttemptRow.id).exists())
    )
    if ref.attempt is not None:
        query = query.where(AttemptRow.number == ref.attempt)
    attempt = session.exec(query.order_by(col(AttemptRow.number).desc()).limit(1)).first()
    if attempt is None:
        raise NotFound(
            f"{ref} has left no outputs",
            "A job that succeeds leaves what `outputs: {model: out/model.onnx}` in its file names.",
        )
    rows = session.exec(select(ArtifactRow).where(ArtifactRow.attempt_id == attempt.id)).all()
    run = f"{job_name(ref.job)}.{attempt.number}"
    return Run(run, {row.name: row for row in rows}, source_of(session, job, attempt))


def source_of(session: Session, job: JobRow, attempt: AttemptRow) -> Source:
    """What a version says of the run that it comes from."""
    epoch, number = attempt.id or 0, job.id or 0
    ranks = session.exec(select(RankRow).where(RankRow.attempt_id == epoch)).all()
    trial = session.exec(select(SweepTrialRow).where(SweepTrialRow.job_id == number)).first()
    spec = job.spec
    latest = reading.latest_metrics(session, epoch)
    lineage: dict[str, Any] = {
        "kind": "run",
        "run": f"{job_name(number)}.{attempt.number}",
        "job": job_name(number),
        "attempt": attempt.number,
        "name": job.name,
        "user": job.user,
        "command": spec.get("command"),
        "params": trial.params if trial else spec.get("params"),
        "seed": spec.get("seed"),
        "data": spec.get("data"),
        "made": datasets.ancestry(session, spec.get("data") or {}),
        "features": features.named(session, spec.get("features")),
        "python": spec.get("python"),
        "requirements": spec.get("requirements"),
        "snapshot": job.snapshot,
        **({"image": spec.get("image"), "image_digest": job.image} if job.image else {}),
        "git": job.git,
        "sweep": {"id": f"s{trial.sweep_id}", "trial": trial.number} if trial else None,
        "nodes": sorted({rank.node for rank in ranks}),
        "gpus": sorted({gpu for rank in ranks for gpu in rank.gpus}),
        "ranks": len(ranks),
        "started_at": maybe_rfc3339(attempt.started_at),
        "ended_at": maybe_rfc3339(attempt.ended_at),
    }
    metrics = {name: finite(value["value"]) for name, value in latest.items()}
    return Source(lineage, metrics, number, job.uid)


def is_folder(artifact: ArtifactRow) -> bool:
    """Whether its digest names a manifest of many files, not one file."""
    return artifact.kind == "folder"


# -- what is said of a version --------------------------------------------------------------------


def policy_of(model: ModelRow) -> Policy:
    return Policy.from_json(model.policy)


def subject_of(model: ModelRow, row: ModelVersionRow) -> Subject:
    authors = frozenset({row.uid} | ({row.author} if row.author is not None else set()))
    name = version_name(model.name, row.number)
    return Subject(name, row.digest, authors, row.archived_at is not None)


def gates_of(session: Session, version: int) -> list[GateRow]:
    """Oldest first."""
    query = select(GateRow).where(GateRow.version_id == version).order_by(col(GateRow.id))
    return list(session.exec(query).all())


def decisions_of(session: Session, version: int) -> list[ApprovalRow]:
    """Oldest first."""
    query = select(ApprovalRow).where(ApprovalRow.version_id == version)
    return list(session.exec(query.order_by(col(ApprovalRow.id))).all())


def standing_of(
    session: Session, model: ModelRow, row: ModelVersionRow, now: float, signers: Signers
) -> Standing:
    """Whether a version is approved, by what is stored now and whose keys are believed now."""
    assert row.id is not None
    return standing(
        policy_of(model),
        subject_of(model, row),
        [
            given(item, subject_of(model, row).name, signers)
            for item in decisions_of(session, row.id)
        ],
        [outcome(item) for item in gates_of(session, row.id)],
        now,
    )


def given(row: ApprovalRow, version: str, signers: Signers) -> Given:
    """What a row says, with its signature looked at again."""
    return Given(
        id=row.id or 0,
        decision=row.decision,  # type: ignore[arg-type]  # only decisions are ever stored
        user=row.user,
        uid=row.uid,
        at=row.at,
        digest=row.digest,
        evidence=row.evidence_digest,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
        signature="none"
        if row.signature is None
        else "good"
        if signer(row, version, signers)
        else "bad",
    )


def statement_of(row: ApprovalRow, version: str, cluster: str) -> bytes:
    """What somebody has signed who said this."""
    return statement(
        cluster=cluster,
        version=version,
        digest=row.digest,
        decision=row.decision,
        evidence=row.evidence_digest,
        comment=row.comment,
        user=row.user,
    )


def signer(row: ApprovalRow, version: str, signers: Signers) -> str | None:
    """The fingerprint of the key that has signed it; None without a signature that holds."""
    if row.signature is None:
        return None
    message = statement_of(row, version, signers.cluster)
    try:
        return signers.check(row.signature, message, row.user, row.at).fingerprint
    except BadSignature:
        return None


def outcome(row: GateRow) -> Outcome:
    """A gate's result; what decides is taken from the document that its digest is of."""
    document = row.evidence
    sound = (
        digest_of(document) == row.evidence_digest
        and document.get("passed") == row.passed
        and document.get("digest") == row.digest
        and document.get("gate", {}).get("digest") == row.gate
    )
    return Outcome(row.evidence_digest, row.gate, row.digest, row.passed, row.at, sound)


def aliases(session: Session, model: int) -> dict[str, int]:
    """The model's aliases, and the versions' row ids that they point to."""
    query = select(ModelAliasRow.alias, ModelAliasRow.version_id)
    found = session.exec(query.where(ModelAliasRow.model_id == model).order_by(ModelAliasRow.alias))
    return dict(found.all())


def aliases_of(session: Session, version: int) -> list[str]:
    query = select(ModelAliasRow.alias).where(ModelAliasRow.version_id == version)
    return sorted(session.exec(query).all())


def tags_of(session: Session, version: int) -> dict[str, str]:
    query = select(ModelTagRow).where(ModelTagRow.version_id == version)
    return {row.key: row.value for row in session.exec(query.order_by(ModelTagRow.key)).all()}


def measured(
    model: ModelRow, row: ModelVersionRow, evaluations: Sequence[Evaluated] = ()
) -> Measured:
    """A version as gates see it."""
    name = version_name(model.name, row.number)
    return Measured(name, row.digest, row.lineage.get("run"), row.metrics, evaluations)


# -- views ----------------------------------------------------------------------------------------


def model_view(
    session: Session, model: ModelRow, row: ModelVersionRow, now: float, signers: Signers
) -> ModelView:
    assert row.id is not None
    where = standing_of(session, model, row, now, signers)
    names = aliases_of(session, row.id)
    protected = policy_of(model).protected
    return {
        "id": version_name(model.name, row.number),
        "name": model.name,
        "version": row.number,
        "label": row.label,
        "digest": row.digest,
        "stage": next((alias for alias in protected if alias in names), ""),
        "aliases": names,
        "state": where.state,
        "reason": where.reason,
        "run": row.lineage.get("run"),
        "format": row.format,
        "pickle": bool(row.pickles),
        "size": row.size,
        "files": row.files,
        "metrics": row.metrics,
        "approvals": len(where.counted),
        "approvals_needed": where.needed,
        "user": row.user,
        "created_at": rfc3339(row.created_at),
        "archived_at": maybe_rfc3339(row.archived_at),
    }


def standing_view(where: Standing) -> StandingView:
    return {
        "state": where.state,
        "reason": where.reason,
        "counted": len(where.counted),
        "needed": where.needed,
        "evidence": where.evidence,
    }


def evidence_view(row: GateRow) -> EvidenceView:
    return {
        "evidence": row.evidence_digest,
        "sound": outcome(row).sound,
        "passed": row.passed,
        "at": rfc3339(row.at),
        "user": row.user,
        "document": row.evidence,
    }


def approval_view(
    row: ApprovalRow, version: str, where: Standing, signers: Signers
) -> ApprovalView:
    return {
        "id": row.id or 0,
        "decision": row.decision,  # type: ignore[typeddict-item]
        "user": row.user,
        "at": rfc3339(row.at),
        "comment": row.comment,
        "digest": row.digest,
        "evidence": row.evidence_digest,
        "counts": row.id in where.counted,
        "expires_at": maybe_rfc3339(row.expires_at),
        "revoked_at": maybe_rfc3339(row.revoked_at),
        "revoked_by": row.revoked_by,
        "revoked_why": row.revoked_why,
        "signer": signer(row, version, signers),
        "signature": row.signature,
        "statement": statement_of(row, version, signers.cluster).decode()
        if row.signature
        else None,
    }
