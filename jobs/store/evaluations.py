"""Evaluations in the registry.

Like `jobs/store/writing.py`: every function takes an open Session and never commits.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, cast

from sqlmodel import Session, col, select

from jobs.base.errors import NotFound
from jobs.base.names import job_name
from jobs.base.times import maybe_rfc3339, rfc3339
from jobs.models import gates
from jobs.models.digests import digest_of
from jobs.models.evaluations import Evaluated, evaluation_name
from jobs.models.gates import Gate
from jobs.models.names import version_name
from jobs.store.evaluationtables import EvaluationRow, EvaluationSampleRow
from jobs.store.modeltables import ModelRow, ModelVersionRow
from jobs.store.tables import ArtifactRow, JobRow
from jobs.wire.evaluationviews import EvaluationDetail, EvaluationState, EvaluationView

LISTED = 200
LOOKED_AT = 50
"""Evaluations of a version, the newest, that a gate looks at."""


def running(session: Session) -> list[tuple[int, JobRow]]:
    """Evaluations that are not over, with their jobs."""
    query = (
        select(EvaluationRow.id, JobRow)
        .join(JobRow, col(EvaluationRow.job_id) == col(JobRow.id))
        .where(EvaluationRow.state == "RUNNING")
        .order_by(col(EvaluationRow.id))
    )
    return cast("list[tuple[int, JobRow]]", session.exec(query).all())


def of_job(session: Session, job: int) -> EvaluationRow | None:
    return session.exec(select(EvaluationRow).where(EvaluationRow.job_id == job)).first()


def written(session: Session, job: int) -> dict[str, str]:
    """The digests of what the job has left, by output."""
    query = select(ArtifactRow.name, ArtifactRow.digest).where(ArtifactRow.job_id == job)
    return dict(session.exec(query).all())


def finish(
    session: Session,
    row: EvaluationRow,
    now: float,
    *,
    reason: str = "",
    document: Mapping[str, Any] | None = None,
    samples: Mapping[str, Sequence[float | None]] | None = None,
) -> None:
    """Store what it came to: the evidence, or why there is none."""
    row.state, row.reason, row.ended_at = ("FAILED" if document is None else "DONE"), reason, now
    if document is not None:
        row.document, row.evidence = dict(document), digest_of(document)
    session.add(row)
    for metric, values in (samples or {}).items():
        session.add(
            EvaluationSampleRow(evaluation_id=row.id or 0, metric=metric, samples=list(values))
        )
    session.flush()


Found = tuple[EvaluationRow, ModelRow, ModelVersionRow]


def get(session: Session, number: int) -> Found:
    """Raises NotFound."""
    query = _joined().where(EvaluationRow.id == number)
    found = session.exec(query).first()
    if found is None:
        raise NotFound(
            f"there is no evaluation {evaluation_name(number)}", "`qd evaluations` lists them."
        )
    return cast("Found", tuple(found))


def listed(
    session: Session,
    *,
    model: str | None = None,
    version: int | None = None,
    data: str | None = None,
    limit: int = LISTED,
) -> list[Found]:
    """Newest first. `version`: the id of its row. `data`: a data set, or one version of it."""
    query = _joined()
    if model is not None:
        query = query.where(ModelRow.name == model)
    if version is not None:
        query = query.where(EvaluationRow.version_id == version)
    if data is not None and "@" in data:
        query = query.where(EvaluationRow.data == data)
    elif data is not None:
        query = query.where(col(EvaluationRow.data).startswith(f"{data}@", autoescape=True))
    rows = session.exec(query.order_by(col(EvaluationRow.id).desc()).limit(limit)).all()
    return [cast("Found", tuple(row)) for row in rows]


def _joined() -> Any:
    return (
        select(EvaluationRow, ModelRow, ModelVersionRow)
        .join(ModelVersionRow, col(EvaluationRow.version_id) == col(ModelVersionRow.id))
        .join(ModelRow, col(ModelVersionRow.model_id) == col(ModelRow.id))
    )


def sound(row: EvaluationRow, version: ModelVersionRow) -> bool:
    """Whether its document is what was stored, and of the version's bytes."""
    document = row.document
    return (
        document is not None
        and digest_of(document) == row.evidence
        and document.get("digest") == row.digest == version.digest
        and document.get("data_digest") == row.data_digest
        and document.get("data") == row.data
    )


def evaluated(found: Found, samples: Mapping[str, Sequence[float | None]]) -> Evaluated:
    """As gates see it; of one that is done."""
    row, model, version = found
    assert row.document is not None and row.evidence is not None
    return Evaluated(
        evaluation_name(row.id or 0),
        version_name(model.name, version.number),
        row.digest,
        row.data,
        row.data_digest,
        row.evidence,
        row.document["report"],
        samples,
    )


def for_gate(
    session: Session, version: int, gate: Gate, data_digest: str | None = None
) -> list[Evaluated]:
    """What a gate may look at: the evaluations of a version on one version of the data, newest first. Those
    whose documents have been changed do not count.

    Args:
        data_digest: that version of the data; by default the newest one evaluation's.
    """
    known: list[Evaluated] = []
    for found in listed(session, version=version, data=gate.data, limit=LOOKED_AT):
        row, _, of = found
        if row.state != "DONE" or not sound(row, of):
            continue
        if row.data_digest == (data_digest or row.data_digest):
            data_digest = row.data_digest
            assert row.document is not None
            wanted = gates.sampled(gate, row.document["report"])
            known.append(evaluated(found, samples_of(session, row, wanted)))
    return known


def samples_of(
    session: Session, row: EvaluationRow, metrics: Collection[str]
) -> dict[str, list[float | None]]:
    """The samples of these metrics, as far as they are there and as they were."""
    if not metrics or row.document is None:
        return {}
    query = select(EvaluationSampleRow).where(
        EvaluationSampleRow.evaluation_id == row.id,
        col(EvaluationSampleRow.metric).in_(sorted(metrics)),
    )
    told = row.document.get("samples", {})
    return {
        one.metric: one.samples
        for one in session.exec(query).all()
        if digest_of(one.samples) == told.get(one.metric)
    }


def view(found: Found) -> EvaluationView:
    row, model, version = found
    report = (row.document or {}).get("report", {})
    return {
        "id": evaluation_name(row.id or 0),
        "model": version_name(model.name, version.number),
        "digest": row.digest,
        "data": row.data,
        "data_digest": row.data_digest,
        "job": job_name(row.job_id),
        "state": cast("EvaluationState", row.state),
        "reason": row.reason,
        "evidence": row.evidence,
        "task": report.get("task"),
        "rows": report.get("rows"),
        "metrics": dict(report.get("metrics", {})),
        "user": row.user,
        "created_at": rfc3339(row.created_at),
        "ended_at": maybe_rfc3339(row.ended_at),
    }


def detail(found: Found) -> EvaluationDetail:
    row, _, version = found
    return {
        **view(found),
        "asked": row.asked,
        "sound": sound(row, version),
        "document": row.document,
    }
