"""What a service manager wants to hear: that all is ready, how it goes, and that we still answer.

systemd's protocol (sd_notify(3)): one datagram per message, to the socket that it names.
"""

from __future__ import annotations

import socket
from collections.abc import MutableMapping
from contextlib import suppress

VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_PID", "LISTEN_FDS")


class Notifier:
    """Speaks to the service manager that started this process; silent where none did.

    Args:
        environ: what this process was started with. The manager's variables are taken out: what we
            start must not speak in our name.
    """

    def __init__(self, environ: MutableMapping[str, str]) -> None:
        taken = {name: environ.pop(name, "") for name in VARIABLES}
        self._address = taken["NOTIFY_SOCKET"]
        usec = taken["WATCHDOG_USEC"]
        self.every = int(usec) / 2_000_000 if self._address and usec.isdecimal() else None
        """Seconds between two signs of life, half of what the manager allows; None: it wants none."""
        self._due = 0.0
        self._ready = False
        self._status = ""

    def alive(self, now: float, ready: bool, status: str) -> None:
        """To be called at each turn of the main loop, at least each `every` seconds.

        Args:
            now: monotonic clock, seconds.
            ready: whether what was asked for is there; said once.
            status: one line for people.
        """
        words = []
        if ready and not self._ready:
            self._ready = True
            words.append("READY=1")
        if status != self._status:
            self._status = status
            words.append(f"STATUS={status}")
        if self.every is not None and now >= self._due:
            self._due = now + self.every
            words.append("WATCHDOG=1")
        self._say(words)

    def stopping(self, longest: float) -> None:
        """The end has begun, and takes up to `longest` seconds."""
        self._say(["STOPPING=1", "STATUS=stopping", f"EXTEND_TIMEOUT_USEC={int(longest * 1e6)}"])

    @property
    def waits_for_ready(self) -> bool:
        """Whether somebody waits to hear that all is ready."""
        return bool(self._address) and not self._ready

    def _say(self, words: list[str]) -> None:
        if not self._address or not words:
            return
        name = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        with (
            suppress(OSError),  # a manager that went away is no reason to end
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender,
        ):
            sender.sendto("\n".join(words).encode(), name)
