"""The near end of a tunnel (`jobs/wire/tunnel.py`): local connections that end at a port beside a rank.

Three threads: one reads what the far end writes, one writes to it, and the caller's moves bytes between
both and the local sockets. An answer that was lost is asked for again, so a controller may restart meanwhile.
"""

from __future__ import annotations

import selectors
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TypeVar

from console.client import Client
from jobs.base.errors import NotFound, QuarterdeckError, Unreachable
from jobs.wire import tunnel
from jobs.wire.tunnel import Stream

T = TypeVar("T")
_WAIT = 5.0
_MUCH = 1 << 18
"""Bytes of input that the far end has not taken, above which no more is sent."""
_BATCH = 1 << 18
_PATIENCE = 120.0
"""Seconds for which a control plane that is away is waited for; connections stay open meanwhile."""
_RECORD = 5
_STDOUT = 1


class Near:
    """Args:
    path: of the tunnel in the API.
    listening: takes connections; None: there is `single` alone, and all is over with it.
    refused: called with why a connection was refused.
    """

    def __init__(
        self,
        client: Client,
        path: str,
        listening: socket.socket | None,
        single: socket.socket | None,
        refused: Callable[[str], None],
    ) -> None:
        self._client, self._path, self._refused = client.with_timeout(_WAIT + 25), path, refused
        self._listening = listening
        self._selector = selectors.DefaultSelector()
        self._open: dict[int, tuple[Stream, socket.socket]] = {}
        self._last = 0
        self._lock = threading.Condition()
        self._arrived: list[bytes] = []
        self._out = bytearray()
        self._over: QuarterdeckError | None = None
        self._closed = False
        self._wake, self._awake = socket.socketpair()
        self._single = single is not None
        if single is not None:
            self._add(single)

    def run(self) -> None:
        """Until `single` is over, or `close`. Raises NotFound when the far end has ended, or whatever
        a call does."""
        try:
            self._run()
        finally:
            for _, connected in self._open.values():
                connected.close()
            self._selector.close()
            with self._lock:  # no thread rouses a socket that is another's by then
                self._wake.close()
            self._awake.close()

    def _run(self) -> None:
        frames = tunnel.Frames()
        for work in (self._read, self._write):
            threading.Thread(target=work, daemon=True).start()
        self._selector.register(self._awake, selectors.EVENT_READ)
        if self._listening is not None:
            self._selector.register(self._listening, selectors.EVENT_READ)
        while self._open or not self._single:
            for key, events in self._selector.select():
                if key.fileobj is self._awake:
                    self._awake.recv(4096)
                    if not self._take(frames):
                        return
                elif key.fileobj is self._listening:
                    self._add(self._listening.accept()[0])
                elif key.data in self._open:
                    self._move(key.data, events)

    def close(self) -> None:
        """End it, and the far end too."""
        with self._lock:
            self._closed = True
            self._lock.notify_all()
            self._rouse()
        with suppress(QuarterdeckError):
            self._client.with_timeout(2).upload(f"{self._path}/end", [], "application/octet-stream")

    def _add(self, connected: socket.socket) -> None:
        connected.setblocking(False)
        self._last += 1
        self._open[self._last] = Stream(self._last), connected
        self._send(tunnel.frame(tunnel.OPEN, self._last))
        self._watch(self._last)

    def _take(self, frames: tunnel.Frames) -> bool:
        """Work through what has arrived; False once it is over."""
        with self._lock:
            arrived, self._arrived = self._arrived, []
            over = self._over
        for data in arrived:
            for kind, number, payload in frames.feed(data):
                if number not in self._open:
                    continue
                if kind in (tunnel.REFUSED, tunnel.RESET):
                    if kind == tunnel.REFUSED:
                        self._refused(payload.decode(errors="replace"))
                    self._drop(number)
                else:
                    self._open[number][0].take(kind, payload)
                    self._watch(number)
        if over is not None:
            raise over
        return not self._closed

    def _move(self, number: int, events: int) -> None:
        stream, connected = self._open[number]
        try:
            if events & selectors.EVENT_READ and stream.room:
                self._send(stream.read(connected.recv(stream.room)))
            if events & selectors.EVENT_WRITE and stream.pending:
                self._send(stream.written(connected.send(stream.pending[: tunnel.PIECE])))
        except BlockingIOError:
            pass
        except OSError:
            self._send(tunnel.frame(tunnel.RESET, number))
            self._drop(number)
            return
        self._watch(number)

    def _watch(self, number: int) -> None:
        """Wait for what the stream can do next."""
        stream, connected = self._open[number]
        if stream.closing and not stream.pending:
            with suppress(OSError):
                connected.shutdown(socket.SHUT_WR)
        if stream.over:
            self._drop(number)
            return
        wanted = selectors.EVENT_READ * bool(stream.room)
        wanted |= selectors.EVENT_WRITE * bool(stream.pending)
        known = connected in self._selector.get_map()
        if wanted and known:
            self._selector.modify(connected, wanted, number)
        elif wanted:
            self._selector.register(connected, wanted, number)
        elif known:
            self._selector.unregister(connected)

    def _drop(self, number: int) -> None:
        _, connected = self._open.pop(number)
        if connected in self._selector.get_map():
            self._selector.unregister(connected)
        connected.close()

    def _send(self, data: bytes) -> None:
        if data:
            with self._lock:
                self._out += data
                self._lock.notify_all()

    # -- the threads that talk to the API --

    @property
    def _stopped(self) -> bool:
        return self._closed or self._over is not None

    def _read(self) -> None:
        offset = 0
        try:
            while not self._stopped:
                data, headers = self._again(
                    partial(self._client.raw, self._path, offset=offset, wait=_WAIT)
                )
                offset = int(headers["X-Position"])
                while data:
                    end = _RECORD + int.from_bytes(data[1:_RECORD])
                    if data[0] == _STDOUT:
                        self._arrive(data[_RECORD:end])
                    data = data[end:]
                if "X-Exit" in headers:
                    raise NotFound("the tunnel's far end has ended")
        except QuarterdeckError as error:
            self._fail(error)

    def _write(self) -> None:
        number, waiting = 0, 0
        try:
            while True:
                with self._lock:
                    while not self._out and not self._stopped:
                        self._lock.wait()
                    if self._stopped:
                        return
                    content = bytes(self._out[:_BATCH])
                    del self._out[:_BATCH]
                number += 1
                waiting = self._post(tunnel.batch(number, content))
                while waiting > _MUCH:
                    time.sleep(0.02)
                    waiting = self._post(b"")
        except QuarterdeckError as error:
            self._fail(error)

    def _post(self, data: bytes) -> int:
        pieces = [data] if data else []
        path, kind = f"{self._path}/write", "application/octet-stream"
        return int(self._again(partial(self._client.upload, path, pieces, kind))["waiting"])

    def _again(self, call: Callable[[], T]) -> T:
        """Ask until there is an answer."""
        until = 0.0
        while True:
            try:
                return call()
            except Unreachable:
                until = until or time.monotonic() + _PATIENCE
                if time.monotonic() > until or self._stopped:
                    raise
                time.sleep(0.5)

    def _arrive(self, data: bytes) -> None:
        with self._lock:
            self._arrived.append(data)
            self._rouse()

    def _fail(self, error: QuarterdeckError) -> None:
        with self._lock:
            self._over = self._over or error
            self._lock.notify_all()
            self._rouse()

    def _rouse(self) -> None:
        with suppress(OSError):
            self._wake.send(b"!")
