"""One session: a program for one SSH channel, on a terminal or on pipes, until one of them ends.

The program ends when its channel is closed, which is also how a dropped connection shows. End of input is
not that: `ssh -tt host jobs </dev/null` has none from the start.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import pty
import shlex
import shutil
import signal
import struct
import termios
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import asyncssh

from console import guest
from console.gateway.forks import Forks
from console.gateway.passage import Passage
from console.gateway.ports import Connection
from jobs.base.places import Places
from jobs.wire.introductions import Introduction

GRACE = 2.0
"""Seconds between SIGHUP and SIGKILL for a program whose person has gone."""
_PIECE = 1 << 16
_TAKEN = ("COLORTERM", "NO_COLOR", "LANG", "LC_ALL", "LC_CTYPE", "TZ")
"""Variables that a client may send (`SendEnv`): how text looks, and nothing that runs anything."""
_SIGNALS = {"INT": signal.SIGINT, "TERM": signal.SIGTERM, "HUP": signal.SIGHUP}

Process = asyncssh.SSHServerProcess[bytes] | Connection


class Sink(Protocol):
    """What takes a program's output."""

    def write(self, data: bytes, /) -> None: ...

    async def drain(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Rooms:
    """Where a session's files are. All of it is the gateway's user's alone.

    Attributes:
        home: what is kept for a person: theme, keys, where their console was.
        run: holds the session's socket.
        work: an empty folder, in which the program runs.
    """

    home: Path
    run: Path
    work: Path

    @classmethod
    def of(cls, where: Places, who: Introduction, number: int) -> Rooms:
        return cls(
            where.state / "gateway" / "people" / who.user,
            where.runtime / "gateway" / f"s{number}",
            where.state / "gateway" / "work" / f"s{number}",
        )

    def make(self) -> None:
        for path in (self.home, self.run / "quarterdeck", self.work):
            path.mkdir(parents=True, exist_ok=True, mode=0o700)

    def remove(self) -> None:
        shutil.rmtree(self.run, ignore_errors=True)
        shutil.rmtree(self.work, ignore_errors=True)

    @property
    def socket(self) -> Path:
        return self.run / "quarterdeck" / "api.sock"

    def environ(self, asked: Mapping[str, str], terminal: str | None) -> dict[str, str]:
        """The program's whole environment."""
        return {
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "HOME": str(self.home),
            "LANG": "C.UTF-8",
            "XDG_CONFIG_HOME": str(self.home / "config"),
            "XDG_STATE_HOME": str(self.home / "state"),
            "XDG_CACHE_HOME": str(self.home / "cache"),
            "XDG_RUNTIME_DIR": str(self.run),
            guest.FOLDER: str(self.work),
            "GIT_CEILING_DIRECTORIES": str(self.work.parent),
            **{name: asked[name] for name in _TAKEN if name in asked and len(asked[name]) < 256},
            **({} if terminal is None else {"TERM": terminal}),
        }


def words_of(command: str | None) -> list[str]:
    """The words after `qd`. Raises ValueError for quotes that do not close."""
    words = shlex.split(command or "")
    return words[1:] if words[:1] == ["qd"] else words


async def run(
    process: Process, words: list[str], rooms: Rooms, passage: Passage, forks: Forks
) -> int:
    """Be the program for a channel; gives its exit code. Raises OSError when it cannot be started."""
    rooms.make()
    try:
        await passage.open()
        terminal = process.term_type
        asked = {str(name): str(value) for name, value in process.env.items()}
        environ = rooms.environ(asked, terminal)
        if terminal is not None:
            return await _on_terminal(process, words, environ, rooms.work, forks)
        return await _on_pipes(process, words, environ, rooms.work, forks)
    finally:
        await passage.close()
        await asyncio.to_thread(rooms.remove)


async def _on_terminal(
    process: Process, words: list[str], environ: Mapping[str, str], folder: Path, forks: Forks
) -> int:
    master, slave = pty.openpty()
    try:
        os.set_blocking(master, False)
        _resize(master, *process.term_size)
        try:
            pid, ended = await forks.spawn(
                words, environ, folder, (slave, slave, slave), terminal=True
            )
        finally:
            os.close(slave)
        inputs = asyncio.create_task(_typed(process, master, pid))
        outputs = asyncio.create_task(_shown(process, master))
        return await _until_ended(process, pid, ended, inputs, outputs)
    finally:
        os.close(master)


async def _on_pipes(
    process: Process, words: list[str], environ: Mapping[str, str], folder: Path, forks: Forks
) -> int:
    (in_r, in_w), (out_r, out_w), (err_r, err_w) = os.pipe(), os.pipe(), os.pipe()
    for descriptor in (in_w, out_r, err_r):
        os.set_blocking(descriptor, False)
    try:
        try:
            pid, ended = await forks.spawn(
                words, environ, folder, (in_r, out_w, err_w), terminal=False
            )
        finally:
            for descriptor in (in_r, out_w, err_w):
                os.close(descriptor)
        inputs = asyncio.create_task(_sent(process, in_w, pid))
        outputs = asyncio.gather(_copied(out_r, process.stdout), _copied(err_r, process.stderr))
        return await _until_ended(process, pid, ended, inputs, outputs)
    finally:
        for descriptor in (out_r, err_r):
            os.close(descriptor)


async def _until_ended(
    process: Process,
    pid: int,
    ended: asyncio.Future[int],
    inputs: asyncio.Task[None],
    outputs: asyncio.Future[Any],
) -> int:
    """Wait for the program, or for its person to go; all output is sent before this returns."""
    gone: asyncio.Future[Any] = asyncio.ensure_future(process.channel.wait_closed())
    try:
        await asyncio.wait({gone, ended}, return_when=asyncio.FIRST_COMPLETED)
        if not ended.done():
            _signal(pid, signal.SIGHUP)
            done, _ = await asyncio.wait({ended}, timeout=GRACE)
            if not done:
                _signal(pid, signal.SIGKILL)
            return await ended
        # What it has started may still hold the streams; what itself wrote is in them already.
        await asyncio.wait({gone, outputs}, timeout=GRACE, return_when=asyncio.FIRST_COMPLETED)
        return ended.result()
    finally:
        for task in (gone, inputs, outputs):
            task.cancel()
        await asyncio.gather(gone, inputs, outputs, return_exceptions=True)
        _signal(pid, signal.SIGKILL)  # what is left of its process group


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


async def _typed(process: Process, master: int, pid: int) -> None:
    """What is typed goes to the terminal, and its size with it."""
    while True:
        try:
            data = await process.stdin.read(_PIECE)
        except asyncssh.TerminalSizeChanged as changed:
            _resize(master, *changed.term_size)
            continue
        except asyncssh.SignalReceived as received:
            _forward(pid, received)
            continue
        except asyncssh.BreakReceived:
            continue
        if not data:
            return
        await _write(master, data)


async def _sent(process: Process, sink: int, pid: int) -> None:
    """Standard input; its end closes the pipe."""
    try:
        while True:
            try:
                data = await process.stdin.read(_PIECE)
            except asyncssh.SignalReceived as received:
                _forward(pid, received)
                continue
            except (asyncssh.BreakReceived, asyncssh.TerminalSizeChanged):
                continue
            if not data:
                return
            await _write(sink, data)
    except BrokenPipeError:
        return  # it reads no more; what else comes is nobody's
    finally:
        os.close(sink)


def _forward(pid: int, received: asyncssh.SignalReceived) -> None:
    if (number := _SIGNALS.get(received.signal)) is not None:
        _signal(pid, number)


async def _shown(process: Process, master: int) -> None:
    with contextlib.suppress(BrokenPipeError, ConnectionError):
        await _copied(master, process.stdout)


async def _copied(source: int, sink: Sink) -> None:
    """Copy until the end, no faster than the client takes it."""
    while True:
        try:
            data = os.read(source, _PIECE)
        except BlockingIOError:
            await _ready(source, write=False)
            continue
        except OSError:  # EIO: nobody has the terminal open any more
            return
        if not data:
            return
        try:
            sink.write(data)
            await sink.drain()
        except (BrokenPipeError, ConnectionError):
            return


async def _write(sink: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(sink, view) :]
        except BlockingIOError:
            await _ready(sink, write=True)


def _ready(descriptor: int, *, write: bool) -> Awaitable[None]:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    add, remove = (
        (loop.add_writer, loop.remove_writer) if write else (loop.add_reader, loop.remove_reader)
    )

    def now() -> None:
        if not ready.done():
            ready.set_result(None)

    async def wait() -> None:
        add(descriptor, now)
        try:
            await ready
        finally:
            remove(descriptor)

    return wait()


def _resize(master: int, columns: int, rows: int, *_pixels: int) -> None:
    size = struct.pack("HHHH", min(rows, 1000) or 24, min(columns, 1000) or 80, 0, 0)
    fcntl.ioctl(master, termios.TIOCSWINSZ, size)
