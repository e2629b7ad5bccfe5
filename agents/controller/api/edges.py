"""Hosts at the edge: push, list, look, roll back."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from agents.controller.api.access import OPERATOR, VIEWER
from agents.controller.api.bodies import BoundedRoute
from agents.controller.api.common import TheCaller, TheController
from agents.controller.commands import edges
from jobs.wire.edgeviews import EdgeView

router = APIRouter(route_class=BoundedRoute)


class PushRequest(BaseModel):
    """A version of a model, and the fleet that gets it (docs/edge.md)."""

    model_config = ConfigDict(extra="forbid")

    model: str = Field(min_length=1, max_length=200)
    fleet: dict[str, Any]


@router.post("/edge", status_code=201, dependencies=[OPERATOR])
async def push(request: PushRequest, controller: TheController, who: TheCaller) -> EdgeView:
    return await edges.push(controller, who, ref=request.model, fleet=request.fleet)


@router.get("/edge", dependencies=[VIEWER])
async def list_fleets(controller: TheController) -> list[EdgeView]:
    """The last push of each fleet."""
    return controller.edge.views()


@router.get("/edge/{fleet}", dependencies=[VIEWER])
async def show(fleet: str, controller: TheController) -> EdgeView:
    return controller.edge.view(fleet)


@router.post("/edge/{fleet}/look", dependencies=[OPERATOR])
async def look(fleet: str, controller: TheController) -> EdgeView:
    """With what each host has: they are all asked now."""
    return await controller.edge.look(fleet)


@router.post("/edge/{fleet}/rollback", dependencies=[OPERATOR])
async def rollback(fleet: str, controller: TheController, who: TheCaller) -> EdgeView:
    """Have all hosts return to what they had before the last push."""
    return await controller.edge.rollback(fleet, who)
