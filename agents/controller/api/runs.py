"""Runs: choosing among them, and the code that one ran."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, BinaryIO

from fastapi import APIRouter, Query

from agents.controller.api.access import VIEWER
from agents.controller.api.bodies import BoundedRoute
from agents.controller.api.common import Octets, TheController, resolve
from agents.controller.api.files import FileStretches, Stretch
from agents.controller.commands import code
from jobs.base.errors import InvalidInput
from jobs.runs import filters
from jobs.store import runs
from jobs.wire.dataviews import DataFile
from jobs.wire.runviews import RunPage

router = APIRouter(route_class=BoundedRoute)


@router.get("/runs", dependencies=[VIEWER])
async def list_runs(
    controller: TheController,
    filter: Annotated[str | None, Query(max_length=filters.MAX_LENGTH)] = None,
    sort: Annotated[str | None, Query(max_length=250)] = None,
    before: str | None = None,
    limit: Annotated[int, Query(ge=1, le=runs.MAX_PAGE)] = 50,
    points: Annotated[int, Query(ge=0, le=100)] = 0,
) -> RunPage:
    """Last attempts of jobs, newest first; `sort` is a metric or `param.NAME`, `-` before it for the
    largest first. With `points`, each has its objective as a line of about so many values."""
    if sort and before:
        raise InvalidInput(
            "before: pages are in order of age", "Leave `sort` out, or raise `limit`."
        )
    wanted = runs.RunQuery(
        where=filters.parse(filter) if filter and filter.strip() else None,
        before=(await resolve(controller, before)).job if before else None,
        sort=filters.key(sort.removeprefix("-")) if sort else None,
        descending=bool(sort and sort.startswith("-")),
        limit=limit,
        points=points,
    )
    return await controller.db.read(lambda session: runs.page(session, wanted))


@router.get("/jobs/{job}/code", dependencies=[VIEWER])
async def list_code(job: str, controller: TheController) -> list[DataFile]:
    """The files that the job took along; none without a work folder."""
    ref = await resolve(controller, job)
    return await code.files(controller, ref.job)


@router.get("/jobs/{job}/code/{sha256}", response_class=Octets, dependencies=[VIEWER])
async def read_code(job: str, sha256: str, controller: TheController) -> FileStretches:
    ref = await resolve(controller, job)
    path, size = await code.blob(controller, ref.job, sha256)

    async def opened() -> BinaryIO:
        return path.open("rb")

    async def whole() -> AsyncIterator[Stretch]:
        yield 0, size

    return FileStretches(opened, whole(), {"Content-Length": str(size)})
