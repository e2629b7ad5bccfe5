"""Monitors: look at a window now, show what was found; and the truth of requests, where it is known."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from agents.controller.api.access import OPERATOR, VIEWER
from agents.controller.api.bodies import BoundedRoute
from agents.controller.api.common import TheCaller, TheController
from agents.controller.commands import feedback
from jobs.services.feedback import Kind
from jobs.store import monitors
from jobs.wire.monitorviews import FeedbackView, MonitorRunView, MonitorView
from jobs.wire.serviceviews import TargetName

router = APIRouter(route_class=BoundedRoute)


class LookRequest(BaseModel):
    """`last`: seconds. `rebase`: the window becomes the reference."""

    model_config = ConfigDict(extra="forbid")

    last: Annotated[float | None, Field(gt=0, le=366 * 86_400)] = None
    rebase: bool = False


class FeedbackRequest(BaseModel):
    """Truths by the id of the request that they are of."""

    model_config = ConfigDict(extra="forbid")

    truths: Annotated[
        dict[Annotated[str, Field(min_length=1, max_length=512)], Any],
        Field(min_length=1, max_length=10_000),
    ]
    output: Annotated[str | None, Field(max_length=256)] = None
    kind: Kind = "auto"


@router.post("/deployments/{name}/feedback", dependencies=[OPERATOR])
async def give_feedback(
    name: str,
    request: FeedbackRequest,
    controller: TheController,
    who: TheCaller,
    target: TargetName | None = None,
) -> FeedbackView:
    return await feedback.give(
        controller, who, name, target, request.truths, output=request.output, kind=request.kind
    )


@router.post("/deployments/{name}/monitor", status_code=201, dependencies=[OPERATOR])
async def look(
    name: str,
    request: LookRequest,
    controller: TheController,
    who: TheCaller,
    target: TargetName | None = None,
) -> MonitorRunView:
    return await controller.monitors.ask(
        name, target, who, last=request.last, rebase=request.rebase
    )


@router.get("/deployments/{name}/monitor", dependencies=[VIEWER])
async def show(
    name: str, controller: TheController, target: TargetName | None = None
) -> MonitorView:
    return await controller.monitors.view(name, target)


@router.get("/monitor-runs/{number}", dependencies=[VIEWER])
async def run(number: int, controller: TheController) -> MonitorRunView:
    return await controller.db.read(
        lambda session: monitors.view(*monitors.get(session, number), whole=True)
    )
