"""What holds for every request and answer: how much may be sent, and which API is spoken."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from jobs.base.units import format_size
from jobs.wire.version import HEADER, stamp

MAX_BODY = 4 << 20
"""Bytes. The largest honest one is a job with 1 MiB of `git diff`, or a sweep with 10,000 points."""
MAX_PACK = 4 << 30
"""Bytes of a pack of blobs; `qd submit` refuses larger work folders long before."""
_PACKS = "/v1/blobs"
_STAMP = (HEADER.lower().encode(), stamp().encode())


class Stamped:
    """ASGI middleware: each answer says which API this is."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def stamped(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), _STAMP]
            await send(message)

        await self._app(scope, receive, stamped)


class BodyLimit:
    """ASGI middleware: a body that is too large is never held.

    Reading one beyond its limit raises HTTPException (413) in the application.
    """

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
