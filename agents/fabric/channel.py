"""Messages between the controller and its driver process: length, then a pickled value.

Both ends are our own code, parent and child over a socket pair that nobody else can open, so pickle is
safe here; it carries bytes and tuples as they are.
"""

from __future__ import annotations

import asyncio
import pickle
import socket
import struct
from contextlib import suppress
from typing import Any

_HEADER = struct.Struct("!Q")


class Channel:
    """One end of a socket pair. Messages arrive whole and in order."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def open(cls, end: socket.socket, buffer: int = 1 << 16) -> Channel:
        """`buffer`: bytes that are read ahead of a message that is not whole."""
        return cls(*await asyncio.open_connection(sock=end, limit=buffer))

    async def receive(self) -> Any:
        """The next message. Raises EOFError when the other end is gone."""
        try:
            (length,) = _HEADER.unpack(await self._reader.readexactly(_HEADER.size))
            return pickle.loads(await self._reader.readexactly(length))  # noqa: S301 - see above
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise EOFError("the other end of the channel is gone") from error

    async def send(self, message: Any) -> None:
        """Send a message; waits while the other end is slow to read. Raises EOFError when it is gone."""
        data = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
        try:
            self._writer.write(_HEADER.pack(len(data)))
            self._writer.write(data)
            await self._writer.drain()
        except ConnectionError as error:
            raise EOFError("the other end of the channel is gone") from error

    async def close(self) -> None:
        self._writer.close()
        with suppress(ConnectionError):  # it was gone before
            await self._writer.wait_closed()
