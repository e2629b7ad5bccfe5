"""Pipelines: run, list, show, steer."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlmodel import Session

from agents.controller.api.access import OPERATOR, VIEWER
from agents.controller.api.bodies import BoundedRoute
from agents.controller.api.common import TheCaller, TheController, woken
from agents.controller.api.jobs import MAX_WAIT
from agents.controller.commands import flows
from agents.controller.controller import Controller
from jobs.store import flowreading, flowwriting
from jobs.wire.flowviews import PIPELINE_ENDED, PipelineDetail, PipelineSubmitView, PipelineView
from jobs.wire.views import GitView

router = APIRouter(route_class=BoundedRoute)


class Code(BaseModel):
    """The folder of one step, as `qd submit` sends it."""

    model_config = ConfigDict(extra="forbid")

    snapshot: str | None = None
    git: GitView | None = None


class RunRequest(BaseModel):
    """A checked spec, the values of its parameters, and what the client found around it. `from_step`
    and `only` run a part of it, with what earlier runs left of the rest."""

    model_config = ConfigDict(extra="forbid")

    spec: dict[str, Any]
    params: dict[str, Any] = Field(default_factory=dict)
    code: dict[str, Code] = Field(default_factory=dict)
    secrets: dict[str, str] = Field(default_factory=dict)
    key: Annotated[str | None, Field(min_length=1, max_length=200)] = None
    from_step: str | None = None
    only: str | None = None
    cache: bool = True
    dry_run: bool = False


async def resolve_pipeline(controller: Controller, text: str) -> int:
    return await controller.db.read(lambda session: flowwriting.resolve(session, text))


@router.post("/pipelines", status_code=201, dependencies=[OPERATOR])
async def run(
    request: RunRequest, controller: TheController, who: TheCaller, response: Response
) -> PipelineSubmitView:
    answer = await flows.run_pipeline(
        controller,
        who,
        spec=request.spec,
        params=request.params,
        code={name: item.model_dump(exclude_none=True) for name, item in request.code.items()},
        secrets=request.secrets,
        key=request.key,
        start=request.from_step,
        only=request.only,
        cached=request.cache,
        dry_run=request.dry_run,
    )
    if not answer["created"]:
        response.status_code = 200
    return answer


@router.get("/pipelines", dependencies=[VIEWER])
async def list_pipelines(
    controller: TheController, limit: Annotated[int, Query(ge=1, le=1000)] = 200
) -> list[PipelineView]:
    return await controller.db.read(lambda s: flowreading.pipeline_views(s, limit))


@router.get("/pipelines/{pipeline}", dependencies=[VIEWER])
async def show(pipeline: str, controller: TheController) -> PipelineDetail:
    number = await resolve_pipeline(controller, pipeline)
    return await controller.db.read(lambda s: flowreading.pipeline_detail(s, number))


@router.get("/pipelines/{pipeline}/wait", dependencies=[VIEWER])
async def wait(
    pipeline: str,
    controller: TheController,
    timeout: Annotated[float, Query(ge=0, le=MAX_WAIT)] = 25.0,
) -> PipelineView:
    number = await resolve_pipeline(controller, pipeline)

    def read(session: Session) -> PipelineView:
        return flowreading.pipeline_view(session, flowwriting.get(session, number))

    topic = f"pipeline:{flowwriting.pipeline_name(number)}"
    subscription = controller.hub.subscribe([topic], hints_only=True)
    deadline = asyncio.get_running_loop().time() + timeout
    try:
        while True:
            view = await controller.db.read(read)
            left = deadline - asyncio.get_running_loop().time()
            if view["state"] in PIPELINE_ENDED or left <= 0:
                return view
            await woken(subscription, left)
    finally:
        controller.hub.unsubscribe(subscription)


@router.post("/pipelines/{pipeline}/cancel", dependencies=[OPERATOR])
async def cancel(pipeline: str, controller: TheController, who: TheCaller) -> PipelineView:
    return await controller.flows.cancel(await resolve_pipeline(controller, pipeline), who)


@router.post("/pipelines/{pipeline}/retry", dependencies=[OPERATOR])
async def retry(pipeline: str, controller: TheController, who: TheCaller) -> PipelineView:
    return await controller.flows.retry(await resolve_pipeline(controller, pipeline), who)
