"""A connection to a remote control plane, through its carrier, which is started when there is none."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from console.dial import dial
from console.remote.target import Target
from jobs.base import python
from jobs.base.errors import NotAllowed, QuarterdeckError, Unreachable, from_json
from jobs.base.places import places

PATIENCE = 45.0
"""Seconds for the carrier to say how it went. It is sooner by itself: this is for one that hangs."""

START = 10.0
"""Seconds for a carrier to be there; it takes a tenth of one."""

IDLE_VARIABLE = "QD_SSH_IDLE"
"""Seconds that the SSH connection is kept for the next command."""


class Link:
    """The way to one head.

    Args:
        target: the head.
        patience: seconds to wait until it is reached.
    """

    def __init__(
        self,
        target: Target,
        patience: float = PATIENCE,
        environ: Mapping[str, str] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        env = os.environ if environ is None else environ
        self.target = target
        self.told: dict[str, Any] = {}
        """What the carrier said of the last connection: the socket on the head, the account there."""
        self._patience = patience
        self._base = places(env).runtime / f"ssh-{target.digest(env)}"
        self._idle = env.get(IDLE_VARIABLE)
        self._clock = clock

    @property
    def carrier(self) -> Path:
        """The carrier's socket on this machine."""
        return self._base.with_suffix(".sock")

    def connect(self, timeout: float) -> socket.socket:
        """A connection to the API. `timeout`: seconds that it may stay silent later.

        Raises QuarterdeckError, with what kept the carrier from reaching the head.
        """
        deadline = self._clock() + START
        while True:
            try:
                connected = dial(self.carrier, min(timeout, self._patience))
            except (FileNotFoundError, ConnectionRefusedError):
                self._start(deadline)
                continue
            line = self._first_line(connected)
            if line is not None:
                connected.settimeout(timeout)
                return self._understood(connected, line)
            connected.close()  # it ended just now; the next one will do
            self._check(deadline)

    def _first_line(self, connected: socket.socket) -> bytes | None:
        """What the carrier says first; None when it ended before. HTTP servers never speak first, so
        nothing can follow that line."""
        line = b""
        connected.settimeout(self._patience)
        try:
            while not line.endswith(b"\n"):
                data = connected.recv(65536)
                if not data:
                    return None
                line += data
        except TimeoutError as error:
            connected.close()
            raise Unreachable(
                f"{self.target.host} was not reached within {self._patience:g} s",
                f"Check that `{self.target.ssh}` works.",
            ) from error
        except ConnectionError:
            return None
        except BaseException:
            connected.close()
            raise
        return line

    def _understood(self, connected: socket.socket, line: bytes) -> socket.socket:
        document = json.loads(line)
        if "error" in document:
            connected.close()
            raise from_json(document)
        self.told = document
        return connected

    def _start(self, deadline: float) -> None:
        """Start a carrier; returns when it listens, or another one is about to."""
        self._check(deadline)
        folder = self._base.parent
        words = [str(self._base), json.dumps(self.target.to_json())]
        if self._idle:
            words.append(f"--idle={self._idle}")
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            held = folder.stat()
            if held.st_uid != os.getuid() or held.st_mode & 0o022:
                raise NotAllowed(
                    f"others may write to {folder}, where the SSH connection would be shared",
                    f"Make it yours alone: `chmod 700 {folder}`.",
                )
            with self._base.with_suffix(".log").open("w") as log:
                done = subprocess.run(
                    python.module("console.remote.carrier", *words),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=log,
                    check=False,
                    timeout=START,
                )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Unreachable(f"the SSH carrier does not start: {error}") from error
        if done.returncode:
            log_text = self._base.with_suffix(".log").read_text(errors="replace").strip()
            last = (log_text.splitlines() or [f"exit code {done.returncode}"])[-1]
            raise Unreachable(f"the SSH carrier does not start: {last}")
        time.sleep(0.01)  # where another one is starting or ending, it needs a moment

    def _check(self, deadline: float) -> None:
        if self._clock() >= deadline:
            log = self._base.with_suffix(".log")
            raise QuarterdeckError("the SSH carrier ends again and again", f"See {log}.")
