"""Whether the controller still answers: a process that hangs is as dead as one that has ended."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

EVERY = 5.0
"""Seconds between two looks."""
SILENCE = 45.0
"""Seconds without an answer after which the controller is ended, so that another one starts. Half of
the usual lease: the ranks that it looks after do not notice."""
PATIENCE = 2.0
"""Seconds that one look waits; the supervisor does nothing else meanwhile."""


def answers(path: Path) -> bool:
    """Whether something speaks HTTP on this socket. Any answer will do: that of a path which does not
    exist needs nothing but the event loop, and it is the loop that can hang."""
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(PATIENCE)
        client.connect(str(path))
        client.sendall(b"GET / HTTP/1.1\r\nHost: qd\r\nConnection: close\r\n\r\n")
        return client.recv(16).startswith(b"HTTP/")
    return False


class Pulse:
    """Looks at the controller now and then.

    Args:
        ask: whether it answers at this moment.
    """

    def __init__(self, ask: Callable[[], bool]) -> None:
        self._ask = ask
        self._heard: float | None = None
        self.due = 0.0

    def started(self, now: float) -> None:
        """Another controller was started, or adopted. Until its first answer it is given time without
        end: a registry can be long to migrate."""
        self._heard, self.due = None, now + EVERY

    def hangs(self, now: float) -> bool:
        """Look, if it is time to; whether the controller has been silent for too long."""
        if now < self.due:
            return False
        self.due = now + EVERY
        if self._ask():
            self._heard = now
        return self._heard is not None and now - self._heard > SILENCE
