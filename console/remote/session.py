"""The way to one head: an SSH connection that is made when it is needed, and again when it was cut."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import asyncssh

from console.remote import far as far_program
from console.remote import hops, words
from console.remote.channels import Carried, Far
from console.remote.target import Target
from jobs.base.errors import QuarterdeckError, Unreachable

OPEN_TIMEOUT = 15.0
"""Seconds for a channel. Longer than a dead connection needs to be noticed, so that comes first."""

MEMORY = 1.0
"""Seconds for which a failure stands: a console asks with several connections at once, and a server
that counts failed logins should see one."""

_FOUND = "<quarterdeck:socket> "
_FIND = (
    'for s in "$QD_HOME/run/api.sock" "$XDG_RUNTIME_DIR/quarterdeck/api.sock"'
    ' "/run/user/$(id -u)/quarterdeck/api.sock"'
    ' "${XDG_STATE_HOME:-$HOME/.local/state}/quarterdeck/run/api.sock"'
    " /run/quarterdeck/api.sock;"
    f' do if [ -S "$s" ]; then echo "{_FOUND}$s"; fi; done; echo "{_FOUND}"'
)
"""Looks in the places of `jobs.base.places` on the head, with the environment that a login there has."""

_PROGRAM = Path(far_program.__file__).read_text()

_RUN = (
    'exec $(command -v python3 || command -v python) -c "import sys,base64;'
    't,*sys.argv[1:]=[base64.b64decode(a).decode()for a in sys.argv[1:]];exec(t)" '
)
"""Runs the text of a program with arguments, all in base64, which no shell changes."""


class Session:
    """Args:
    target: the head.
    clock: seconds, monotonic.
    """

    def __init__(self, target: Target, clock: Callable[[], float] = time.monotonic) -> None:
        self.target = target
        self._clock = clock
        self._lines: list[Line] = []  # one, unless the head's sshd has run out of sessions for it
        self._making: asyncio.Task[None] | None = None
        self._failure: tuple[float, QuarterdeckError] | None = None

    async def open(self) -> tuple[Far, dict[str, Any]]:
        """A channel to the API's socket, and what a client is told of it. Raises QuarterdeckError."""
        cut = False
        while True:
            for line in [held for held in self._lines if not held.lost]:
                try:
                    return await line.open()
                except Full:
                    continue
                except QuarterdeckError:
                    # Cut without our noticing, as while a laptop slept: that is worth one more try.
                    if cut or not line.lost:
                        raise
                    cut = True
            await self._connected()

    async def _connected(self) -> None:
        """Add a connection. Whoever needs one meanwhile waits for the same."""
        if self._making is None:
            if self._failure is not None and self._clock() - self._failure[0] < MEMORY:
                raise self._failure[1]
            self._making = asyncio.create_task(self._connect())
            self._making.add_done_callback(self._made)
        await asyncio.shield(self._making)

    async def _connect(self) -> None:
        line = Line(self.target)
        await line.connect()
        self._lines = [held for held in self._lines if not held.lost] + [line]

    def _made(self, task: asyncio.Task[None]) -> None:
        self._making = None
        error = None if task.cancelled() else task.exception()
        if isinstance(error, QuarterdeckError):
            self._failure = self._clock(), error

    def close(self) -> None:
        if self._making is not None:
            self._making.cancel()
        for line in self._lines:
            line.close()


class Full(Unreachable):
    """The connection has as many sessions as its server allows (`MaxSessions`)."""


class Line(asyncssh.SSHClient):
    """One connection, from its making to its end."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._path = target.socket
        self._finding: asyncio.Task[str] | None = None
        self._forwards = True  # until sshd has refused what a program of ours could do
        self._hops: list[hops.Connection] = []
        self.lost = False

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True

    async def connect(self) -> None:
        """Raises QuarterdeckError."""
        self._hops = await hops.connect(self._target, lambda: self)

    def close(self) -> None:
        self.lost = True
        hops.close(self._hops)

    async def open(self) -> tuple[Far, dict[str, Any]]:
        """See `Session.open`. When the connection turns out to be cut, `lost` is set. Raises Full."""
        try:
            async with asyncio.timeout(OPEN_TIMEOUT):
                path = await self._socket()
                channel = await self._channel(path)
        except (QuarterdeckError, asyncio.CancelledError):
            raise
        except TimeoutError as error:
            self.close()  # its keepalives should have told so; whoever comes next connects anew
            raise words.no_answer(self._target, OPEN_TIMEOUT) from error
        except Exception as error:
            raise words.of_error(self._target, error, OPEN_TIMEOUT) from error
        way = "socket forwarded" if self._forwards else "through a program there"
        return channel, {"ok": True, "socket": path, "account": self._account, "way": way}

    @property
    def _account(self) -> str:
        return str(self._hops[-1].get_extra_info("username") or "")

    # The socket.

    async def _socket(self) -> str:
        if self._path is not None:
            return self._path
        if self._finding is None:
            self._finding = asyncio.create_task(self._find())
        try:
            self._path = await asyncio.shield(self._finding)
        finally:
            if self._finding is not None and self._finding.done():
                self._finding = None  # what was not there may come
        return self._path

    async def _find(self) -> str:
        said = await self._said(f"sh -c '{_FIND}'")
        found = [line.removeprefix(_FOUND) for line in said.splitlines() if line.startswith(_FOUND)]
        if not found:
            raise words.no_shell(self._target)
        if not found[0]:
            raise words.nothing_there(self._target)
        return found[0]

    async def _said(self, command: str) -> str:
        """What a command on the head prints."""
        try:
            done = await self._hops[-1].run(
                command, encoding="utf-8", errors="replace", stdin=asyncssh.DEVNULL
            )
        except (asyncssh.ChannelOpenError, asyncssh.ProcessError):
            if self.lost:
                raise
            return ""
        return str(done.stdout or "")

    # The channel.

    async def _channel(self, path: str) -> Far:
        """Through sshd itself where it forwards sockets, which costs the head nothing. sshd does not say
        whether it may not or the socket is not there; a program of ours, where it can run, does."""
        if self._forwards:
            with suppress(asyncssh.ChannelOpenError):
                far = Far()
                await self._hops[-1].create_unix_connection(lambda: far, path)
                return far
            if self.lost:
                raise words.lost(self._target)
        far = await self._carried(path)
        self._forwards = False
        return far

    async def _carried(self, path: str) -> Carried:
        far = Carried()
        given = " ".join(base64.b64encode(x.encode()).decode() for x in (_PROGRAM, path))
        try:
            await self._hops[-1].create_session(
                lambda: far, f"sh -c '{_RUN}{given}'", encoding=None
            )
        except asyncssh.ChannelOpenError as error:
            if self.lost:
                raise words.lost(self._target) from error
            if not self._forwards:
                raise Full("no more sessions") from error
            raise words.socket_error(self._target, path, "") from error
        outcome = await far.outcome
        if outcome is None:
            return far
        far.close()
        if self.lost:
            raise words.lost(self._target)
        if outcome in ("ENOENT", "ECONNREFUSED"):
            self._path = self._target.socket  # it may come back elsewhere
        raise words.socket_error(self._target, path, outcome)
