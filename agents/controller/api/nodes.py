"""Nodes: list, show, history, drain, confirm dead, forget."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from agents.controller.api.access import ADMIN, VIEWER
from agents.controller.api.bodies import BoundedRoute
from agents.controller.api.common import TheCaller, TheController, resolve
from agents.controller.commands import confirming, draining, forgetting
from jobs.wire.views import HistoryPoint, NodeView

router = APIRouter(route_class=BoundedRoute)

Metric = Literal["gpu_util", "gpu_mem", "cpu", "mem", "power"]
Seconds = Annotated[float, Query(gt=0, le=7 * 86400)]
Points = Annotated[int, Query(ge=2, le=5000)]


class DrainRequest(BaseModel):
    reason: Annotated[str, Field(max_length=500)] = ""


@router.get("/nodes", dependencies=[VIEWER])
async def list_nodes(controller: TheController) -> list[NodeView]:
    return controller.node_views()


@router.get("/nodes/{name}", dependencies=[VIEWER])
async def show(name: str, controller: TheController) -> NodeView:
    return controller.node_view(name)


@router.get("/nodes/{name}/history", dependencies=[VIEWER])
async def node_history(
    name: str,
    controller: TheController,
    metric: Metric = "gpu_util",
    seconds: Seconds = 600,
    points: Points = 120,
) -> list[HistoryPoint]:
    controller.node_view(name)
    return controller.cluster.history(name, metric, seconds, points, controller.now())


@router.get("/history", dependencies=[VIEWER])
async def history(
    controller: TheController,
    metric: Metric = "gpu_util",
    seconds: Seconds = 600,
    points: Points = 120,
) -> list[HistoryPoint]:
    return await controller.cluster.whole_history(metric, seconds, points, controller.now())


@router.get("/jobs/{job}/gpus", dependencies=[VIEWER])
async def job_gpus(
    job: str, controller: TheController, seconds: Seconds = 600, points: Points = 120
) -> dict[str, list[HistoryPoint]]:
    ref = await resolve(controller, job)
    detail = await controller.job_detail(ref.job)
    attempts = detail["attempts"]
    if not attempts:
        return {}
    chosen = next((a for a in attempts if a["number"] == ref.attempt), attempts[-1])
    return {
        uuid: controller.cluster.history(rank["node"], uuid, seconds, points, controller.now())
        for rank in chosen["ranks"]
        for uuid in rank["gpus"]
        if rank["node"] in controller.cluster.nodes
    }


@router.post("/nodes/{name}/drain", dependencies=[ADMIN])
async def drain(
    name: str, controller: TheController, who: TheCaller, request: DrainRequest | None = None
) -> NodeView:
    return await draining.set_drained(
        controller, name, who, drained=True, reason=request.reason if request else ""
    )


@router.post("/nodes/{name}/undrain", dependencies=[ADMIN])
async def undrain(name: str, controller: TheController, who: TheCaller) -> NodeView:
    return await draining.set_drained(controller, name, who, drained=False, reason="")


@router.post("/nodes/{name}/confirm-dead", dependencies=[ADMIN])
async def confirm_dead(name: str, controller: TheController, who: TheCaller) -> NodeView:
    return await confirming.confirm_dead(controller, name, who)


@router.post("/nodes/{name}/forget", dependencies=[ADMIN])
async def forget(name: str, controller: TheController, who: TheCaller) -> NodeView:
    return await forgetting.forget(controller, name, who)
