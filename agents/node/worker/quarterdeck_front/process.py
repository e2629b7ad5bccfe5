"""One HAProxy process and what it says at its runtime socket, also after another one has taken over."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Collection
from pathlib import Path

_BACKENDS, _SERVERS = 2, 4
"""What `show stat` is asked for."""
_PATIENCE = 2.0


class Process:
    """A running HAProxy. While it finishes what it has, its socket takes no new connection, so one is opened
    before: by it the requests that it still has can be counted.

    Args:
        servers: backend and server of each replica that it may send requests to.
    """

    def __init__(
        self,
        popen: subprocess.Popen[bytes],
        folder: Path,
        socket_name: str,
        servers: Collection[tuple[str, str]],
    ) -> None:
        self.popen, self.socket_name = popen, socket_name
        self.servers = frozenset(servers)
        self._folder = folder
        self._line: socket.socket | None = None  # open while another one takes over

    @property
    def pid(self) -> int:
        return self.popen.pid

    @property
    def ended(self) -> bool:
        return self.popen.poll() is not None

    def _connect(self) -> socket.socket:
        client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        client.settimeout(_PATIENCE)
        folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        try:  # through the descriptor: a socket's path is short
            client.connect(f"/proc/self/fd/{folder}/{self.socket_name}")
        except OSError:
            client.close()
            raise
        finally:
            os.close(folder)
        return client

    def ask(self, command: str) -> str:
        """What its runtime socket answers. Raises OSError."""
        if self._line is not None:
            return self._on_line(self._line, command)
        with self._connect() as client:
            client.sendall(command.encode() + b"\n")
            parts = []
            while part := client.recv(65536):
                parts.append(part)
        return b"".join(parts).decode(errors="replace")

    def keep_line(self) -> None:
        """Stay connected: another process takes over now."""
        if self._line is not None:
            return
        with contextlib.suppress(OSError):
            line = self._connect()
            try:
                self._on_line(line, "prompt")
            except OSError:
                line.close()
                raise
            self._line = line

    def close(self) -> None:
        if self._line is not None:
            self._line.close()
            self._line = None

    @staticmethod
    def _on_line(line: socket.socket, command: str) -> str:
        line.sendall(command.encode() + b"\n")
        told = b""
        while not told.endswith(b"\n> "):
            part = line.recv(65536)
            if not part:
                raise OSError("the runtime socket is closed")
            told += part
        return told[:-3].decode(errors="replace")

    def finish(self) -> None:
        """Take nothing new, and end when all is answered."""
        self.popen.send_signal(signal.SIGUSR1)

    def release(self) -> None:
        """Let it end, if our own connection is all that it still has."""
        if self._line is None:
            return
        try:
            info = self.ask("show info")
        except OSError:
            self.close()
            return
        jobs = next((one for one in info.splitlines() if one.startswith("Jobs:")), "Jobs: 0")
        if int(jobs.partition(":")[2]) <= 1:
            self.close()

    def servers_up(self) -> dict[tuple[str, str], bool]:
        """Backend and server -> whether it takes requests. Raises OSError."""
        rows = self._statistics(_SERVERS)
        return {(row["pxname"], row["svname"]): row["status"].startswith("UP") for row in rows}

    def load(self) -> dict[str, tuple[int, int]]:
        """Backend -> its requests, and how many of them wait in a queue. Raises OSError."""
        rows = self._statistics(_BACKENDS)
        return {row["pxname"]: (int(row["scur"] or 0), int(row["qcur"] or 0)) for row in rows}

    def _statistics(self, kind: int) -> list[dict[str, str]]:
        head, *rows = self.ask(f"show stat -1 {kind} -1").splitlines()
        columns = head.lstrip("# ").split(",")
        return [
            dict(zip(columns, cells, strict=False))
            for cells in (row.split(",") for row in rows)
            if len(cells) >= len(columns) - 1
        ]
