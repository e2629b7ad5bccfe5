"""Programs for sessions, forked from a process that has loaded what they need.

An interpreter of its own would cost each session a quarter of a second and 27 MB; a fork costs some
milliseconds, and shares the memory of what is loaded. `python -m console.gateway.forks` is that process:
it is started by the gateway, has one thread and no event loop, and ends with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import json
import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from jobs.base import python

_LONGEST = 1 << 18
"""Bytes of one order: a command line and an environment."""
_REPLY = struct.Struct("qq")  # number of the order, and its pid or, below zero, its wait status

_LOADED = (
    "console.cli.program",
    "console.cli.where",
    "console.cli.jobs",
    "console.cli.logs",
    "console.cli.status",
    "console.cli.submit",
    "console.cli.follow",
    "console.cli.upload",
    "console.client",
    "console.workdir.scan",
    "jobs.spec.job",
    "console.tui.app",
    "console.tui.palette",
    "console.tui.screens.modals",
    "console.tui.screens.job",
    "console.tui.screens.jobs",
    "console.tui.screens.sweep",
    "console.tui.screens.sweeps",
    "console.tui.screens.events",
    "textual.drivers.linux_driver",
)
"""What is loaded, in this order; a module that a session needs besides costs that one only."""


class Forks:
    """The gateway's side: starts programs, and hears of their ends. Used from one event loop."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._orders: socket.socket | None = None
        self._number = 0
        self._started: dict[int, asyncio.Future[int]] = {}
        self._ended: dict[int, asyncio.Future[int]] = {}
        self._loaded: asyncio.Future[None] | None = None

    async def ready(self) -> None:
        """Start it, and wait until it answers; it loads what is left while nobody asks. Raises OSError."""
        self._loaded = asyncio.get_running_loop().create_future()
        self.start()
        await self._loaded

    def start(self) -> None:
        """Have one. Raises OSError."""
        if self._process is not None and self._process.poll() is None:
            return
        self.close()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                python.module(__name__, str(theirs.fileno()), options=("-X", "utf8")),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        ours.setblocking(False)
        self._orders = ours
        asyncio.get_running_loop().add_reader(ours, self._hear)

    async def spawn(
        self,
        words: Sequence[str],
        environ: Mapping[str, str],
        folder: Path,
        streams: tuple[int, int, int],
        *,
        terminal: bool,
    ) -> tuple[int, asyncio.Future[int]]:
        """Start `qd WORDS`; gives its pid, and what will be its exit code (128 + n for a signal).

        Args:
            folder: its working directory.
            streams: descriptors that become its 0, 1 and 2; the caller closes its own.
            terminal: the first is a terminal, which becomes its controlling one.
        """
        self.start()
        assert self._orders is not None
        self._number += 1
        number, loop = self._number, asyncio.get_running_loop()
        started, ended = loop.create_future(), loop.create_future()
        self._started[number], self._ended[number] = started, ended
        order = json.dumps([number, list(words), dict(environ), str(folder), terminal]).encode()
        if len(order) > _LONGEST:
            raise OSError("the command line is too long")
        while True:
            try:
                socket.send_fds(self._orders, [order], streams)
                break
            except BlockingIOError:
                await asyncio.sleep(0.01)
        return await started, ended

    def _hear(self) -> None:
        assert self._orders is not None
        try:
            data = self._orders.recv(_REPLY.size)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if len(data) != _REPLY.size:
            self._lost()
            return
        number, value = _REPLY.unpack(data)
        if number == 0:
            if self._loaded is not None and not self._loaded.done():
                self._loaded.set_result(None)
        elif number > 0:
            if (waiting := self._started.pop(number, None)) and not waiting.done():
                waiting.set_result(value)
        elif (over := self._ended.pop(-number, None)) and not over.done():
            over.set_result(os.waitstatus_to_exitcode(value))

    def _lost(self) -> None:
        """It was killed. What it had started lives on until its session hangs up."""
        self.close()
        error = OSError("the process that starts programs has died")
        everybody: list[asyncio.Future[Any]] = [] if self._loaded is None else [self._loaded]
        for waiting in [*everybody, *self._started.values(), *self._ended.values()]:
            if not waiting.done():
                waiting.set_exception(error)
                waiting.exception()  # seen: whoever waits gets it, and nobody may be waiting
        self._started.clear()
        self._ended.clear()

    def close(self) -> None:
        """End it. What it has started gets SIGHUP from its terminal, or is ended by its session."""
        if self._orders is not None:
            asyncio.get_running_loop().remove_reader(self._orders)
            self._orders.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._orders = self._process = None


def main() -> int:
    """Load, then fork a program for each order until the gateway has gone."""
    orders = socket.socket(fileno=int(sys.argv[1]))
    orders.set_inheritable(False)
    gc.disable()
    importlib.import_module(_LOADED[0])
    missing = list(_LOADED[1:])
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    heard, bell = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(bell, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    numbers: dict[int, int] = {}
    import select

    orders.send(_REPLY.pack(0, 0))

    poll = select.poll()
    poll.register(orders, select.POLLIN)
    poll.register(heard, select.POLLIN)
    while True:
        ready = poll.poll(0 if missing else None)
        if not ready:  # nobody waits: load on
            importlib.import_module(missing.pop(0))
            if not missing:
                gc.collect()
                gc.freeze()  # the collector would write to pages that are shared
        for descriptor, _ in ready:
            if descriptor == heard:
                with contextlib.suppress(BlockingIOError):
                    os.read(heard, 4096)
                _reap(orders, numbers)
                continue
            data, streams, _, _ = socket.recv_fds(orders, _LONGEST, 3)
            if not data:
                return 0
            number, *order = json.loads(data)
            pid = os.fork()
            if pid == 0:
                _become(streams, *order)
            for stream in streams:
                os.close(stream)
            numbers[pid] = number
            orders.send(_REPLY.pack(number, pid))


def _reap(orders: socket.socket, numbers: dict[int, int]) -> None:
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            orders.send(_REPLY.pack(-numbers.pop(pid), status))


def _become(
    streams: list[int], words: list[str], environ: dict[str, str], folder: str, terminal: bool
) -> NoReturn:
    """In the child: be `qd WORDS`, and end."""
    code = 1
    try:
        import fcntl
        import termios

        os.setsid()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if terminal:
            fcntl.ioctl(streams[0], termios.TIOCSCTTY, 0)
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
        os.closerange(3, 256)
        os.chdir(folder)
        os.umask(0o077)
        os.environ.clear()
        os.environ.update(environ)
        _renew_streams()
        gc.enable()
        code = _run(words)
        sys.stdout.flush()
    except BaseException as error:  # whatever it is, no line of the parent's may run in here
        with contextlib.suppress(BaseException):
            os.write(2, f"qd: {type(error).__name__}: {error}\n".encode())
    finally:
        os._exit(code)


def _run(words: list[str]) -> int:
    from console.cli.main import main as qd

    try:
        return qd(words)
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else 1


def _renew_streams() -> None:
    """Python looked at descriptors 0, 1 and 2 when it started; they are others now."""

    def opened(descriptor: int, mode: str, **options: Any) -> Any:
        return open(descriptor, mode, encoding="utf-8", closefd=False, **options)

    tty = os.isatty(1)
    sys.stdin = sys.__stdin__ = opened(0, "r")  # type: ignore[misc]
    sys.stdout = sys.__stdout__ = opened(1, "w", buffering=1 if tty else -1)  # type: ignore[misc]
    sys.stderr = sys.__stderr__ = opened(2, "w", buffering=1)  # type: ignore[misc]


if __name__ == "__main__":
    sys.exit(main())
