"""The audit log: read, export, verify."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from agents.controller.api.access import VIEWER
from agents.controller.api.bodies import BoundedRoute
from agents.controller.api.common import STREAMED, TheController, ndjson_batches, time_argument
from agents.controller.controller import Controller
from agents.controller.stores.auditheads import Head, parse
from jobs.store import audit
from jobs.wire.modelviews import AuditVerifyView, AuditView

router = APIRouter(route_class=BoundedRoute)

_AT_ONCE = 1_000


@router.get("/audit", response_model=AuditView, openapi_extra=STREAMED, dependencies=[VIEWER])
async def rows(
    controller: TheController,
    user: str | None = None,
    action: str | None = None,
    target: str | None = None,
    since: str | None = None,
    until: str | None = None,
    limit: Annotated[int | None, Query(ge=1, le=100_000)] = None,
) -> StreamingResponse:
    """Rows oldest first, as a stream: all that are asked for, or the last `limit` of them."""
    wanted = audit.Wanted(
        user, action, target, time_argument("since", since), time_argument("until", until)
    )

    async def pages() -> AsyncIterator[list[AuditView]]:
        if limit is not None:
            yield await controller.db.read(lambda s: audit.newest(s, wanted, limit))
            return
        after = 0
        while page := await controller.db.read(
            lambda s: audit.rows(s, wanted, after, _AT_ONCE)  # noqa: B023 - it is awaited here
        ):
            yield page
            after = page[-1]["id"]

    return ndjson_batches(pages())


class HeadsRequest(BaseModel):
    """A copy of `audit-heads.jsonl` that was kept elsewhere."""

    model_config = ConfigDict(extra="forbid")

    heads: Annotated[str, Field(max_length=8 << 20)]


@router.get("/audit/verify", dependencies=[VIEWER])
async def verify(controller: TheController) -> AuditVerifyView:
    """Look at the whole chain, and at the checkpoints beside the database."""
    return await _verified(controller, await asyncio.to_thread(controller.audit_heads.read))


@router.post("/audit/verify", dependencies=[VIEWER])
async def verify_against(request: HeadsRequest, controller: TheController) -> AuditVerifyView:
    """The same with checkpoints that were kept elsewhere, too."""
    here = await asyncio.to_thread(controller.audit_heads.read)
    return await _verified(controller, [*here, *parse(request.heads)])


async def _verified(controller: Controller, heads: Sequence[Head]) -> AuditVerifyView:
    forged = await asyncio.to_thread(
        lambda: next((head for head in heads if not controller.audit_heads.ours(head)), None)
    )
    verdict = await controller.db.read(
        lambda s: audit.verify_all(s, [(head.id, head.hash) for head in heads])
    )
    broken_at, reason = verdict.broken_at, verdict.reason
    if broken_at is None and forged is not None:
        broken_at, reason = forged.id, f"the checkpoint of row {forged.id} is not signed by our key"
    return {
        "ok": broken_at is None,
        "rows": verdict.rows,
        "head": verdict.head,
        "broken_at": broken_at,
        "reason": reason,
        "checkpoints": len(heads),
    }
