"""Whether who asked still waits for the answer: what they asked for is not begun when they have gone.

They may have asked again by then, with the same key, or have been told that nothing came of it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from agents.controller.stores.database import ASKING, Asking

if TYPE_CHECKING:
    from uvicorn.protocols.http.h11_impl import H11Protocol

    from agents.controller.api.zerocopy import Application


def attended(app: Application, protocol: H11Protocol) -> Application:
    """`app`, with the writes of each request bound to its connection."""

    async def watched(scope: Any, receive: Any, send: Any) -> None:
        cycle, task = protocol.cycle, asyncio.current_task()
        token = ASKING.set(Asking(task, lambda: bool(cycle and cycle.disconnected)))
        try:
            await app(scope, receive, send)
        finally:
            ASKING.reset(token)

    return watched
