"""A model's story, gathered from the audit log, lineage, pipelines, rollouts and alerts.

Like `jobs/store/writing.py`: functions take an open Session and never commit.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

from sqlmodel import Session, col, or_, select

from jobs.flows.triggers import about
from jobs.models.names import version_name
from jobs.models.story import happening, of_audit, of_run
from jobs.store import models
from jobs.store.alerttables import AlertRow
from jobs.store.flowtables import PipelineRow, PipelineTaskRow
from jobs.store.modeltables import ModelVersionRow
from jobs.store.services import deployment_of
from jobs.store.servicetables import DeploymentRow, ReleaseRow
from jobs.store.tables import AuditRow, JobRow
from jobs.wire.storyviews import Happening, ServingView, StoryView

MOST = 2_000
"""Rows of one kind that are looked at, the newest ones."""
_ABOUT_MODELS = ("model.", "rollout.", "release.", "service.deploy")
_SLICE = 500
"""Names in one question to the database."""


def story(session: Session, name: str, limit: int) -> StoryView:
    """Args:
        limit: how many happenings, the newest ones.

    Raises NotFound.
    """
    model = models.get_model(session, name)
    query = select(ModelVersionRow).where(ModelVersionRow.model_id == model.id)
    versions = session.exec(query.order_by(col(ModelVersionRow.number).desc()).limit(MOST)).all()
    numbers = {row.id: version_name(name, row.number) for row in versions}
    deployments = _deployments(session, {row.digest for row in versions})
    places = [f"{row.name}@{row.target}" for row in deployments]
    refused = [f"{ref}@{row.target}" for ref in numbers.values() for row in deployments]
    targets = [name, *numbers.values(), *places, *refused]
    found = [_row(row) for row in _audit(session, targets, _ABOUT_MODELS)]
    pipelines = _pipelines(session, {one["pipeline"] for one in found if one["pipeline"]})
    data = {ref for row in versions for ref in (row.lineage.get("data") or {}).values()}
    data |= _checked(session, [row.id or 0 for row in pipelines])
    found += _of_pipelines(session, pipelines)
    found += [_row(row) for row in _audit(session, sorted(data), ("data.",))]
    found += _runs(session, versions)
    found += _alerts(session, name, {f"p{row.id}" for row in pipelines}, places)
    found.sort(key=lambda one: one["at"])
    aliases = models.aliases(session, model.id or 0)
    return {
        "model": name,
        "versions": model.versions,
        "aliases": {alias: numbers[row] for alias, row in aliases.items() if row in numbers},
        "serving": [_serving(row) for row in deployments],
        "happenings": found[-limit:],
        "left_out": max(len(found) - limit, 0),
    }


def _audit(session: Session, targets: Sequence[str], kinds: Sequence[str]) -> list[AuditRow]:
    """Rows about these, the newest."""
    found: list[AuditRow] = []
    action = col(AuditRow.action)
    for start in range(0, len(targets), _SLICE):
        wanted = col(AuditRow.target).in_(targets[start : start + _SLICE])
        query = select(AuditRow).where(wanted, or_(*(action.startswith(kind) for kind in kinds)))
        found += session.exec(query.order_by(col(AuditRow.id).desc()).limit(MOST)).all()
    return found


def _row(row: AuditRow) -> Happening:
    try:
        data: Any = json.loads(row.data)
    except ValueError:
        data = {}  # somebody has changed it: `qd audit verify` says so
    number = row.id or 0
    return of_audit(
        number, row.at, row.user, row.action, row.target, data if isinstance(data, dict) else {}
    )


def _deployments(session: Session, digests: Collection[str]) -> list[DeploymentRow]:
    """Where versions of the model are served, or were."""
    numbers = {
        row.deployment_id
        for row in session.exec(select(ReleaseRow).where(col(ReleaseRow.digest).is_not(None))).all()
        if row.digest in digests
    }
    rows = session.exec(select(DeploymentRow).where(col(DeploymentRow.id).in_(sorted(numbers))))
    return list(rows.all())


def _serving(row: DeploymentRow) -> ServingView:
    deployment = deployment_of(row)
    live = deployment.release(deployment.live)
    version = live.version if live is not None and not deployment.removed else None
    return {"service": row.name, "target": row.target, "version": version}


def _pipelines(session: Session, ids: Collection[str]) -> list[PipelineRow]:
    """The runs that have done something to the model, and others of the same pipelines."""
    numbers = sorted(int(one[1:]) for one in ids)
    mine = select(PipelineRow.name).where(col(PipelineRow.id).in_(numbers[-MOST:])).distinct()
    names = list(session.exec(mine).all())
    query = select(PipelineRow).where(col(PipelineRow.name).in_(names))
    return list(session.exec(query.order_by(col(PipelineRow.id).desc()).limit(MOST)).all())


def _of_pipelines(session: Session, rows: Sequence[PipelineRow]) -> list[Happening]:
    """How runs began and ended."""
    begun = [_row(row) for row in _audit(session, [f"p{row.id}" for row in rows], ("pipeline.",))]
    triggered = {one["about"] for one in begun if one["kind"] == "pipeline.triggered"}
    found = [one for one in begun if one["kind"] != "pipeline.run" or one["about"] not in triggered]
    for one in found:
        one["pipeline"] = one["about"]
    for row in rows:
        if row.ended_at is not None:
            text = f"p{row.id} {row.name} {row.state.lower()}"
            tone = {"SUCCEEDED": "good", "FAILED": "bad"}.get(row.state, "")
            found.append(
                happening(
                    row.ended_at, "pipeline.ended", f"p{row.id}", text,
                    why=row.reason.partition(":")[0], tone=tone, pipeline=f"p{row.id}",  # type: ignore[arg-type]
                )
            )  # fmt: skip
    return found


def _checked(session: Session, pipelines: Sequence[int]) -> set[str]:
    """The versions of data that these runs have checked."""
    query = select(PipelineTaskRow.result).where(
        col(PipelineTaskRow.pipeline_id).in_(pipelines), col(PipelineTaskRow.result).is_not(None)
    )
    left = [(result or {}).get("left") or {} for result in session.exec(query).all()]
    return {str(one["data"]) for one in left if "data" in one}


def _runs(session: Session, versions: Sequence[ModelVersionRow]) -> list[Happening]:
    found = []
    for row in versions:
        lineage = row.lineage
        if lineage.get("run") is None or lineage.get("ended_at") is None:
            continue
        job = session.get(JobRow, row.job_id) if row.job_id is not None else None
        objective = ((job.spec if job is not None else {}).get("objective") or {}).get("metric")
        at = datetime.fromisoformat(lineage["ended_at"]).timestamp()
        told = of_run(
            at, lineage["run"], lineage.get("user") or "", row.metrics, lineage.get("data") or {}, objective
        )  # fmt: skip
        found.append(told)
    return found


def _alerts(
    session: Session, name: str, pipelines: Collection[str], places: Collection[str]
) -> list[Happening]:
    """Alerts that people were told of, about the model's services and pipelines."""
    services = {name, *(place.partition("@")[0] for place in places)}
    query = select(AlertRow).where(col(AlertRow.told).is_not(None))
    found = []
    for row in session.exec(query.order_by(col(AlertRow.since).desc()).limit(MOST)).all():
        if row.subject in pipelines or any(about(one, row.subject) for one in services):
            text = f"alert {row.rule}, {row.subject}"
            found.append(happening(row.since, "alert", row.subject, text, why=row.text, tone="bad"))
            if row.state == "RESOLVED":
                over = f"alert {row.rule}, {row.subject} is over"
                found.append(happening(row.changed_at, "alert", row.subject, over, tone="good"))
    return found
