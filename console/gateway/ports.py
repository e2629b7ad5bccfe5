"""A forwarded port: `ssh -L 6006:j3:6006` is `qd forward j3 6006 --stdio` for each connection.

The host that a client names is a job, `j3` or `j3:1` for its rank 1; there are no other hosts here.
"""

from __future__ import annotations

import contextlib
import re
from typing import Any

import asyncssh

from jobs.base.errors import NotAllowed

_JOB = re.compile(r"j[0-9]{1,9}(:[0-9]{1,6})?")


def command(host: str, port: int) -> str:
    """What to run for a connection to that host and port. Raises NotAllowed."""
    if not _JOB.fullmatch(host):
        raise NotAllowed(
            f"'{host[:100]}' is not a job",
            "Only jobs' ports are forwarded: `ssh -L 6006:j3:6006 ...`.",
        )
    return f"forward {host} {port} --stdio"


class Connection:
    """One forwarded connection, as far as a session knows SSH channels with a program."""

    term_type: None = None
    subsystem: None = None

    def __init__(
        self, text: str, reader: asyncssh.SSHReader[bytes], writer: asyncssh.SSHWriter[bytes]
    ) -> None:
        self.command = text
        self.stdin, self.stdout = reader, writer
        self.stderr = _Nobody()
        self.channel = writer.channel
        self.env: dict[str, str] = {}
        self.term_size = (0, 0, 0, 0)

    def get_extra_info(self, name: str) -> Any:
        return self.stdout.get_extra_info(name)

    def exit(self, code: int) -> None:
        """The program has ended, and all that it wrote is sent."""
        with contextlib.suppress(OSError):
            self.stdout.write_eof()
        self.channel.close()


class _Nobody:
    """Where a program's words go that no client can show."""

    def write(self, data: bytes) -> None: ...

    async def drain(self) -> None: ...
