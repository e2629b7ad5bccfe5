"""Holding requests for a version that has no replica yet: they wait here, and are then passed on.

    {"name": "d3r1", "hold": {"seconds": 60, "requests": 100}, ...}

A held backend has one more server, used when no replica is up: a unix socket of ours. We accept what HAProxy
sends there, read nothing of it, and connect it to the first replica that answers; from then on bytes go
through in both directions. So a request may be as large as it likes, and a new HAProxy loses none.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import select
import socket
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SERVER = "hold"
"""The name of the server; replicas are called e7."""
_LOOK_AGAIN = 0.03
"""Seconds between two looks whether there is a replica."""
_CHUNK = 1 << 16
_CONNECT = 2.0
_LINGER = 1.0
"""Seconds for which what is refused may still be sending: cut off, it would not read the answer."""


def path_of(backend: str) -> str:
    """Of the socket, below the front's folder."""
    return f"hold-{backend}.sock"


def refusal(seconds: float) -> bytes:
    """The answer to who has waited long enough, or cannot wait."""
    words = "no replica was ready in time; it is being started"
    body = json.dumps({"error": words}).encode()
    head = (
        "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nRetry-After: {max(1, round(seconds))}\r\n"
        "Connection: close\r\n\r\n"
    )
    return head.encode() + body


RETRY = 5.0
"""Seconds after which who was refused is asked to come again."""


@dataclass
class _Held:
    """A backend whose requests are held. `waiting` of them have no replica yet."""

    seconds: float
    requests: int
    listener: socket.socket
    addresses: list[str] = field(default_factory=list)
    waiting: int = 0
    turn: int = 0
    task: asyncio.Task[None] | None = None


class Holder:
    """Holds requests of all backends that want it, in a thread of its own.

    Args:
        folder: where its sockets are; the current one.
        is_ready: whether a replica, by its address, has answered.
    """

    def __init__(self, folder: Path, is_ready: Callable[[str], bool]) -> None:
        self._folder, self._is_ready = folder, is_ready
        self._held: dict[str, _Held] = {}
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()

    def want(self, backends: Iterable[Mapping[str, Any]]) -> None:
        """Hold for these, and for no others. Returns once their sockets listen."""
        wanted = [backend for backend in backends if backend.get("hold")]
        asyncio.run_coroutine_threadsafe(self._want(wanted), self._loop).result(5)

    def waiting(self) -> dict[str, int]:
        """Backend -> requests that wait for a replica."""
        return {name: held.waiting for name, held in list(self._held.items())}

    async def _want(self, backends: list[Mapping[str, Any]]) -> None:
        names = {backend["name"] for backend in backends}
        for name in [name for name in self._held if name not in names]:
            held = self._held.pop(name)
            if held.task is not None:
                held.task.cancel()
            held.listener.close()
            (self._folder / path_of(name)).unlink(missing_ok=True)
        for backend in backends:
            name, hold = backend["name"], backend["hold"]
            if name not in self._held:
                self._held[name] = held = _Held(0, 0, self._listen(name))
                held.task = self._loop.create_task(self._accept(held))
            held = self._held[name]
            held.seconds, held.requests = float(hold["seconds"]), int(hold["requests"])
            held.addresses = [server["address"] for server in backend["servers"]]

    def _listen(self, name: str) -> socket.socket:
        path = self._folder / path_of(name)
        path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.setblocking(False)
        listener.bind(path_of(name) if self._folder == Path.cwd() else str(path))
        path.chmod(0o600)
        listener.listen(1024)
        return listener

    async def _accept(self, held: _Held) -> None:
        tasks: set[asyncio.Task[None]] = set()
        while True:
            try:
                client, _ = await self._loop.sock_accept(held.listener)
            except OSError:  # no descriptor is free at the moment: it waits in the backlog
                await asyncio.sleep(_LOOK_AGAIN)
                continue
            task = self._loop.create_task(self._serve(held, client))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    async def _serve(self, held: _Held, client: socket.socket) -> None:
        client.setblocking(False)
        with client, contextlib.suppress(OSError):
            replica = await self._replica(held, client)
            if replica is None:
                await self._refuse(client)
                return
            with replica:
                try:
                    async with asyncio.TaskGroup() as both:
                        both.create_task(self._pump(client, replica))
                        both.create_task(self._pump(replica, client))
                except* OSError:
                    pass  # one of them has gone: HAProxy says what that means

    async def _replica(self, held: _Held, client: socket.socket) -> socket.socket | None:
        """A connection to one, once there is one; None when the time is over, or too many wait."""
        until = self._loop.time() + held.seconds
        if held.waiting >= held.requests:
            return None
        held.waiting += 1
        try:
            while self._loop.time() < until:
                ready = [one for one in held.addresses if self._is_ready(one)]
                if ready:
                    held.turn += 1
                    with contextlib.suppress(OSError, TimeoutError):
                        return await self._connected(ready[held.turn % len(ready)])
                if _hung_up(client):
                    return None
                await asyncio.sleep(_LOOK_AGAIN)
            return None
        finally:
            held.waiting -= 1

    async def _connected(self, address: str) -> socket.socket:
        host, _, port = address.rpartition(":")
        host = host.strip("[]")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        made = socket.socket(family, socket.SOCK_STREAM)
        made.setblocking(False)
        try:
            async with asyncio.timeout(_CONNECT):
                await self._loop.sock_connect(made, (host, int(port)))
        except BaseException:
            made.close()
            raise
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return made

    async def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := await self._loop.sock_recv(source, _CHUNK):
                await self._loop.sock_sendall(sink, data)
        finally:
            with contextlib.suppress(OSError):
                sink.shutdown(socket.SHUT_WR)

    async def _refuse(self, client: socket.socket) -> None:
        await self._loop.sock_sendall(client, refusal(RETRY))
        client.shutdown(socket.SHUT_WR)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LINGER):
                while await self._loop.sock_recv(client, _CHUNK):
                    pass


def _hung_up(client: socket.socket) -> bool:
    """Whether the other side has closed, whatever of its bytes is unread."""
    poll = select.poll()
    poll.register(client, 0)  # that it hung up is always told
    return bool(poll.poll(0))
