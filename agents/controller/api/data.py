"""Data sets: list, show, their files, and adding a version."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any, BinaryIO

from fastapi import APIRouter, Query
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from agents.controller.api.access import OPERATOR, VIEWER
from agents.controller.api.bodies import BoundedRoute
from agents.controller.api.common import Octets, TheCaller, TheController
from agents.controller.api.files import FileStretches, Stretch
from agents.controller.commands import datasets as commands
from jobs.data.names import parse_ref
from jobs.store import datasets
from jobs.wire.dataviews import DataFile, DataVersionDetail, DataVersionView

router = APIRouter(route_class=BoundedRoute)


class _Column(BaseModel):
    name: str
    type: str
    missing: int
    distinct: int
    min: float | None = None
    max: float | None = None
    quantiles: Annotated[list[float | None], Field(min_length=5, max_length=5)] | None = None
    histogram: list[int] | None = None
    top: list[Any] | None = None


class _Table(BaseModel):
    file: str
    rows: int
    columns: list[_Column]


class _Profile(BaseModel):
    """What commands and consoles read of a profile; it may hold more."""

    tables: list[_Table]


def _profile(value: dict[str, Any]) -> dict[str, Any]:
    """The same profile. Whoever adds a version sends it, and everyone's lists are made from it."""
    _Profile.model_validate(value)
    return value


class AddRequest(BaseModel):
    """`digest` names the manifest, which is in the store with all that it refers to."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(max_length=63)]
    digest: Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
    file: Annotated[str | None, Field(max_length=4095)] = None
    source: Annotated[str, Field(max_length=4095)] = ""
    note: Annotated[str, Field(max_length=2000)] = ""
    profile: Annotated[dict[str, Any], AfterValidator(_profile)] | None = None


@router.get("/data", dependencies=[VIEWER])
async def list_data(controller: TheController) -> list[DataVersionView]:
    rows = await controller.db.read(datasets.newest)
    return [datasets.view(row, versions) for row, versions in rows]


@router.post("/data", dependencies=[OPERATOR])
async def add(request: AddRequest, controller: TheController, who: TheCaller) -> DataVersionView:
    return await commands.add(controller, who, **request.model_dump())


@router.get("/data/{ref}", dependencies=[VIEWER])
async def show(ref: str, controller: TheController) -> DataVersionDetail:
    wanted = parse_ref(ref)
    return datasets.detail(await controller.db.read(lambda s: datasets.get(s, wanted)))


@router.get("/data/{ref}/versions", dependencies=[VIEWER])
async def versions(ref: str, controller: TheController) -> list[DataVersionView]:
    name = parse_ref(ref).name
    rows = await controller.db.read(lambda session: datasets.versions(session, name))
    return [datasets.view(row) for row in rows]


@router.get("/data/{ref}/files", dependencies=[VIEWER])
async def list_files(ref: str, controller: TheController) -> list[DataFile]:
    return await commands.files(controller, parse_ref(ref))


@router.get("/data/{ref}/blobs/{sha256}", dependencies=[VIEWER], response_class=Octets)
async def content(
    ref: str,
    sha256: str,
    controller: TheController,
    offset: Annotated[int, Query(ge=0, le=2**62)] = 0,
) -> FileStretches:
    """The bytes of one file from `offset` on."""
    path, size = await commands.blob(controller, parse_ref(ref), sha256)

    async def opened() -> BinaryIO:
        return path.open("rb")

    async def whole() -> AsyncIterator[Stretch]:
        yield min(offset, size), size

    return FileStretches(opened, whole(), {"Content-Length": str(max(size - offset, 0))})
