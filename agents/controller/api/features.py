"""Features: list, show, add a version, and build a data set with one."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from agents.controller.api.access import OPERATOR, VIEWER
from agents.controller.api.bodies import BoundedRoute
from agents.controller.api.common import TheCaller, TheController
from agents.controller.commands import features as commands
from jobs.features.names import parse_ref
from jobs.store import features
from jobs.wire.featureviews import FeatureVersionDetail, FeatureVersionView
from jobs.wire.views import SubmitView

router = APIRouter(route_class=BoundedRoute)

Ref = Annotated[str, Field(min_length=1, max_length=200)]


class AddRequest(BaseModel):
    """`digest` names the manifest, which is in the store with all that it refers to."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(max_length=63)]
    digest: Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
    source: Annotated[str, Field(max_length=4095)] = ""
    note: Annotated[str, Field(max_length=2000)] = ""


class BuildRequest(BaseModel):
    """Rows, tables that are joined by the names that the features give them, and the data set to make."""

    model_config = ConfigDict(extra="forbid")

    data: Ref
    into: Ref
    tables: Annotated[dict[Ref, Ref], Field(max_length=32)] = {}
    python: Annotated[str, Field(min_length=1, max_length=4096)] | None = None
    cpus: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    memory: Annotated[int, Field(ge=1, le=2**62)] | None = None
    key: Annotated[str, Field(min_length=1, max_length=200)] | None = None


@router.get("/features", dependencies=[VIEWER])
async def list_features(controller: TheController) -> list[FeatureVersionView]:
    rows = await controller.db.read(features.newest)
    return [features.view(row, versions) for row, versions in rows]


@router.post("/features", dependencies=[OPERATOR])
async def add(request: AddRequest, controller: TheController, who: TheCaller) -> FeatureVersionView:
    return await commands.add(controller, who, **request.model_dump())


@router.get("/features/{ref}", dependencies=[VIEWER])
async def show(ref: str, controller: TheController) -> FeatureVersionDetail:
    wanted = parse_ref(ref)
    return features.detail(await controller.db.read(lambda s: features.get(s, wanted)))


@router.get("/features/{ref}/versions", dependencies=[VIEWER])
async def versions(ref: str, controller: TheController) -> list[FeatureVersionView]:
    name = parse_ref(ref).name
    rows = await controller.db.read(lambda session: features.versions(session, name))
    return [features.view(row) for row in rows]


@router.get("/features/{ref}/code", dependencies=[VIEWER])
async def code(ref: str, controller: TheController) -> dict[str, str]:
    """The text of its Python file and of its declaration, by path."""
    return await commands.files(controller, parse_ref(ref))


@router.post("/features/{ref}/builds", status_code=201, dependencies=[OPERATOR])
async def build(
    ref: str, request: BuildRequest, controller: TheController, who: TheCaller
) -> SubmitView:
    """The job that does it; the same key gets the same job."""
    asked = commands.Build(**request.model_dump())
    return await commands.build(controller, who, parse_ref(ref), asked)
