"""Replies that the kernel copies from a file into the caller's socket.

This is ASGI's extension `http.response.zerocopysend`, which uvicorn does not have. A gigabyte of a log costs
the controller some 0.2 s of CPU, and nothing on the event loop: what may have to wait for a slow disk is
done by threads of its own.
"""

from __future__ import annotations

import asyncio
import errno
import os
import select
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, cast

import h11

if TYPE_CHECKING:
    from uvicorn.protocols.http.h11_impl import H11Protocol

EXTENSION = "http.response.zerocopysend"
"""Type of the message `{"type": EXTENSION, "file": f, "offset": 0, "count": 5, "more_body": True}`, which
adds that much of an open file to the body. Only `http.response.body` ends a body here."""

_TURN = 32 << 20
"""Bytes after which a thread is given back, so that a few long copies keep nobody else waiting."""
_PATIENCE = 20
"""Milliseconds that a thread waits for its reader: one that keeps up costs no hop to the loop, and for one
that does not it is the loop that waits."""
_PIECE = 1 << 16
_GONE = (BrokenPipeError, ConnectionResetError)

_threads = ThreadPoolExecutor(4, thread_name_prefix="zero-copy")

Application = Callable[[Any, Any, Any], Awaitable[None]]


class FileEnded(Exception):
    """The file is shorter than was promised."""


class _Stretch:
    """Stands for bytes of a file towards h11, which counts them and hands them on untouched."""

    def __init__(self, length: int) -> None:
        self._length = length

    def __len__(self) -> int:
        return self._length


def zero_copy(app: Application, protocol: H11Protocol) -> Application:
    """`app`, with the extension for what it answers on this connection."""

    async def extended(scope: Any, receive: Any, send: Any) -> None:
        async def sending(message: Any) -> None:
            if message["type"] != EXTENSION:
                await send(message)
            elif message["count"]:
                file = message["file"].fileno()
                await _send_file(protocol, file, message["offset"], message["count"])

        extensions = {**scope.get("extensions", {}), EXTENSION: {}}
        await app({**scope, "extensions": extensions}, receive, sending)

    return extended


async def _send_file(protocol: H11Protocol, file: int, offset: int, count: int) -> None:
    """One stretch of a body. When the file turns out to be shorter the connection is cut, since its
    reader was promised more; when the reader has gone, there is nothing to do."""
    transport, cycle = protocol.transport, protocol.cycle
    if cycle.disconnected or transport.is_closing():
        return
    stretch = _Stretch(count)
    for part in (
        protocol.conn.send_with_data_passthrough(h11.Data(data=cast("bytes", stretch))) or ()
    ):
        if cast("object", part) is not stretch:
            transport.write(part)  # what frames a chunk
            continue
        await _flushed(protocol)
        try:
            while count and not cycle.disconnected:
                descriptor = transport.get_extra_info("socket").fileno()
                sent = await _in_thread(_push, descriptor, file, offset, min(count, _TURN))
                offset, count = offset + sent, count - sent
                if sent == 0:
                    await _writable(descriptor)
        except (*_GONE, FileEnded):
            transport.abort()
            return


async def _flushed(protocol: H11Protocol) -> None:
    """Wait until the loop has written what it holds for this connection, the head of the reply."""
    protocol.transport.set_write_buffer_limits(0)
    try:
        await protocol.flow.drain()
    finally:
        protocol.transport.set_write_buffer_limits()


async def _in_thread(push: Callable[..., int], out: int, file: int, offset: int, count: int) -> int:
    """`push` in a thread, with descriptors of its own: it may go on for a moment after this was
    cancelled, and by then the numbers could be those of other files."""
    own = os.dup(out), os.dup(file)

    def close(_: object) -> None:
        for descriptor in own:
            os.close(descriptor)

    future = _threads.submit(push, *own, offset, count)
    future.add_done_callback(close)  # also when it was cancelled before it began
    return await asyncio.wrap_future(future)


def _push(out: int, file: int, offset: int, count: int) -> int:
    """Copy from a file into a socket that does not block, as long as its reader keeps up; how much.

    Raises FileEnded, or OSError when the reader has gone.
    """
    ready = select.poll()
    ready.register(out, select.POLLOUT)
    sent = 0
    while sent < count:
        try:
            step = _step(out, file, offset + sent, count - sent)
        except BlockingIOError:
            if not ready.poll(_PATIENCE):
                break
            continue
        if not step:
            raise FileEnded
        sent += step
    return sent


def _step(out: int, file: int, offset: int, count: int) -> int:
    try:
        return os.sendfile(out, file, offset, count)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS):
            raise
    # A file system from which the kernel cannot copy by itself.
    data = os.pread(file, min(count, _PIECE), offset)
    return os.write(out, data) if data else 0


async def _writable(descriptor: int) -> None:
    """Wait until a socket takes more, or its reader has gone."""
    loop = asyncio.get_running_loop()
    own = os.dup(descriptor)  # the loop watches the original for its transport
    ready = asyncio.Event()
    loop.add_writer(own, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_writer(own)
        os.close(own)
