"""Alerts: list, acknowledge, silence, try out."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from agents.controller.api.access import OPERATOR, VIEWER
from agents.controller.api.bodies import BoundedRoute
from agents.controller.api.common import TheCaller, TheController
from jobs.store import alertwriting
from jobs.wire.alertviews import AlertView, ChannelTest, SilenceView

router = APIRouter(route_class=BoundedRoute)


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid")


class AckRequest(_Request):
    rule: str
    subject: str
    reason: Annotated[str, Field(max_length=1000)] = ""


class SilenceRequest(_Request):
    """`rule` and `subject` are patterns, as of a shell."""

    rule: Annotated[str, Field(min_length=1, max_length=200)]
    subject: Annotated[str, Field(min_length=1, max_length=200)] = "*"
    seconds: Annotated[float, Field(gt=0, le=366 * 86_400)]
    reason: Annotated[str, Field(max_length=1000)] = ""


class TestRequest(_Request):
    channel: str | None = None


@router.get("/alerts", dependencies=[VIEWER])
async def list_alerts(controller: TheController, over: bool = True) -> list[AlertView]:
    now = controller.now()
    return await controller.db.read(lambda s: alertwriting.views(s, now, over=over))


@router.get("/alerts/silences", dependencies=[VIEWER])
async def list_silences(controller: TheController) -> list[SilenceView]:
    now = controller.now()
    return await controller.db.read(
        lambda s: [alertwriting.silence_view(row) for row in alertwriting.silences(s, now)]
    )


@router.post("/alerts/ack", dependencies=[OPERATOR])
async def ack(request: AckRequest, controller: TheController, who: TheCaller) -> AlertView:
    return await controller.alerts.ack(request.rule, request.subject, request.reason, who)


@router.post("/alerts/silence", dependencies=[OPERATOR])
async def silence(
    request: SilenceRequest, controller: TheController, who: TheCaller
) -> SilenceView:
    return await controller.alerts.silence(
        request.rule, request.subject, request.seconds, request.reason, who
    )


@router.post("/alerts/test", dependencies=[OPERATOR])
async def test(request: TestRequest, controller: TheController) -> list[ChannelTest]:
    return await controller.alerts.test(request.channel)
