"""Batch prediction: `POST /v1/predictions`."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from agents.controller.api.access import OPERATOR
from agents.controller.api.bodies import BoundedRoute
from agents.controller.api.common import TheCaller, TheController
from agents.controller.commands import batching
from jobs.wire.views import SubmitView

router = APIRouter(route_class=BoundedRoute)

Path = Annotated[str, Field(min_length=1, max_length=4096)]


class PredictionRequest(BaseModel):
    """A model over files, as they are named on the nodes."""

    model_config = ConfigDict(extra="forbid")

    model: Annotated[str, Field(max_length=300)]
    files: Annotated[tuple[Path, ...], Field(min_length=1, max_length=900)]
    out: Path
    ranks: Annotated[int, Field(ge=1, le=1024)] = 1
    rows: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    features: Annotated[
        tuple[Annotated[str, Field(max_length=300)], ...], Field(max_length=10_000)
    ] = ()
    allow_nan: bool = False
    python: Path | None = None
    cpus: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    gpus: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    key: Annotated[str, Field(min_length=1, max_length=200)] | None = None


@router.post("/predictions", status_code=201, dependencies=[OPERATOR])
async def predict(
    request: PredictionRequest, controller: TheController, who: TheCaller
) -> SubmitView:
    """The job that does it; the same key gets the same job."""
    fields = request.model_dump(exclude={"model"})
    return await batching.predict(controller, who, request.model, batching.Batch(**fields))
