"""Services: deploy, list, steer, ask."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from agents.controller.api.access import OPERATOR, VIEWER
from agents.controller.api.bodies import BoundedRoute
from agents.controller.api.common import TheCaller, TheController
from agents.controller.commands import feedback, servicekeys, services
from jobs.services.keys import NAME
from jobs.services.scaling import MOST
from jobs.wire.serviceviews import DeploymentView, KeyView, NewKeyView, PredictView, TargetName

router = APIRouter(route_class=BoundedRoute)


class DeployRequest(BaseModel):
    """What to serve: a service with the digest of its work folder, or a version of a model with fields
    of a service over what follows from it."""

    model_config = ConfigDict(extra="forbid")

    spec: dict[str, Any] = {}
    model: str | None = None
    target: TargetName = "production"
    snapshot: str | None = None


class PredictRequest(BaseModel):
    """One request: without a body a GET."""

    model_config = ConfigDict(extra="forbid")

    path: Annotated[str | None, Field(pattern=r"^/[!-~]*$", max_length=4096)] = None
    body: str | None = None
    headers: Annotated[dict[str, str], Field(max_length=32)] = {}


class ScaleRequest(BaseModel):
    """How many replicas: a number, or fields of a scale over those that there are."""

    model_config = ConfigDict(extra="forbid")

    replicas: Annotated[int, Field(ge=1, le=MOST)] | None = None
    scale: dict[str, Any] | None = None


class KeyRequest(BaseModel):
    """A key to give out; `rate` as `100/s` or `600/min`."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(pattern=f"^{NAME.pattern}$")]
    rate: Annotated[str | None, Field(max_length=32)] = None


@router.post("/deployments", status_code=201, dependencies=[OPERATOR])
async def deploy(
    request: DeployRequest, controller: TheController, who: TheCaller
) -> DeploymentView:
    if request.model is not None:
        return await services.deploy_model(
            controller, who, ref=request.model, options=request.spec, target=request.target
        )
    return await services.deploy(
        controller, who, spec=request.spec, target=request.target, snapshot=request.snapshot
    )


@router.get("/deployments", dependencies=[VIEWER])
async def list_deployments(controller: TheController) -> list[DeploymentView]:
    return await feedback.with_online(controller, controller.services.views())


@router.post("/deployments-hold", dependencies=[OPERATOR])
async def hold(controller: TheController) -> dict[str, bool]:
    """Start no replica any more until the controller is started again (`qd down --force`)."""
    controller.services.hold()
    return {"held": True}


@router.get("/deployments/{name}", dependencies=[VIEWER])
async def show(
    name: str, controller: TheController, target: TargetName | None = None
) -> DeploymentView:
    return await controller.services.view(name, target)


@router.post("/deployments/{name}/predict", dependencies=[OPERATOR])
async def predict(
    name: str,
    request: PredictRequest,
    controller: TheController,
    target: TargetName | None = None,
) -> PredictView:
    body = None if request.body is None else request.body.encode()
    return await services.predict(
        controller, name, target, path=request.path, body=body, headers=request.headers
    )


@router.post("/deployments/{name}/keys", status_code=201, dependencies=[OPERATOR])
async def add_key(
    name: str,
    request: KeyRequest,
    controller: TheController,
    who: TheCaller,
    target: TargetName | None = None,
) -> NewKeyView:
    return await servicekeys.add(controller, who, name, target, request.name, request.rate)


@router.get("/deployments/{name}/keys", dependencies=[VIEWER])
async def list_keys(
    name: str, controller: TheController, target: TargetName | None = None
) -> list[KeyView]:
    return await servicekeys.listed(controller, name, target)


@router.post("/deployments/{name}/keys/{key}/revoke", dependencies=[OPERATOR])
async def revoke_key(
    name: str,
    key: str,
    controller: TheController,
    who: TheCaller,
    target: TargetName | None = None,
) -> KeyView:
    return await servicekeys.revoke(controller, who, name, target, key)


@router.post("/deployments/{name}/scale", dependencies=[OPERATOR])
async def rescale(
    name: str,
    request: ScaleRequest,
    controller: TheController,
    who: TheCaller,
    target: TargetName | None = None,
) -> DeploymentView:
    """Set how many replicas there are, without a rollout."""
    return await services.rescale(
        controller, who, name, target, replicas=request.replicas, scale=request.scale
    )


@router.post("/deployments/{name}/{what}", dependencies=[OPERATOR])
async def steer(
    name: str,
    what: str,
    controller: TheController,
    who: TheCaller,
    target: TargetName | None = None,
) -> DeploymentView:
    """pause, resume, abort, promote, rollback or remove."""
    return await services.steer(controller, who, name, target, what)
