"""Jobs: submit, list, show, wait, cancel, retry, explain, stacks."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from agents.controller.api.access import OPERATOR, VIEWER
from agents.controller.api.bodies import BoundedRoute, documented
from agents.controller.api.common import TheCaller, TheController, resolve, woken
from agents.controller.commands import explaining, jobs, submitting
from agents.controller.commands.requests import SubmitRequest, reader
from jobs.base.errors import InvalidInput
from jobs.base.names import job_name
from jobs.base.states import JOB_STATES, TERMINAL
from jobs.store import reading
from jobs.wire.views import (
    ExplainView,
    JobDetail,
    JobPage,
    JobView,
    StacksView,
    SubmitView,
)

router = APIRouter(route_class=BoundedRoute)

MAX_WAIT = 60.0
Words = Annotated[str, Query(max_length=1000)]


@router.post(
    "/jobs",
    status_code=201,
    response_model=SubmitView,
    openapi_extra=documented(SubmitRequest),
    dependencies=[OPERATOR],
)
async def submit(request: Request, controller: TheController, who: TheCaller) -> JSONResponse:
    asked = await reader.read("job", await request.body())
    answer = await submitting.submit(controller, who, asked)
    # A response of our own is not checked against the model again: submissions come by the hundred.
    return JSONResponse(answer, 201 if answer["created"] else 200)


@router.get("/jobs", dependencies=[VIEWER])
async def list_jobs(
    controller: TheController,
    limit: Annotated[int, Query(ge=1, le=reading.MAX_PAGE)] = 50,
    before: str | None = None,
    state: Annotated[list[str] | None, Query(max_length=100)] = None,
    user: Words | None = None,
    name: Words | None = None,
    q: Words | None = None,
) -> JobPage:
    states = [text for item in state or [] for text in item.split(",") if text]
    for text in states:
        if text.upper() not in JOB_STATES and text != "active":
            raise InvalidInput(
                f"state: there is no state '{text}'",
                f"One of {', '.join(JOB_STATES).lower()}, or active.",
            )
    wanted = reading.JobFilter(
        states=[text if text == "active" else text.upper() for text in states],
        user=user,
        name=name,
        text=q,
        before=(await resolve(controller, before)).job if before else None,
        limit=limit,
    )
    page = await controller.db.read(lambda session: reading.jobs_page(session, wanted))
    page["jobs"] = [controller.reconciler.overlay(view) for view in page["jobs"]]
    return page


@router.get("/jobs/{job}", dependencies=[VIEWER])
async def show(job: str, controller: TheController) -> JobDetail:
    ref = await resolve(controller, job)
    return await controller.job_detail(ref.job)


@router.get("/jobs/{job}/wait", dependencies=[VIEWER])
async def wait(
    job: str, controller: TheController, timeout: Annotated[float, Query(ge=0, le=MAX_WAIT)] = 25.0
) -> JobView:
    ref = await resolve(controller, job)
    subscription = controller.hub.subscribe([f"job:{job_name(ref.job)}"], hints_only=True)
    deadline = asyncio.get_running_loop().time() + timeout
    try:
        while True:
            view = await controller.job_view(ref.job)
            left = deadline - asyncio.get_running_loop().time()
            if view["state"] in TERMINAL or left <= 0:
                return view
            await woken(subscription, left)
    finally:
        controller.hub.unsubscribe(subscription)


class CancelRequest(BaseModel):
    """`grace`: seconds between SIGTERM and SIGKILL instead of the job's own."""

    model_config = ConfigDict(extra="forbid")

    grace: Annotated[float | None, Field(ge=0, le=3600)] = None


@router.post("/jobs/{job}/cancel", dependencies=[OPERATOR])
async def cancel(
    job: str, controller: TheController, who: TheCaller, request: CancelRequest | None = None
) -> JobView:
    ref = await resolve(controller, job)
    await jobs.cancel(controller, ref.job, who, request.grace if request else None)
    return await controller.job_view(ref.job)


@router.post("/jobs/{job}/retry", dependencies=[OPERATOR])
async def retry(job: str, controller: TheController, who: TheCaller) -> JobView:
    ref = await resolve(controller, job)
    await jobs.retry(controller, ref.job, who)
    return await controller.job_view(ref.job)


@router.get("/jobs/{job}/explain", dependencies=[VIEWER])
async def explain(job: str, controller: TheController) -> ExplainView:
    ref = await resolve(controller, job)
    return await explaining.explain(controller, ref.job)


@router.get("/jobs/{job}/stacks", dependencies=[VIEWER])
async def stacks(job: str, controller: TheController) -> StacksView:
    ref = await resolve(controller, job)
    return await explaining.stacks(controller, ref.job)
