"""Metrics for Prometheus: `GET /v1/metrics`."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import PlainTextResponse

from agents.controller.api.access import VIEWER
from agents.controller.api.bodies import BoundedRoute
from agents.controller.api.common import TheController
from agents.controller.commands import metering
from jobs.metrics.exposition import CONTENT_TYPE

router = APIRouter(route_class=BoundedRoute)


@router.get("/metrics", response_class=PlainTextResponse, dependencies=[VIEWER])
async def metrics(controller: TheController) -> PlainTextResponse:
    return PlainTextResponse(await metering.text(controller), media_type=CONTENT_TYPE)
