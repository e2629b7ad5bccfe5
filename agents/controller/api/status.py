"""Health: `GET /v1/status`, `GET /v1/doctor`."""

from __future__ import annotations

import shutil

from fastapi import APIRouter

from agents.controller.api.access import VIEWER
from agents.controller.api.bodies import BoundedRoute
from agents.controller.api.common import TheController
from jobs.base.units import format_size
from jobs.base.words import counted
from jobs.wire.views import CheckView, StatusView

router = APIRouter(route_class=BoundedRoute)

_LOW_DISK = 1 << 30


@router.get("/status", dependencies=[VIEWER])
async def status(controller: TheController) -> StatusView:
    return await controller.status()


@router.get("/doctor", dependencies=[VIEWER])
async def doctor(controller: TheController) -> list[CheckView]:
    free = shutil.disk_usage(controller.state).free
    checks: list[CheckView] = [
        {
            "name": "ray",
            "ok": controller.fabric.state == "connected",
            "detail": controller.fabric.state,
            "fix": "It is restarted by itself; its log is in the state folder under daemon/.",
        },
        {
            "name": "registry disk",
            "ok": free > _LOW_DISK,
            "detail": f"{free / (1 << 30):.1f} GiB free in {controller.state}",
            "fix": "Free some space: submissions are refused when nothing can be recorded.",
        },
    ]
    storage = controller.pruning.storage()
    if storage is not None:
        checks.append(
            {
                "name": "blobs",
                "ok": storage["bytes"] < free or free > _LOW_DISK,
                "detail": f"{counted(storage['blobs'], 'blob')}, {format_size(storage['bytes'])}",
                "fix": "`qd prune` lets go of those that nothing refers to.",
            }
        )
    for view in controller.node_views():
        checks.append(
            {
                "name": f"node {view['name']}",
                "ok": view["state"] in ("READY", "DRAINING", "DRAINED") and not view["reason"],
                "detail": view["state"] + (f": {view['reason']}" if view["reason"] else ""),
                "fix": "`qd node NAME` tells more.",
            }
        )
    for problem in controller.problems():
        checks.append(
            {"name": "problem", "ok": False, "detail": problem["what"], "fix": problem["fix"]}
        )
    return checks
