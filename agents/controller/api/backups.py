"""A backup of the control plane, made while it runs."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from agents.controller.api.access import ADMIN
from agents.controller.api.bodies import BoundedRoute
from agents.controller.api.common import STREAMED, TheCaller, TheController
from agents.controller.commands.backingup import back_up
from jobs.base.errors import QuarterdeckError
from jobs.wire.backupviews import BackupLine

router = APIRouter(route_class=BoundedRoute)


class BackupRequest(BaseModel):
    """`dest`: an absolute path on the controller's machine that does not exist yet."""

    model_config = ConfigDict(extra="forbid")

    dest: Annotated[str | None, Field(max_length=4_000, pattern=r"^/[^\x00]*$")] = None
    secrets: bool = False


@router.post("/backups", response_model=BackupLine, openapi_extra=STREAMED, dependencies=[ADMIN])
async def make(
    request: BackupRequest, controller: TheController, caller: TheCaller
) -> StreamingResponse:
    """Says what is done, a line each; the last one is the backup, or `error`."""

    async def lines() -> AsyncIterator[bytes]:
        try:
            async for line in back_up(controller, caller, request.dest, request.secrets):
                yield json.dumps(line).encode() + b"\n"
        except QuarterdeckError as error:
            yield json.dumps(error.to_json()).encode() + b"\n"

    return StreamingResponse(lines(), media_type="application/x-ndjson")
