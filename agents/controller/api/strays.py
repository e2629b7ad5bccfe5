"""Strays: what nodes hold and the registry never gave."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from agents.controller.api.access import OPERATOR, VIEWER
from agents.controller.api.bodies import BoundedRoute
from agents.controller.api.common import TheCaller, TheController
from agents.controller.commands import straying
from jobs.wire.views import StrayView

router = APIRouter(route_class=BoundedRoute)


class ForgetRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    keys: Annotated[list[Annotated[str, Field(max_length=200)]], Field(max_length=1000)] = []
    stop: bool = False


@router.get("/strays", dependencies=[VIEWER])
async def list_strays(controller: TheController) -> list[StrayView]:
    return controller.strays.views()


@router.post("/strays/forget", dependencies=[OPERATOR])
async def forget(
    request: ForgetRequest, controller: TheController, who: TheCaller
) -> list[StrayView]:
    return await straying.forget(controller, who, request.keys, stop=request.stop)
