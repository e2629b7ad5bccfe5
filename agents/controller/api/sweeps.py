"""Sweeps: submit, list, show, steer; their trials."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from agents.controller import sweepsubmit
from agents.controller.api.common import (
    TheCaller,
    TheController,
    inside,
    json_list,
    resolve_sweep,
    trial_pages,
)
from agents.controller.api.jobs import SubmitRequest
from jobs import sweepcharts, sweepqueries
from jobs.sweepviews import (
    CurveView,
    SliceView,
    SweepDetail,
    SweepSubmitView,
    SweepView,
    TrialView,
)

router = APIRouter()


@router.post("/sweeps", status_code=201)
async def submit(
    request: SubmitRequest, controller: TheController, who: TheCaller, response: Response
) -> SweepSubmitView:
    answer = await sweepsubmit.submit_sweep(
        controller,
        who,
        spec=request.spec,
        key=request.key,
        snapshot=request.snapshot,
        git=request.git,
        secrets=request.secrets,
        dry_run=request.dry_run,
    )
    if not answer["created"]:
        response.status_code = 200
    return answer


@router.get("/sweeps")
async def list_sweeps(
    controller: TheController, limit: Annotated[int, Query(ge=1, le=1000)] = 200
) -> list[SweepView]:
    now = controller.now()
    return await controller.db.read(lambda s: sweepqueries.sweep_views(s, now, limit))


@router.get("/sweeps/{sweep}")
async def show(sweep: str, controller: TheController) -> SweepDetail:
    number, now = await resolve_sweep(controller, sweep), controller.now()
    return await controller.db.read(lambda s: sweepqueries.sweep_detail(s, number, now))


@router.get("/sweeps/{sweep}/trials", response_model=list[TrialView])
async def trials(sweep: str, controller: TheController) -> StreamingResponse:
    """All trials, page by page as they are read: a client waits for a page, however many there are."""
    number = await resolve_sweep(controller, sweep)

    def encoded(page: list[TrialView]) -> bytes:  # on the thread that reads
        return inside(page)

    return json_list(trial_pages(controller, number, encoded))


@router.get("/sweeps/{sweep}/importance")
async def importance(sweep: str, controller: TheController) -> dict[str, float]:
    return await controller.sweeps.importance(await resolve_sweep(controller, sweep))


@router.get("/sweeps/{sweep}/curves")
async def curves(
    sweep: str,
    controller: TheController,
    metric: str = "",
    points: Annotated[int, Query(ge=2, le=2000)] = 60,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 1000,
    trial: Annotated[list[int] | None, Query()] = None,
) -> list[CurveView]:
    number = await resolve_sweep(controller, sweep)
    return await controller.db.read(
        lambda s: sweepcharts.curves(
            s, number, metric=metric, points=points, limit=limit, only=trial or ()
        )
    )


@router.get("/sweeps/{sweep}/slices")
async def slices(
    sweep: str, controller: TheController, objective: Annotated[int, Query(ge=0)] = 0
) -> list[SliceView]:
    number = await resolve_sweep(controller, sweep)
    return await controller.db.read(lambda s: sweepcharts.slices(s, number, objective=objective))


@router.post("/sweeps/{sweep}/stop")
async def stop(sweep: str, controller: TheController, who: TheCaller) -> SweepView:
    return await controller.sweeps.stop(await resolve_sweep(controller, sweep), who)


@router.post("/sweeps/{sweep}/pause")
async def pause(sweep: str, controller: TheController, who: TheCaller) -> SweepView:
    return await controller.sweeps.pause(await resolve_sweep(controller, sweep), who)


@router.post("/sweeps/{sweep}/resume")
async def resume(sweep: str, controller: TheController, who: TheCaller) -> SweepView:
    return await controller.sweeps.resume(await resolve_sweep(controller, sweep), who)


class ExtendRequest(BaseModel):
    """New limits, `time` in seconds, and points to try before others."""

    model_config = ConfigDict(extra="forbid")

    trials: Annotated[int | None, Field(ge=1)] = None
    parallel: Annotated[int | None, Field(ge=1)] = None
    time: Annotated[float | None, Field(gt=0)] = None
    gpu_hours: Annotated[float | None, Field(gt=0)] = None
    generations: Annotated[int | None, Field(ge=1)] = None
    points: Annotated[list[dict[str, Any]], Field(max_length=1000)] = []


@router.post("/sweeps/{sweep}/extend")
async def extend(
    sweep: str, request: ExtendRequest, controller: TheController, who: TheCaller
) -> SweepView:
    return await controller.sweeps.extend(
        await resolve_sweep(controller, sweep), who, **request.model_dump()
    )


@router.post("/sweeps/{sweep}/trials/{trial}/prune")
async def prune(sweep: str, trial: int, controller: TheController, who: TheCaller) -> TrialView:
    return await controller.sweeps.prune(await resolve_sweep(controller, sweep), trial, who)


@router.post("/sweeps/{sweep}/trials/{trial}/pin")
async def pin(sweep: str, trial: int, controller: TheController, who: TheCaller) -> TrialView:
    number = await resolve_sweep(controller, sweep)
    return await controller.sweeps.pin(number, trial, who, pinned=True)


@router.post("/sweeps/{sweep}/trials/{trial}/unpin")
async def unpin(sweep: str, trial: int, controller: TheController, who: TheCaller) -> TrialView:
    number = await resolve_sweep(controller, sweep)
    return await controller.sweeps.pin(number, trial, who, pinned=False)


@router.post("/sweeps/{sweep}/trials/{trial}/rerun")
async def rerun(sweep: str, trial: int, controller: TheController, who: TheCaller) -> SweepView:
    return await controller.sweeps.rerun(await resolve_sweep(controller, sweep), trial, who)
