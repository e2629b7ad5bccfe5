"""Sweeps: submit, list, show, steer; their trials."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from agents.controller.api.access import OPERATOR, VIEWER
from agents.controller.api.bodies import BoundedRoute, documented
from agents.controller.api.common import (
    Number,
    TheCaller,
    TheController,
    inside,
    json_list,
    resolve_sweep,
    trial_pages,
)
from agents.controller.commands import sweepsubmit
from agents.controller.commands.requests import SubmitRequest, reader
from jobs.store import sweepcharts, sweepreading
from jobs.sweeps.spec import MAX_PARALLEL, MAX_TRIALS
from jobs.wire.sweepviews import (
    CurveView,
    SliceView,
    SweepDetail,
    SweepSubmitView,
    SweepView,
    TrialView,
)

router = APIRouter(route_class=BoundedRoute)

TrialNumber = Annotated[int, Path(ge=0, lt=2**63)]


@router.post(
    "/sweeps", status_code=201, openapi_extra=documented(SubmitRequest), dependencies=[OPERATOR]
)
async def submit(
    request: Request, controller: TheController, who: TheCaller, response: Response
) -> SweepSubmitView:
    asked = await reader.read("sweep", await request.body())
    answer = await sweepsubmit.submit_sweep(controller, who, asked)
    if not answer["created"]:
        response.status_code = 200
    return answer


@router.get("/sweeps", dependencies=[VIEWER])
async def list_sweeps(
    controller: TheController, limit: Annotated[int, Query(ge=1, le=1000)] = 200
) -> list[SweepView]:
    now = controller.now()
    return await controller.db.read(lambda s: sweepreading.sweep_views(s, now, limit))


@router.get("/sweeps/{sweep}", dependencies=[VIEWER])
async def show(sweep: str, controller: TheController) -> SweepDetail:
    number, now = await resolve_sweep(controller, sweep), controller.now()
    return await controller.db.read(lambda s: sweepreading.sweep_detail(s, number, now))


@router.get("/sweeps/{sweep}/trials", response_model=list[TrialView], dependencies=[VIEWER])
async def trials(sweep: str, controller: TheController) -> StreamingResponse:
    """All trials, page by page as they are read: a client waits for a page, however many there are."""
    number = await resolve_sweep(controller, sweep)

    def encoded(page: list[TrialView]) -> bytes:  # on the thread that reads
        return inside(page)

    return json_list(trial_pages(controller, number, encoded))


@router.get("/sweeps/{sweep}/importance", dependencies=[VIEWER])
async def importance(sweep: str, controller: TheController) -> dict[str, float]:
    return await controller.sweeps.importance(await resolve_sweep(controller, sweep))


@router.get("/sweeps/{sweep}/curves", dependencies=[VIEWER])
async def curves(
    sweep: str,
    controller: TheController,
    metric: str = "",
    points: Annotated[int, Query(ge=2, le=2000)] = 60,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 1000,
    trial: Annotated[list[Number] | None, Query(max_length=1000)] = None,
) -> list[CurveView]:
    number = await resolve_sweep(controller, sweep)
    return await controller.db.read(
        lambda s: sweepcharts.curves(
            s, number, metric=metric, points=points, limit=limit, only=trial or ()
        )
    )


@router.get("/sweeps/{sweep}/slices", dependencies=[VIEWER])
async def slices(
    sweep: str, controller: TheController, objective: Annotated[int, Query(ge=0, lt=8)] = 0
) -> list[SliceView]:
    number = await resolve_sweep(controller, sweep)
    return await controller.db.read(lambda s: sweepcharts.slices(s, number, objective=objective))


@router.post("/sweeps/{sweep}/stop", dependencies=[OPERATOR])
async def stop(sweep: str, controller: TheController, who: TheCaller) -> SweepView:
    return await controller.sweeps.stop(await resolve_sweep(controller, sweep), who)


@router.post("/sweeps/{sweep}/pause", dependencies=[OPERATOR])
async def pause(sweep: str, controller: TheController, who: TheCaller) -> SweepView:
    return await controller.sweeps.pause(await resolve_sweep(controller, sweep), who)


@router.post("/sweeps/{sweep}/resume", dependencies=[OPERATOR])
async def resume(sweep: str, controller: TheController, who: TheCaller) -> SweepView:
    return await controller.sweeps.resume(await resolve_sweep(controller, sweep), who)


class ExtendRequest(BaseModel):
    """New limits, `time` in seconds, and points to try before others."""

    model_config = ConfigDict(extra="forbid")

    trials: Annotated[int, Field(ge=1, le=MAX_TRIALS)] | None = None
    parallel: Annotated[int, Field(ge=1, le=MAX_PARALLEL)] | None = None
    time: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    gpu_hours: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    generations: Annotated[int, Field(ge=1, le=MAX_TRIALS)] | None = None
    points: Annotated[list[dict[str, Any]], Field(max_length=1000)] = []


@router.post("/sweeps/{sweep}/extend", dependencies=[OPERATOR])
async def extend(
    sweep: str, request: ExtendRequest, controller: TheController, who: TheCaller
) -> SweepView:
    return await controller.sweeps.extend(
        await resolve_sweep(controller, sweep), who, **request.model_dump()
    )


@router.post("/sweeps/{sweep}/trials/{trial}/prune", dependencies=[OPERATOR])
async def prune(
    sweep: str, trial: TrialNumber, controller: TheController, who: TheCaller
) -> TrialView:
    return await controller.sweeps.prune(await resolve_sweep(controller, sweep), trial, who)


@router.post("/sweeps/{sweep}/trials/{trial}/pin", dependencies=[OPERATOR])
async def pin(
    sweep: str, trial: TrialNumber, controller: TheController, who: TheCaller
) -> TrialView:
    number = await resolve_sweep(controller, sweep)
    return await controller.sweeps.pin(number, trial, who, pinned=True)


@router.post("/sweeps/{sweep}/trials/{trial}/unpin", dependencies=[OPERATOR])
async def unpin(
    sweep: str, trial: TrialNumber, controller: TheController, who: TheCaller
) -> TrialView:
    number = await resolve_sweep(controller, sweep)
    return await controller.sweeps.pin(number, trial, who, pinned=False)


@router.post("/sweeps/{sweep}/trials/{trial}/rerun", dependencies=[OPERATOR])
async def rerun(
    sweep: str, trial: TrialNumber, controller: TheController, who: TheCaller
) -> SweepView:
    return await controller.sweeps.rerun(await resolve_sweep(controller, sweep), trial, who)
