"""A reply whose body is stretches of one file."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import BinaryIO

from starlette.responses import StreamingResponse
from starlette.types import Send

from agents.controller.api.zerocopy import EXTENSION

Stretch = tuple[int, int]
"""Offsets of the first byte, and of the one behind the last."""


class FileStretches(StreamingResponse):
    """Sends stretches as they come, copied by the kernel (the server is always `PeerProtocol`).

    Args:
        opened: opens the file; it is called once there is something to send.
        stretches: what of it to send.
    """

    def __init__(
        self,
        opened: Callable[[], Awaitable[BinaryIO]],
        stretches: AsyncIterator[Stretch],
        headers: Mapping[str, str],
    ) -> None:
        super().__init__((), media_type="application/octet-stream", headers=headers)
        self._opened, self._stretches = opened, stretches

    async def stream_response(self, send: Send) -> None:
        status = {"status": self.status_code, "headers": self.raw_headers}
        await send({"type": "http.response.start", **status})
        with contextlib.ExitStack() as stack:
            file: BinaryIO | None = None
            async for start, end in self._stretches:
                if start == end:
                    continue
                if file is None:
                    file = stack.enter_context(await self._opened())
                stretch = {"file": file, "offset": start, "count": end - start}
                await send({"type": EXTENSION, **stretch, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
