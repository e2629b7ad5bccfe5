"""Who is calling: the kernel says (SO_PEERCRED), never the request."""

from __future__ import annotations

import asyncio
import functools
import pwd
import socket
import struct
import time
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from agents.controller.zerocopy import zero_copy
from jobs.registry import Caller

_UCRED = struct.Struct("3i")  # pid, uid, gid
_NAMED_FOR = 10.0
"""Seconds for which a user's name is remembered: looking it up reads a file, or asks a server."""


class PeerProtocol(H11Protocol):
    """uvicorn's HTTP protocol, with the peer's credentials as ASGI's `client`: ("uid:1000", pid).

    ASGI has no field for them; `client` is empty on a unix socket, and is what servers log. It can also
    send stretches of files (zerocopy.py).
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        peer = transport.get_extra_info("socket")
        packed = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        pid, uid, _ = _UCRED.unpack(packed)
        self.client = (f"uid:{uid}", pid)
        self.app = zero_copy(self.app, self)


def caller_of(scope: Any) -> Caller:
    """The caller of an ASGI request that came through `PeerProtocol`."""
    host, _ = scope["client"]
    uid = int(host.removeprefix("uid:"))
    return Caller(_name(uid, int(time.monotonic() // _NAMED_FOR)), uid)


@functools.lru_cache(maxsize=1024)
def _name(uid: int, _turn: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid{uid}"
