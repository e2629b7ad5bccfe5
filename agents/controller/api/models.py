"""Models: publish, list, show, gate, approve, alias, archive; their files."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any, BinaryIO, Literal

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from agents.controller.api.access import ADMIN, APPROVER, OPERATOR, VIEWER
from agents.controller.api.bodies import BoundedRoute
from agents.controller.api.common import Octets, TheCaller, TheController, resolve
from agents.controller.api.files import FileStretches, Stretch
from agents.controller.commands import decisions, modelfiles, models, publishing
from jobs.base.errors import Conflict, InvalidInput
from jobs.models.approval import Policy
from jobs.models.gates import Gate
from jobs.models.names import parse_ref
from jobs.models.sshsig import MAX_SIGNATURE
from jobs.store import models as stored
from jobs.wire.modelviews import (
    AliasView,
    DiffView,
    EvidenceView,
    ModelDetail,
    ModelView,
    PolicyView,
    PublishView,
    StatementView,
    VerifyView,
)

router = APIRouter(route_class=BoundedRoute)


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid")


class PublishRequest(_Request):
    """A version of what a run has left (`run`), or of files that were sent (`manifest`)."""

    name: str
    run: str | None = None
    outputs: Annotated[list[str], Field(max_length=1000)] = []
    manifest: str | None = None
    features: Annotated[str | None, Field(max_length=200)] = None
    origin: Annotated[str, Field(max_length=1000)] = ""
    label: str | None = None
    tags: Annotated[dict[str, str], Field(max_length=100)] = {}


class DecisionRequest(_Request):
    """Which bytes, and which result of the gate (None: there was none) one has looked at."""

    digest: str
    evidence: str | None = None
    comment: str = ""
    signature: Annotated[str | None, Field(max_length=MAX_SIGNATURE)] = None


class StatementRequest(_Request):
    decision: Literal["approve", "reject"]
    comment: str = ""


class RevokeRequest(_Request):
    reason: str = ""
    user: str | None = None


class ArchiveRequest(_Request):
    reason: str = ""
    undo: bool = False


class AliasRequest(_Request):
    alias: str


class TagRequest(_Request):
    tags: Annotated[dict[str, str | None], Field(max_length=100)]


@router.post("/models", status_code=201, dependencies=[OPERATOR])
async def publish(
    request: PublishRequest, controller: TheController, who: TheCaller, response: Response
) -> PublishView:
    if (request.run is None) is (request.manifest is None):
        raise InvalidInput("a version is made from a run or from a manifest: give one of them")
    if request.run is not None:
        view = await publishing.register(
            controller,
            who,
            request.name,
            request.run,
            outputs=request.outputs,
            transform=request.features,
            label=request.label,
            tags=request.tags,
        )
    else:
        assert request.manifest is not None
        view = await publishing.take_in(
            controller,
            who,
            request.name,
            request.manifest,
            origin=request.origin or "files",
            transform=request.features,
            label=request.label,
            tags=request.tags,
        )
    if not view["created"]:
        response.status_code = 200
    return view


@router.get("/models", dependencies=[VIEWER])
async def list_models(
    controller: TheController,
    name: str | None = None,
    q: str | None = None,
    tag: Annotated[list[str] | None, Query()] = None,
    alias: str | None = None,
    run: str | None = None,
    archived: bool = False,
    limit: Annotated[int, Query(ge=1, le=1000)] = 200,
) -> list[ModelView]:
    """Versions by name, the newest first. `tag` is KEY=VALUE, and repeats."""
    tags = []
    for text in tag or []:
        key, equals, value = text.partition("=")
        if not equals:
            raise InvalidInput(f"tag: found '{text}'; allowed: KEY=VALUE")
        tags.append((key, value))
    wanted = stored.Wanted(
        name=name,
        text=q,
        tags=tags,
        alias=alias,
        job=None if run is None else (await resolve(controller, run)).job,
        archived=archived,
        limit=limit,
    )
    now, signers = controller.now(), await controller.signers()
    return await controller.db.read(
        lambda s: [
            stored.model_view(s, model, row, now, signers)
            for model, row in stored.versions(s, wanted)
        ]
    )


@router.get("/models/{ref}", dependencies=[VIEWER])
async def show(ref: str, controller: TheController) -> ModelDetail:
    return await modelfiles.detail(controller, parse_ref(ref))


@router.get("/models/{ref}/diff/{other}", dependencies=[VIEWER])
async def diff(ref: str, other: str, controller: TheController) -> DiffView:
    return await modelfiles.diff(controller, parse_ref(ref), parse_ref(other))


@router.post("/models/{ref}/gate", dependencies=[OPERATOR])
async def gate(
    ref: str, request: dict[str, Any], controller: TheController, who: TheCaller
) -> EvidenceView:
    """Hold it against a gate: the body is what a gate file holds. A gate that fails is an answer too."""
    return await models.run_gate(controller, who, parse_ref(ref), Gate.from_json(request))


@router.post("/models/{ref}/approve", dependencies=[APPROVER])
async def approve(
    ref: str, request: DecisionRequest, controller: TheController, who: TheCaller
) -> ModelView:
    return await decisions.decide_on(
        controller, who, parse_ref(ref), "approve", **request.model_dump()
    )


@router.post("/models/{ref}/reject", dependencies=[APPROVER])
async def reject(
    ref: str, request: DecisionRequest, controller: TheController, who: TheCaller
) -> ModelView:
    return await decisions.decide_on(
        controller, who, parse_ref(ref), "reject", **request.model_dump()
    )


@router.post("/models/{ref}/statement", dependencies=[APPROVER])
async def statement(
    ref: str, request: StatementRequest, controller: TheController, who: TheCaller
) -> StatementView:
    """What the caller has to sign; nothing is changed."""
    return await decisions.statement_for(
        controller, who, parse_ref(ref), request.decision, request.comment
    )


@router.post("/models/{ref}/revoke", dependencies=[APPROVER])
async def revoke(
    ref: str, request: RevokeRequest, controller: TheController, who: TheCaller
) -> ModelView:
    return await decisions.revoke(controller, who, parse_ref(ref), request.reason, request.user)


@router.post("/models/{ref}/archive", dependencies=[OPERATOR])
async def archive(
    ref: str, request: ArchiveRequest, controller: TheController, who: TheCaller
) -> ModelView:
    return await models.archive(controller, who, parse_ref(ref), request.reason, undo=request.undo)


@router.post("/models/{ref}/alias", dependencies=[OPERATOR])
async def set_alias(
    ref: str, request: AliasRequest, controller: TheController, who: TheCaller
) -> AliasView:
    return await models.set_alias(controller, who, parse_ref(ref), request.alias)


@router.post("/models/{ref}/unalias", dependencies=[OPERATOR])
async def drop_alias(
    ref: str, request: AliasRequest, controller: TheController, who: TheCaller
) -> AliasView:
    return await models.drop_alias(controller, who, parse_ref(ref).name, request.alias)


@router.post("/models/{ref}/tags", dependencies=[OPERATOR])
async def tag(
    ref: str, request: TagRequest, controller: TheController, who: TheCaller
) -> dict[str, str]:
    return await models.set_tags(controller, who, parse_ref(ref), request.tags)


@router.post("/models/{ref}/verify", dependencies=[OPERATOR])
async def verify(ref: str, controller: TheController) -> VerifyView:
    return await modelfiles.verify(controller, parse_ref(ref))


@router.get("/models/{ref}/policy", dependencies=[VIEWER])
async def policy(ref: str, controller: TheController) -> PolicyView:
    name = parse_ref(ref).name
    found = await controller.db.read(lambda s: stored.policy_of(stored.get_model(s, name)))
    return {"name": name, "policy": found.to_json()}


@router.post("/models/{ref}/policy", dependencies=[ADMIN])
async def set_policy(
    ref: str, request: dict[str, Any], controller: TheController, who: TheCaller
) -> PolicyView:
    policy = Policy.from_json(request)
    return await models.set_policy(controller, who, parse_ref(ref).name, policy)


@router.get("/models/{ref}/files/{path:path}", response_class=Octets, dependencies=[VIEWER])
async def file(ref: str, path: str, controller: TheController) -> FileStretches:
    entry, blob = await modelfiles.file_of(controller, parse_ref(ref), path)
    try:
        size = (await asyncio.to_thread(blob.stat)).st_size
    except OSError as error:
        raise Conflict(f"{path} cannot be read: {error.strerror}") from None
    if size != entry.size:
        raise Conflict(f"{path} has {size} bytes instead of {entry.size}: it was changed")

    async def opened() -> BinaryIO:
        return await asyncio.to_thread(blob.open, "rb")

    async def whole() -> AsyncIterator[Stretch]:
        yield 0, size

    return FileStretches(opened, whole(), {"X-Size": str(size), "X-Digest": entry.sha256})
