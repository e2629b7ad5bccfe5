"""Who is calling: the kernel says (SO_PEERCRED), never the request.

On the gateway's socket the gateway says it, in a line before the first request (`jobs.wire.introductions`).
It is believed because the kernel says that it runs as the controller's own user, who may do everything
in any case; everybody else is refused there.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import grp
import hashlib
import os
import pwd
import socket
import struct
import time
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from agents.controller.api.presence import attended
from agents.controller.api.zerocopy import zero_copy
from jobs.access.roles import Role
from jobs.store.writing import Caller
from jobs.wire.introductions import LONGEST, Introduction

GROUP = "QD_API_GROUP"
"""The Unix group whose members may open the API's socket too."""
_UCRED = struct.Struct("3i")  # pid, uid, gid
_NAMED_FOR = 10.0
"""Seconds for which a user's name is remembered: looking it up reads a file, or asks a server."""
_NO_ACCOUNT = 1 << 30
"""First of the numbers for people who have keys and no account; Linux's own numbers end far below."""

_BY_KERNEL, _BY_GATEWAY = "uid", "key"


class PeerProtocol(H11Protocol):
    """uvicorn's HTTP protocol, with who calls as ASGI's `client`: ("uid:1000", pid), or
    ("key:viewer:mira", pid) where the gateway speaks for somebody.

    ASGI has no field for them; `client` is empty on a unix socket, and is what servers log. It can also
    send stretches of files (zerocopy.py).
    """

    _heard: bytearray | None = None  # of the introduction that has to come first

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        peer = transport.get_extra_info("socket")
        packed = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        pid, uid, _ = _UCRED.unpack(packed)
        self.client = (f"{_BY_KERNEL}:{uid}", pid)
        self.app = attended(zero_copy(self.app, self), self)
        if is_gateway(transport.get_extra_info("sockname")):
            self._heard = bytearray()
            if uid != os.geteuid():
                transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._heard is None:
            super().data_received(data)
            return
        self._heard += data
        line, end, rest = bytes(self._heard).partition(b"\n")
        if not end and len(line) < LONGEST:
            return
        try:
            who = Introduction.read(line[:LONGEST])
        except ValueError:
            self.transport.abort()
            return
        assert self.client is not None
        self.client = (f"{_BY_GATEWAY}:{who.role}:{who.user}", self.client[1])
        self._heard = None
        if rest:
            super().data_received(rest)


def is_gateway(sockname: object) -> bool:
    """Whether a listening socket of that path is the gateway's."""
    return os.path.basename(os.fsdecode(str(sockname or ""))) == "gateway.sock"  # noqa: PTH119


def caller_of(scope: Any) -> Caller:
    """The caller of an ASGI request that came through `PeerProtocol`."""
    how, _, said = scope["client"][0].partition(":")
    turn = int(time.monotonic() // _NAMED_FOR)
    if how == _BY_GATEWAY:
        role, _, user = said.partition(":")
        return Caller(user, _number(user, turn), Role.parse(role))
    uid = int(said)
    role = Role.ADMIN if uid in (0, os.geteuid()) else _role(uid, turn)
    return Caller(_name(uid, turn), uid, role)


@functools.lru_cache(maxsize=1024)
def _name(uid: int, _turn: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid{uid}"


@functools.lru_cache(maxsize=1024)
def _role(uid: int, _turn: int) -> Role:
    """The role of a member of the group to which the socket is open: by the Unix groups `GROUP-viewer`,
    `GROUP-operator`, ... Where no such group exists, whoever may open the socket may do everything."""
    group = os.environ.get(GROUP)
    roles = {}
    for role in Role:
        with contextlib.suppress(KeyError):
            roles[grp.getgrnam(f"{group}-{role}").gr_gid] = role
    if group and not roles:
        return Role.ADMIN
    with contextlib.suppress(KeyError):
        account = pwd.getpwuid(uid)
        member = os.getgrouplist(account.pw_name, account.pw_gid)
        return max((role for gid, role in roles.items() if gid in member), default=Role.VIEWER)
    return Role.VIEWER


@functools.lru_cache(maxsize=1024)
def _number(user: str, _turn: int) -> int:
    """The uid of the account of that name, or a number of this person's own: two people never share one,
    because what a client calls its submission (`--key`) is theirs by it."""
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError:
        digest = hashlib.sha256(user.encode()).digest()
        return _NO_ACCOUNT + int.from_bytes(digest[:4]) % _NO_ACCOUNT
