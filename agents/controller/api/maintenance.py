"""The head's maintenance: show, begin, end."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from agents.controller.api.access import ADMIN, VIEWER
from agents.controller.api.bodies import BoundedRoute
from agents.controller.api.common import TheCaller, TheController
from agents.controller.commands import maintaining
from jobs.wire.views import MaintenanceView

router = APIRouter(route_class=BoundedRoute)


class MaintenanceRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    seconds: Annotated[float, Field(ge=0, le=1e9)]
    reason: Annotated[str, Field(max_length=500)] = ""


@router.get("/maintenance", dependencies=[VIEWER])
async def show(controller: TheController) -> MaintenanceView | None:
    return controller.reconciler.losses.maintained()


@router.post("/maintenance", dependencies=[ADMIN])
async def begin(
    request: MaintenanceRequest, controller: TheController, who: TheCaller
) -> MaintenanceView:
    return await maintaining.begin(controller, who, request.seconds, request.reason)


@router.post("/maintenance/end", dependencies=[ADMIN])
async def end(controller: TheController, who: TheCaller) -> MaintenanceView:
    return await maintaining.end(controller, who)
