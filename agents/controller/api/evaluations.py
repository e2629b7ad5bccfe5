"""Evaluations: measure a version, list them, show one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from agents.controller.api.access import OPERATOR, VIEWER
from agents.controller.api.bodies import BoundedRoute
from agents.controller.api.common import TheCaller, TheController
from agents.controller.commands import evaluating
from jobs.models.evaluations import Evaluation, evaluation_number
from jobs.wire.evaluationviews import EvaluationDetail, EvaluationView

router = APIRouter(route_class=BoundedRoute)


class EvaluateRequest(BaseModel):
    """`asked` is an evaluation (`jobs.models.evaluations.Evaluation`); the same key asks only once."""

    model_config = ConfigDict(extra="forbid")

    asked: dict[str, Any]
    key: Annotated[str | None, Field(min_length=1, max_length=200)] = None


@router.post("/models/{ref}/evaluate", status_code=201, dependencies=[OPERATOR])
async def evaluate(
    ref: str,
    request: EvaluateRequest,
    controller: TheController,
    who: TheCaller,
) -> EvaluationView:
    """Measure a version on a hold-out version of a data set, by a job."""
    asked = Evaluation.from_json(request.asked)
    return await evaluating.evaluate(controller, who, ref, asked, request.key)


@router.get("/evaluations", dependencies=[VIEWER])
async def list_evaluations(
    controller: TheController,
    model: str | None = None,
    data: str | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 200,
) -> Sequence[EvaluationView]:
    """Newest first. `model`: digits, or one version of it; `data`: digits-test, or one version."""
    return await evaluating.listed(controller, model, data, limit)


@router.get("/evaluations/{number}", dependencies=[VIEWER])
async def show(number: str, controller: TheController) -> EvaluationDetail:
    return await evaluating.shown(controller, evaluation_number(number))
