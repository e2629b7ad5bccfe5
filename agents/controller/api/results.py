"""What jobs wrote: lists of files, and their bytes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, BinaryIO, Literal

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse

from agents.controller.api.access import VIEWER
from agents.controller.api.bodies import BoundedRoute
from agents.controller.api.common import Octets, TheController, resolve
from agents.controller.api.files import FileStretches, Stretch
from agents.controller.commands import results
from agents.controller.stores.blobs import hex_of
from jobs.base.errors import NotFound
from jobs.wire.views import FilesView

router = APIRouter(route_class=BoundedRoute)

Place = Literal["work", "checkpoint"]
Number = Annotated[int, Query(ge=0, lt=2**63)]
_ALL = 2**62


@router.get("/jobs/{job}/files", dependencies=[VIEWER])
async def files(
    job: str,
    controller: TheController,
    pattern: Annotated[list[str] | None, Query(max_length=64)] = None,
    everything: bool = False,
) -> FilesView:
    ref = await resolve(controller, job)
    return await results.listed(controller, ref, pattern or [], everything=everything)


@router.get("/jobs/{job}/files/{place}/data", response_class=Octets, dependencies=[VIEWER])
async def data(
    job: str,
    place: Place,
    node: str,
    file: str,
    controller: TheController,
    offset: Number = 0,
    limit: Number = _ALL,
) -> StreamingResponse:
    ref = await resolve(controller, job)
    source = await results.source(controller, ref, place, node, file)
    chunks = source.chunks(offset, limit)
    # The first one is asked for before the answer begins: what is wrong can still be told.
    first = await anext(chunks, b"")

    async def body() -> AsyncIterator[bytes]:
        try:
            yield first
            async for chunk in chunks:
                yield chunk
        finally:
            await chunks.aclose()

    return StreamingResponse(body(), media_type="application/octet-stream")


@router.get("/jobs/{job}/files/{place}/digest", dependencies=[VIEWER])
async def digest(
    job: str,
    place: Place,
    node: str,
    file: str,
    controller: TheController,
    offset: Number = 0,
    limit: Annotated[int, Query(ge=0, le=256 << 20)] = 64 << 20,
) -> dict[str, str]:
    ref = await resolve(controller, job)
    source = await results.source(controller, ref, place, node, file)
    return {"sha256": await source.digest(offset, limit)}


@router.get("/blobs/{digest}", response_class=Octets, dependencies=[VIEWER])
async def blob(
    digest: str, controller: TheController, offset: Number = 0, limit: Number = _ALL
) -> StreamingResponse:
    hex_of(digest)
    if not await asyncio.to_thread(controller.blobs.has, digest):
        raise NotFound(f"there is no blob {digest}")
    path = await asyncio.to_thread(controller.blobs.local, digest)
    size = path.stat().st_size
    end = max(offset, min(offset + limit, size))

    async def stretch() -> AsyncIterator[Stretch]:
        yield offset, end

    async def opened() -> BinaryIO:
        return await asyncio.to_thread(lambda: path.open("rb"))

    headers = {"Content-Length": str(end - offset), "X-Size": str(size)}
    return FileStretches(opened, stretch(), headers)
