"""Copies of requests for a version that is tried as a shadow, on the side of the requests: never a wait.

What is chosen goes, in memory that is handed over, to a process of its own (`shadow.py`), which asks the
other version and compares. When that is behind, or too much waits for it, the copy is dropped and counted.

The controller says in a letter ($QD_INBOX) what is wanted, `{"shadow": null}` or

    {"shadow": {"id": "d3r2", "percent": 10, "servers": ["127.0.0.1:23456"]}}
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import secrets
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import beside

HEADER, TOOK = b"x-quarterdeck-shadow", b"x-quarterdeck-took"
"""By which a copy is known, and the microseconds that its answer took. The front lets no caller set it."""
LOOK_EVERY = 0.3
"""Seconds between two looks for a letter."""
WAITING = 64 << 20
"""Bytes of copies that may wait."""
AGAIN = 5.0
"""Seconds between two starts of a process that has died."""


@dataclass(slots=True)
class Copy:
    """A request that was chosen; `body` once it is known that the model takes it."""

    body: bytes | None = None
    head: int | None = None  # bytes of JSON in front of the body, as in `oip.parse`


class Mirror:
    """Chooses, and hands over.

    Args:
        inbox, outbox: files for the controller's letters and for what was counted; None where there are none.
        path: of inference at the other version.
        dice: uniform in [0, 1).
    """

    def __init__(
        self,
        inbox: Path | None,
        outbox: Path | None,
        path: str,
        *,
        dice: Callable[[], float] = random.random,
    ) -> None:
        self._inbox, self._outbox, self._path, self._dice = inbox, outbox, path, dice
        self._read = 0
        self._asked: dict[str, Any] | None = None
        self._share = 0.0
        self._socket: socket.socket | None = None
        self._program: subprocess.Popen[bytes] | None = None
        self._started = 0.0
        self._waiting = 0  # bytes
        self.dropped = 0

    def look(self) -> None:
        """See what the controller wants, and have the process that it takes. Called now and then."""
        if self._inbox is None:
            return
        try:
            changed = self._inbox.stat().st_mtime_ns
        except OSError:
            return
        if changed != self._read:
            self._read = changed
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                self._want(json.loads(self._inbox.read_bytes()).get("shadow"))
        if self._asked is not None and self._program is not None:
            if self._program.poll() is None:
                return
            self.close(0.0)
            if time.monotonic() - self._started >= AGAIN:
                self._start(self._asked)
        elif self._asked is not None and time.monotonic() - self._started >= AGAIN:
            self._start(self._asked)

    def _want(self, asked: dict[str, Any] | None) -> None:
        before, self._asked = self._asked, asked
        self._share = float(asked["percent"]) / 100 if asked is not None else 0.0
        if asked is None or before is None or before["id"] != asked["id"]:
            self.close(0.0)
        if asked is not None and self._program is None:
            self._start(asked)

    def _start(self, asked: dict[str, Any]) -> None:
        self._started, self._waiting, self.dropped = time.monotonic(), 0, 0
        task = {
            "id": asked["id"],
            "boot": secrets.token_hex(6),
            "path": self._path,
            "inbox": str(self._inbox),
            "outbox": str(self._outbox),
        }
        try:
            self._program, self._socket = beside.start("shadow.py", task)
        except OSError as error:
            print(f"there are no copies of requests: {error}", flush=True)  # noqa: T201 - the replica's log

    def chosen(self) -> Copy | None:
        """Whether a request is to be copied."""
        return Copy() if self._share and self._dice() < self._share else None

    def offer(
        self, copy: Copy, identity: str, status: int, answer: bytes, head: int | None, took: float
    ) -> None:
        """Hand a copy over, with the answer of this version. Never waits.

        Args:
            head: bytes of JSON in front of the answer.
            took: seconds.
        """
        if copy.body is None or self._socket is None:
            return
        size = len(copy.body) + len(answer)
        told = {
            "id": identity,
            "status": status,
            "took": round(took * 1e6),
            "size": len(copy.body),
            "head": copy.head,
            "answer_head": head,
            "dropped": self.dropped,
        }
        try:
            self._heard()
            if self._waiting + size > WAITING:
                raise BlockingIOError
            memory = os.memfd_create("copy", os.MFD_CLOEXEC)
            try:
                os.writev(memory, [copy.body, answer])
                socket.send_fds(self._socket, [json.dumps(told).encode()], [memory])
            finally:
                os.close(memory)
            self._waiting += size
        except OSError:
            self.dropped += 1

    def _heard(self) -> None:
        """How many bytes it is done with."""
        assert self._socket is not None
        with contextlib.suppress(BlockingIOError):
            while told := self._socket.recv(64):
                self._waiting -= int(told)

    def close(self, patience: float = 2.0) -> None:
        """Let the process end; it is given so many seconds."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        program, self._program = self._program, None
        if program is None:
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            program.wait(patience)
            return
        program.kill()
        program.wait()
