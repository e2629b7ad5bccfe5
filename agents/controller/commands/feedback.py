"""Truths of requests: joined with the inference log by the request's id, and counted by version."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sqlmodel import Session

from agents.controller.controller import Controller
from agents.controller.services import inferences
from jobs.services.feedback import Kind, outcome
from jobs.services.judging import Truth
from jobs.store import audit, feedback, monitors
from jobs.store import services as store
from jobs.store.servicetables import DeploymentRow
from jobs.store.writing import Caller
from jobs.wire.monitorviews import FeedbackView
from jobs.wire.serviceviews import DeploymentView

KEPT = 8 * 86_400.0
"""Seconds for which the log of a replica that is over may still be on its node."""
SHOWN = 100


async def give(
    controller: Controller,
    who: Caller,
    name: str,
    target: str | None,
    truths: Mapping[str, Any],
    *,
    output: str | None,
    kind: Kind,
) -> FeedbackView:
    """Join truths, by request id, with what was answered; those whose request no log has are named, and
    may be given again. All that are joined are stored in one transaction.

    Raises NotFound: no such service.
    """
    now = controller.now()

    def read(session: Session) -> tuple[DeploymentRow, list[int]]:
        row = store.find(session, name, target)
        held = {one.job for one in store.replicas(session).get(row.id or 0, [])}
        jobs = monitors.jobs_that_served(session, row.name, row.target, None, now - KEPT, held)
        return row, jobs

    row, jobs = await controller.db.read(read)
    wanted = {json.dumps(request)[1:-1].encode(): request for request in truths}
    joined: dict[str, Truth] = {}
    refused: list[str] = []
    missing: list[str] = []
    every = inferences.lines(
        controller.db, controller.links, controller.cluster_id, jobs, 0.0, float("inf"), missing
    )
    async for line in every:
        request = wanted.get(line.id)
        if request is None:
            continue
        told = json.loads(line.text)
        try:
            found = outcome(told["o"], truths[request], output=output, kind=kind)
        except ValueError as error:
            refused.append(f"{request}: {error}")
            continue
        joined[request] = Truth(request, told["v"], line.at, found)
    unknown = [request for request in truths if request not in joined]
    failed = {text.partition(":")[0] for text in refused}
    unknown = [request for request in unknown if request not in failed]

    views: list[FeedbackView] = []

    def write(session: Session) -> None:
        number = row.id or 0
        for truth in joined.values():
            feedback.save(session, number, truth.request, truth.version, truth.at, truth.outcome)
        session.flush()
        audit.append(
            session,
            at=now,
            user=who.user,
            uid=who.uid,
            action="feedback.give",
            target=f"{row.name}@{row.target}",
            data={"joined": len(joined), "unknown": len(unknown), "refused": len(refused)},
        )
        known = feedback.online(session)
        view: FeedbackView = {
            "joined": len(joined),
            "unknown": unknown[:SHOWN],
            "unknown_count": len(unknown),
            "refused": refused[:SHOWN],
            "missing": missing[:SHOWN],
            "versions": {version: view for (of, version), view in known.items() if of == number},
        }
        views.append(view)

    await controller.services.learn(row.id or 0, list(joined.values()), write)
    return views[-1]  # a transaction that was tried again has written anew


async def with_online(controller: Controller, views: list[DeploymentView]) -> list[DeploymentView]:
    """The same deployments, with how right their versions were."""

    def read(session: Session) -> dict[tuple[str, str, str], Any]:
        rows = {row.id: row for row in store.all_deployments(session)}
        return {
            (rows[number].name, rows[number].target, version): view
            for (number, version), view in feedback.online(session).items()
        }

    known = await controller.db.read(read)
    for view in views:
        for version in view["versions"]:
            found = known.get((view["name"], view["target"], version["version"]))
            if found is not None:
                version["online"] = found
    return views
