"""How much a request may send, counted as it comes: a body is never held that is too large."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from jobs.units import format_size

MAX_BODY = 16 << 20
"""Bytes. The largest honest one asks which of 200,000 blobs are missing."""
MAX_PACK = 4 << 30
"""Bytes of a pack of blobs; `qd submit` refuses larger work folders long before."""
_PACKS = "/v1/blobs"


class BodyLimit:
    """ASGI middleware: reading a body beyond its limit raises HTTPException (413) in the application."""

    def __init__(self, app: ASGIApp, body: int = MAX_BODY, pack: int = MAX_PACK) -> None:
        self._app, self._body, self._pack = app, body, pack

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        limit = self._pack if scope["path"] == _PACKS else self._body
        came = 0

        async def limited() -> Message:
            nonlocal came
            message = await receive()
            came += len(message.get("body", b""))
            if came > limit:
                # The one exception that FastAPI lets through while it reads a body.
                raise HTTPException(413, f"the request is larger than {format_size(limit)}")
            return message

        return await self._app(scope, limited, send)
