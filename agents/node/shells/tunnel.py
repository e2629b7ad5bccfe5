"""The far end of a tunnel (`jobs/wire/tunnel.py`): connects to a port that the attempt listens on.

    python -I -S tunnel.py PORT     (beside a rank, in its environment; batches on stdin, frames on stdout)

It connects only where a process of the attempt listens, on whichever address of this host that is: on a host
that several jobs share, a port may be another's. Ends with its standard input.
"""

# ruff: noqa: PTH115, PTH123, PTH208

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import struct
import sys

if __name__ == "__main__":  # isolated mode knows no folder but the standard library's
    sys.path.append(os.path.abspath(__file__ + "/../../../.."))  # noqa: PTH100

from agents.node.guard import records
from jobs.wire import tunnel
from jobs.wire.tunnel import Stream

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

MOST = 512
"""Connections at one time: one more is refused."""
_LISTENS = "0A"  # TCP_LISTEN in /proc/net/tcp
_ALL = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104
_PIECE = 1 << 16


class Refusal(Exception):
    """Why there is no connection, in words."""


class Tunnel:
    def __init__(self, port: int, tag: str) -> None:
        self._port, self._tag = port, tag
        self._selector = selectors.DefaultSelector()
        self._open: dict[int, tuple[Stream, socket.socket]] = {}
        self._batches, self._frames = tunnel.Batches(), tunnel.Frames()
        self._connecting: set[int] = set()
        self._known: set[str] = set()  # sockets that the attempt listens on

    def run(self) -> None:
        os.set_blocking(0, False)
        self._selector.register(0, selectors.EVENT_READ)
        while True:
            for key, events in self._selector.select():
                if key.fd == 0:
                    data = os.read(0, _PIECE)
                    if not data:
                        return
                    for content in self._batches.feed(data):
                        for kind, number, payload in self._frames.feed(content):
                            self._take(kind, number, payload)
                elif key.data in self._open:
                    self._move(key.data, events)

    def _take(self, kind: bytes, number: int, payload: bytes) -> None:
        if kind == tunnel.OPEN:
            try:
                self._open[number] = Stream(number), self._connect(number)
            except Refusal as refusal:
                _send(tunnel.frame(tunnel.REFUSED, number, str(refusal).encode()))
                return
        elif number not in self._open:
            return  # it was reset while this was on its way
        elif kind == tunnel.RESET:
            self._drop(number)
            return
        else:
            self._open[number][0].take(kind, payload)
        self._watch(number)

    def _connect(self, number: int) -> socket.socket:
        if len(self._open) >= MOST:
            raise Refusal(f"there are {MOST} connections already")
        address = self._listener()
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        connecting = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        connecting.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(BlockingIOError):  # a server that is busy takes its time
            connecting.connect_ex((address, self._port))
        self._connecting.add(number)
        return connecting

    def _listener(self) -> str:
        """Where to connect to. Raises Refusal."""
        found = dict(listeners(self._port))
        if not found:
            raise Refusal(f"nothing listens on port {self._port} of {socket.gethostname()}")
        if not self._known & found.keys():
            self._known = found.keys() & sockets_of(self._tag)
        for inode, address in found.items():
            if inode in self._known:
                return address
        raise Refusal(f"port {self._port} of {socket.gethostname()} is not this job's")

    def _move(self, number: int, events: int) -> None:
        """Bytes between a socket and its stream, as both allow."""
        stream, connected = self._open[number]
        if number in self._connecting:
            self._connecting.discard(number)
            if code := connected.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                words = f"port {self._port} cannot be connected: {os.strerror(code)}"
                _send(tunnel.frame(tunnel.REFUSED, number, words.encode()))
                self._drop(number)
                return
        try:
            if events & selectors.EVENT_READ and stream.room:
                _send(stream.read(connected.recv(stream.room)))
            if events & selectors.EVENT_WRITE and stream.pending:
                _send(stream.written(connected.send(stream.pending[: tunnel.PIECE])))
        except BlockingIOError:
            pass
        except OSError:
            _send(tunnel.frame(tunnel.RESET, number))
            self._drop(number)
            return
        self._watch(number)

    def _watch(self, number: int) -> None:
        """Wait for what the stream can do next."""
        stream, connected = self._open[number]
        connecting = number in self._connecting
        if stream.closing and not stream.pending and not connecting:
            with contextlib.suppress(OSError):
                connected.shutdown(socket.SHUT_WR)
        if stream.over:
            self._drop(number)
            return
        wanted = selectors.EVENT_READ * bool(stream.room)
        wanted |= selectors.EVENT_WRITE * bool(stream.pending)
        if connecting:
            wanted = selectors.EVENT_WRITE
        known = connected in self._selector.get_map()
        if not wanted:
            if known:
                self._selector.unregister(connected)
        elif known:
            self._selector.modify(connected, wanted, number)
        else:
            self._selector.register(connected, wanted, number)

    def _drop(self, number: int) -> None:
        _, connected = self._open.pop(number)
        self._connecting.discard(number)
        if connected in self._selector.get_map():
            self._selector.unregister(connected)
        connected.close()


def listeners(port: int) -> Iterator[tuple[str, str]]:
    """Inode and address of each socket of this host that listens on a port; of any address, where it
    listens on all."""
    for family, path in ((socket.AF_INET, "/proc/net/tcp"), (socket.AF_INET6, "/proc/net/tcp6")):
        with contextlib.suppress(OSError), open(path) as file:
            for line in list(file)[1:]:
                fields = line.split()
                host, _, number = fields[1].partition(":")
                if fields[3] == _LISTENS and int(number, 16) == port:
                    # Words of 32 bits, each written as a number of this machine's.
                    words = [int(host[at : at + 8], 16) for at in range(0, len(host), 8)]
                    address = socket.inet_ntop(family, struct.pack(f"={len(words)}I", *words))
                    yield fields[9], _ALL.get(address, address)


def sockets_of(tag: str) -> set[str]:
    """Inodes of the sockets that processes of a guard have open."""
    found = set()
    for pid in records.tagged(tag):
        with contextlib.suppress(OSError):
            for name in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError):
                    target = os.readlink(f"/proc/{pid}/fd/{name}")
                    if target.startswith("socket:["):
                        found.add(target[8:-1])
    return found


def _send(data: bytes) -> None:
    """All of it. Credit bounds what waits here while nobody reads."""
    while data:
        data = data[os.write(1, data) :]


if __name__ == "__main__":
    try:
        Tunnel(int(sys.argv[1]), os.environ.get("QD_GUARD", "")).run()
    except (ValueError, BrokenPipeError) as error:
        os.write(2, f"quarterdeck: {error}\n".encode())
        sys.exit(1)
