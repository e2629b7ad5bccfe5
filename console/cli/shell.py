"""`qd exec` and `qd attach`: a program beside a rank, in its environment and work folder."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Annotated, Any, cast

import typer

from console.cli.options import JobId
from console.cli.output import narrate
from console.client import Client, segment
from jobs.base.errors import InvalidInput, NotFound, Unreachable
from jobs.wire.views import ShellView

_WAIT = 5.0
_PIECE = 1 << 15
_MUCH = 1 << 18
"""Bytes of input that the program has not taken, above which no more is sent."""
_DETACH = b"\x1d"  # ctrl-]
_PATIENCE = 120.0
"""Seconds for which a control plane that is away is waited for; the program runs on meanwhile."""
_HEAD = 5

Rank = Annotated[int, typer.Option("--rank", min=0, metavar="N", help="Next to which rank.")]


def exec_(
    ctx: typer.Context,
    job: JobId,
    rank: Rank = 0,
    terminal: Annotated[bool, typer.Option("--tty", "-t", help="Allocate a terminal.")] = False,
) -> None:
    """Run a command next to a rank, in its environment.

    \b
      qd exec j3 -- nvidia-smi
      qd exec j3 --rank 1 -t -- python

    It has the rank's variables, work folder and cgroup, and ends with the rank. It reads
    standard input, and its exit code is returned.
    """
    command: list[str] = ctx.meta.get("command", [])
    if not command:
        raise InvalidInput("no command was given", f"`qd exec {job} -- nvidia-smi`.")
    if terminal and not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise InvalidInput("-t needs a terminal on this side too", "Leave it out.")
    raise typer.Exit(_Shell(job, rank, command, terminal=terminal, attach=False).run())


def attach(job: JobId, rank: Rank = 0) -> None:
    """Open a shell next to a rank; ctrl-] leaves it running.

    It has the rank's variables, work folder and cgroup, and ends with the rank. Attach again
    to continue where you left it, even after a lost connection.
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise InvalidInput(
            "a shell needs a terminal", f"For a single command: `qd exec {job} -- ls`."
        )
    command = ["/bin/sh", "-c", "command -v bash >/dev/null && exec bash -i; exec sh -i"]
    shell = _Shell(job, rank, command, terminal=True, attach=True)
    raise typer.Exit(shell.run())


class _Shell:
    def __init__(
        self, job: str, rank: int, argv: list[str], *, terminal: bool, attach: bool
    ) -> None:
        self._client = Client.from_environment().with_timeout(_WAIT + 25)
        self._terminal, self._attach = terminal, attach
        size = shutil.get_terminal_size()
        body = {
            "rank": rank,
            "argv": argv,
            "env": {"TERM": os.environ.get("TERM", "dumb")} if terminal else {},
            "terminal": terminal,
            "rows": size.lines or 24,
            "columns": size.columns or 80,
            "attach": attach,
        }
        view = cast("ShellView", self._client.post(f"/v1/jobs/{segment(job)}/shells", body))
        self._path = f"/v1/jobs/{segment(job)}/shells/{rank}/{segment(view['id'])}"
        self._left = threading.Event()
        if attach:
            words = "a new shell" if view["new"] else "the shell that you left"
            narrate(f"{words} beside rank {rank} of {job}; ctrl-] leaves it running")
            self._resized()

    def run(self) -> int:
        """Until the program ends, or is left; gives the exit code."""
        typing = threading.Thread(target=self._type, daemon=True)
        with _raw(self._terminal, self._resized):
            typing.start()
            try:
                code = self._show()
            except KeyboardInterrupt:  # on a terminal of its own the key is the program's
                with suppress(NotFound, Unreachable):
                    self._post("signal", number=signal.SIGINT)
                raise
        if code is None:
            narrate("left; it runs on")
            return 0
        return code

    def _show(self) -> int | None:
        offset, failing = 0, 0.0
        while not self._left.is_set():
            try:
                data, headers = self._client.raw(self._path, offset=offset, wait=_WAIT)
            except Unreachable:
                failing = failing or time.monotonic()
                if time.monotonic() - failing > _PATIENCE:
                    raise
                time.sleep(0.5)
                continue
            failing = 0.0
            offset = int(headers["X-Position"])
            _write(data)
            if "X-Exit" in headers:
                return int(headers["X-Exit"])
        return None

    def _type(self) -> None:
        """Standard input goes to the program; runs on a thread of its own."""
        with suppress(NotFound):
            while data := os.read(0, _PIECE):
                if self._attach and _DETACH in data:
                    self._left.set()
                    self._post("size", number=_size())  # wakes who reads: the program repaints
                    return
                while self._post("write", data) > _MUCH:
                    data = b""
                    time.sleep(0.05)
            self._post("end")

    def _post(self, kind: str, data: bytes = b"", **query: Any) -> int:
        pieces = [data] if data else []
        path = f"{self._path}/{kind}"
        answer = self._client.upload(path, pieces, "application/octet-stream", **query)
        return int(answer["waiting"])

    def _resized(self, *_: object) -> None:
        if self._terminal:
            with suppress(NotFound, Unreachable):
                self._post("size", number=_size())


def _size() -> int:
    size = shutil.get_terminal_size()
    return min(size.lines, 1000) << 16 | min(size.columns, 1000)


def _write(data: bytes) -> None:
    """Records of output, each to its stream."""
    while data:
        stream, length = data[0], int.from_bytes(data[1:_HEAD])
        out = sys.stderr.buffer if stream == 2 else sys.stdout.buffer
        out.write(data[_HEAD : _HEAD + length])
        out.flush()
        data = data[_HEAD + length :]


@contextmanager
def _raw(terminal: bool, resized: Any) -> Iterator[None]:
    """Keys go to the program as they are typed; the terminal is as before afterwards."""
    if not terminal:
        yield
        return
    import termios
    import tty

    before = termios.tcgetattr(0)
    handler = signal.signal(signal.SIGWINCH, resized)
    try:
        tty.setraw(0, termios.TCSADRAIN)  # what was typed ahead stays
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)
        signal.signal(signal.SIGWINCH, handler)
