"""Jobs: submit, list, show, wait, cancel, retry, explain, stacks."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from agents.controller import explaining, submitting
from agents.controller.api.common import TheCaller, TheController, resolve, woken
from jobs import queries
from jobs.errors import InvalidInput
from jobs.names import job_name
from jobs.spec import JobSpec
from jobs.states import JOB_STATES, TERMINAL
from jobs.views import ExplainView, GitView, JobDetail, JobPage, JobView, StacksView, SubmitView

router = APIRouter()

MAX_WAIT = 60.0


class SubmitRequest(BaseModel):
    """A checked spec, and what the client found around it."""

    model_config = ConfigDict(extra="forbid")

    spec: dict[str, Any]
    key: Annotated[str | None, Field(min_length=1, max_length=200)] = None
    snapshot: str | None = None
    git: GitView | None = None
    secrets: dict[str, str] = Field(default_factory=dict)
    dry_run: bool = False


@router.post("/jobs", status_code=201, response_model=SubmitView)
async def submit(request: SubmitRequest, controller: TheController, who: TheCaller) -> JSONResponse:
    answer = await submitting.submit(
        controller,
        who,
        spec=request.spec,
        key=request.key,
        snapshot=request.snapshot,
        git=request.git,
        secrets=request.secrets,
        dry_run=request.dry_run,
    )
    # A response of our own is not checked against the model again: submissions come by the hundred.
    return JSONResponse(answer, 201 if answer["created"] else 200)


@router.get("/jobs")
async def list_jobs(
    controller: TheController,
    limit: Annotated[int, Query(ge=1, le=queries.MAX_PAGE)] = 50,
    before: str | None = None,
    state: Annotated[list[str] | None, Query()] = None,
    user: str | None = None,
    name: str | None = None,
    q: str | None = None,
) -> JobPage:
    states = [text for item in state or [] for text in item.split(",") if text]
    for text in states:
        if text.upper() not in JOB_STATES and text != "active":
            raise InvalidInput(
                f"state: there is no state '{text}'",
                f"One of {', '.join(JOB_STATES).lower()}, or active.",
            )
    wanted = queries.JobFilter(
        states=[text if text == "active" else text.upper() for text in states],
        user=user,
        name=name,
        text=q,
        before=(await resolve(controller, before)).job if before else None,
        limit=limit,
    )
    page = await controller.db.read(lambda session: queries.jobs_page(session, wanted))
    page["jobs"] = [controller.reconciler.overlay(view) for view in page["jobs"]]
    return page


@router.get("/jobs/{job}")
async def show(job: str, controller: TheController) -> JobDetail:
    ref = await resolve(controller, job)
    return await controller.job_detail(ref.job)


@router.get("/jobs/{job}/wait")
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


@router.post("/jobs/{job}/cancel")
async def cancel(
    job: str, controller: TheController, who: TheCaller, request: CancelRequest | None = None
) -> JobView:
    ref = await resolve(controller, job)
    await controller.reconciler.cancel(ref.job, who, request.grace if request else None)
    return await controller.job_view(ref.job)


@router.post("/jobs/{job}/retry")
async def retry(job: str, controller: TheController, who: TheCaller) -> JobView:
    ref = await resolve(controller, job)
    spec = (await controller.job_detail(ref.job))["spec"]
    await asyncio.to_thread(submitting.check_start, controller, JobSpec.from_json(spec))
    await controller.reconciler.retry(ref.job, who)
    return await controller.job_view(ref.job)


@router.get("/jobs/{job}/explain")
async def explain(job: str, controller: TheController) -> ExplainView:
    ref = await resolve(controller, job)
    return await explaining.explain(controller, ref.job)


@router.get("/jobs/{job}/stacks")
async def stacks(job: str, controller: TheController) -> StacksView:
    ref = await resolve(controller, job)
    return await explaining.stacks(controller, ref.job)
