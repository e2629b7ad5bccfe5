"""Blobs: what is missing, and taking it in."""

from __future__ import annotations

import asyncio
import tempfile

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from agents.controller.api.common import TheController
from jobs.pack import read_pack_to

router = APIRouter()

_SPOOL = 8 << 20


class MissingRequest(BaseModel):
    digests: list[str] = Field(max_length=200_000)


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
