"""Schedules: add, list, show, steer."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field
from sqlmodel import Session

from agents.controller.api.access import OPERATOR, VIEWER
from agents.controller.api.bodies import BoundedRoute
from agents.controller.api.common import TheCaller, TheController
from agents.controller.api.flows import Code
from agents.controller.commands import schedules
from jobs.store import schedulewriting
from jobs.wire.flowviews import ScheduleView

router = APIRouter(route_class=BoundedRoute)


class AddRequest(BaseModel):
    """A pipeline, and when it runs by itself."""

    model_config = ConfigDict(extra="forbid")

    name: str
    schedule: dict[str, Any]
    spec: dict[str, Any]
    params: dict[str, Any] = Field(default_factory=dict)
    code: dict[str, Code] = Field(default_factory=dict)
    secrets: dict[str, str] = Field(default_factory=dict)


@router.post("/schedules", status_code=201, dependencies=[OPERATOR])
async def add(request: AddRequest, controller: TheController, who: TheCaller) -> ScheduleView:
    return await schedules.add(
        controller,
        who,
        name=request.name,
        schedule=request.schedule,
        spec=request.spec,
        params=request.params,
        code={name: item.model_dump(exclude_none=True) for name, item in request.code.items()},
        secrets=request.secrets,
    )


@router.get("/schedules", dependencies=[VIEWER])
async def list_schedules(controller: TheController) -> list[ScheduleView]:
    now = controller.now()

    def read(session: Session) -> list[ScheduleView]:
        rows = schedulewriting.every(session)
        return [schedulewriting.view(session, row, now) for row in rows]

    return await controller.db.read(read)


@router.get("/schedules/{name}", dependencies=[VIEWER])
async def show(name: str, controller: TheController) -> ScheduleView:
    now = controller.now()
    return await controller.db.read(
        lambda s: schedulewriting.view(s, schedulewriting.get(s, name), now)
    )


@router.post("/schedules/{name}/pause", dependencies=[OPERATOR])
async def pause(name: str, controller: TheController, who: TheCaller) -> ScheduleView:
    return await controller.schedules.pause(name, who)


@router.post("/schedules/{name}/resume", dependencies=[OPERATOR])
async def resume(name: str, controller: TheController, who: TheCaller) -> ScheduleView:
    return await controller.schedules.resume(name, who)


@router.post("/schedules/{name}/run", dependencies=[OPERATOR])
async def run(name: str, controller: TheController, who: TheCaller) -> ScheduleView:
    return await controller.schedules.fire_now(name, who)


@router.post("/schedules/{name}/remove", dependencies=[OPERATOR])
async def remove(name: str, controller: TheController, who: TheCaller) -> ScheduleView:
    return await controller.schedules.remove(name, who)
