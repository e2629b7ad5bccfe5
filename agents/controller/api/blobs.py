"""Blobs: what is missing, taking it in, and letting go of what nobody needs."""

from __future__ import annotations

import asyncio
import tempfile
from typing import Annotated

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, FailFast, Field

from agents.controller.api.access import ADMIN, OPERATOR
from agents.controller.api.bodies import BoundedRoute
from agents.controller.api.common import TheCaller, TheController
from agents.controller.commands import pruning
from jobs.base.disk import storage_full
from jobs.snapshots.pack import read_pack_to
from jobs.wire.views import PruneView

router = APIRouter(route_class=BoundedRoute)

_SPOOL = 8 << 20
AnyDigest = Annotated[str, Field(pattern="^(sha256:)?[0-9a-f]{64}$")]


class MissingRequest(BaseModel):
    """Hex sha256 digests, with `sha256:` before them or without."""

    model_config = ConfigDict(extra="forbid")

    digests: Annotated[list[AnyDigest], FailFast(), Field(max_length=20_000)]


class PruneRequest(BaseModel):
    """`older_than` in seconds; without it, the time that the controller waits by itself."""

    model_config = ConfigDict(extra="forbid")

    older_than: Annotated[float | None, Field(ge=0, le=3e9)] = None
    dry_run: bool = False


@router.post("/blobs/missing", dependencies=[OPERATOR])
async def missing(request: MissingRequest, controller: TheController) -> dict[str, list[str]]:
    found = await asyncio.to_thread(controller.blobs.missing, request.digests)
    return {"missing": found}


@router.post("/blobs", dependencies=[OPERATOR])
async def upload(request: Request, controller: TheController) -> dict[str, int]:
    """Take in a pack. It is spooled first: half an upload stores nothing that was not whole."""
    try:
        with tempfile.SpooledTemporaryFile(max_size=_SPOOL, dir=str(controller.state)) as spool:
            async for chunk in request.stream():
                await asyncio.to_thread(spool.write, chunk)
            spool.seek(0)
            return {"stored": await asyncio.to_thread(read_pack_to, spool, controller.blobs.put)}
    except OSError as error:
        hint = "Free some disk space where the cluster's state is, then submit again."
        raise storage_full("an upload cannot be stored", error, hint) from error


@router.post("/blobs/prune", dependencies=[ADMIN])
async def prune(request: PruneRequest, controller: TheController, who: TheCaller) -> PruneView:
    return await pruning.prune(controller, who, request.older_than, dry_run=request.dry_run)
