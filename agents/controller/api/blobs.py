"""Blobs: what is missing, taking it in, and letting go of what nobody needs."""

from __future__ import annotations

import asyncio
import tempfile
from typing import Annotated

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from agents.controller.api.common import TheCaller, TheController
from jobs.pack import read_pack_to
from jobs.views import PruneView

router = APIRouter()

_SPOOL = 8 << 20


class MissingRequest(BaseModel):
    digests: list[str] = Field(max_length=200_000)


class PruneRequest(BaseModel):
    """`older_than` in seconds; without it, the time that the controller waits by itself."""

    model_config = ConfigDict(extra="forbid")

    older_than: Annotated[float | None, Field(ge=0)] = None
    dry_run: bool = False


@router.post("/blobs/missing")
async def missing(request: MissingRequest, controller: TheController) -> dict[str, list[str]]:
    found = await asyncio.to_thread(controller.blobs.missing, request.digests)
    return {"missing": found}


@router.post("/blobs")
async def upload(request: Request, controller: TheController) -> dict[str, int]:
    """Take in a pack. It is spooled first: half an upload stores nothing that was not whole."""
    with tempfile.SpooledTemporaryFile(max_size=_SPOOL, dir=str(controller.state)) as spool:
        async for chunk in request.stream():
            await asyncio.to_thread(spool.write, chunk)
        spool.seek(0)
        return {"stored": await asyncio.to_thread(read_pack_to, spool, controller.blobs.put)}


@router.post("/blobs/prune")
async def prune(request: PruneRequest, controller: TheController, who: TheCaller) -> PruneView:
    return await controller.pruning.prune(request.older_than, dry_run=request.dry_run, who=who)
