"""Bytes between a client's connection on this machine and a channel to the API's socket on the head.

Both ends hold back when the other does not keep up, so a log of gigabytes passes in constant memory, and
a reader that was stopped stops nobody but itself.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import asyncssh

from console.remote.far import FAILED, READY
from jobs.base.errors import QuarterdeckError

_BUFFER = 1 << 20
"""Bytes that may wait to be written before the other end is held back."""

_NOISE = 1 << 16
"""Bytes that a login shell may say before our program is heard."""


class Near(asyncio.Protocol):
    """A client's connection. It gets one line first: how it went to reach the head.

    Args:
        arrived: called when a client is there; it has to say `begin` or `refuse` in the end.
        left: called when it is gone.
    """

    def __init__(self, arrived: Callable[[Near], None], left: Callable[[Near], None]) -> None:
        self._arrived, self._left = arrived, left
        self._far: Far | None = None
        self.gone = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.set_write_buffer_limits(_BUFFER)
        transport.pause_reading()
        self._arrived(self)

    def begin(self, far: Far, told: dict[str, Any]) -> None:
        """The head is reached: from here on bytes pass."""
        if self.gone:
            far.close()
            return
        self._far = far
        self.transport.write(_line(told))
        far.attach(self)
        if not self.transport.is_closing():
            self.transport.resume_reading()

    def refuse(self, error: QuarterdeckError) -> None:
        """The head is not reached."""
        if not self.gone:
            self.transport.write(_line(error.to_json()))
            self.transport.close()

    def data_received(self, data: bytes) -> None:
        if self._far is not None:
            self._far.write(data)

    def pause_writing(self) -> None:
        if self._far is not None:
            self._far.pause_reading()

    def resume_writing(self) -> None:
        if self._far is not None:
            self._far.resume_reading()

    def connection_lost(self, error: Exception | None) -> None:
        """The client is gone: HTTP knows no half-closed connections, so all is over."""
        self.gone = True
        if self._far is not None:
            self._far.close()
        self._left(self)


class Far(asyncssh.SSHUNIXSession[bytes], asyncssh.SSHClientSession[bytes]):
    """The channel to the head. What comes before there is a client for it is kept."""

    def __init__(self) -> None:
        self._near: Near | None = None
        self._early = b""
        self._ended = False

    def connection_made(self, chan: Any) -> None:
        self._channel = chan
        chan.set_write_buffer_limits(_BUFFER)

    def attach(self, near: Near) -> None:
        self._near = near
        if self._early:
            near.transport.write(self._early)
        if self._ended:
            near.transport.close()

    def data_received(self, data: bytes, datatype: int | None) -> None:
        if datatype is not None:
            return  # stderr of a shell
        if self._near is not None:
            self._near.transport.write(data)
        else:
            self._early += data

    def eof_received(self) -> bool:
        self._end()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._end()

    def _end(self) -> None:
        self._ended = True
        if self._near is not None:
            self._near.transport.close()

    def pause_writing(self) -> None:
        if self._near is not None and not self._near.transport.is_closing():
            self._near.transport.pause_reading()

    def resume_writing(self) -> None:
        if self._near is not None and not self._near.transport.is_closing():
            self._near.transport.resume_reading()

    def write(self, data: bytes) -> None:
        if not self._ended and not self._channel.is_closing():
            self._channel.write(data)

    def pause_reading(self) -> None:
        self._channel.pause_reading()

    def resume_reading(self) -> None:
        if not self._ended:
            self._channel.resume_reading()

    def close(self) -> None:
        self._channel.abort()


class Carried(Far):
    """The channel to a program on the head (`far.py`) that is connected to the API's socket.

    `outcome` is None once it is connected, or the name of the error that it met ("ENOENT"); "" when
    the program ended, or talked too much, before it said either.
    """

    def __init__(self) -> None:
        super().__init__()
        self.outcome: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes, datatype: int | None) -> None:
        super().data_received(data, datatype)
        if self.outcome.done() or datatype is not None:
            return
        _, ready, rest = self._early.partition(READY)
        _, failed, name = self._early.partition(FAILED)
        if ready:
            self._early = rest
            self.outcome.set_result(None)
        elif failed and b"\n" in name:
            self.outcome.set_result(name.split(b"\n")[0].decode(errors="replace"))
        elif len(self._early) > _NOISE:
            self.outcome.set_result("")

    def _end(self) -> None:
        super()._end()
        if not self.outcome.done():
            self.outcome.set_result("")


def _line(document: dict[str, Any]) -> bytes:
    return json.dumps(document).encode() + b"\n"
