"""The socket on which one session's program finds the control plane, as the person of its key.

Each connection to it becomes one to the controller's gateway socket, with an introduction first. The
program never sees the controller's own socket, where it would be the gateway's user, an admin.
"""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

from jobs.wire.introductions import Introduction

CONNECTIONS = 64
"""Of one session at a time: a console has about five."""
_PIECE = 1 << 16


class Passage:
    """Args:
    path: where the program looks; its folder exists, and is this user's alone.
    controller: the controller's gateway socket.
    who: for whom it is.
    """

    def __init__(self, path: Path, controller: Path, who: Introduction) -> None:
        self._path, self._controller, self._who = path, controller, who
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Listen. Raises OSError."""
        self._server = await asyncio.start_unix_server(self._arrived, self._path, limit=_PIECE)

    async def close(self) -> None:
        """Cut all connections, and listen no more."""
        if self._server is not None:
            self._server.close()
        for task in list(self._open):
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)
        with contextlib.suppress(OSError):
            self._path.unlink()

    async def _arrived(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if len(self._open) >= CONNECTIONS:
            writer.transport.abort()
            return
        self._open.add(task)
        try:
            await self._carry(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass  # the program sees that its connection is cut, and says so
        finally:
            self._open.discard(task)
            writer.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far, to_far = await asyncio.open_unix_connection(self._controller, limit=_PIECE)
        except (FileNotFoundError, ConnectionRefusedError):
            return
        try:
            to_far.write(self._who.line())
            requests = asyncio.create_task(_copy(reader, to_far))
            try:
                await _copy(far, writer)
            finally:
                requests.cancel()
                await asyncio.gather(requests, return_exceptions=True)
            await writer.drain()
            writer.close()
            await writer.wait_closed()
        finally:
            to_far.transport.abort()


async def _copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    while data := await source.read(_PIECE):
        sink.write(data)
        await sink.drain()
    if sink.can_write_eof():
        sink.write_eof()
