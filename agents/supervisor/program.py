"""One supervised program: started, watched, restarted; or adopted from a supervisor that died."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from agents.supervisor.policy import REMEMBERED, Backoff
from agents.supervisor.process import Identity
from agents.supervisor.record import ProgramRecord
from jobs.base.signals import signal_name

LOG_LIMIT = 10 * 1024 * 1024
"""Bytes of a log that a restart still appends to; a longer one is put aside first."""


class Program:
    """A program and its restarts. Times: `now` is monotonic, `at` unix time, both in seconds."""

    def __init__(self, name: str, log: Path, record: ProgramRecord | None = None) -> None:
        self.name = name
        self.log = log
        self.process: Identity | None = None
        self.due: float | None = 0.0  # when to start it; None while it runs
        self.restarts: list[float] = list(record["restarts"]) if record else []
        self.exit = record["exit"] if record else ""
        self.started_at: float | None = None
        self.descriptor: int | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._backoff = Backoff()
        self._since = 0.0

    def adopt(self, process: Identity, record: ProgramRecord, now: float) -> bool:
        """Take over a process that runs already. False when it does not run any more."""
        descriptor = process.open()
        if descriptor is None:
            return False
        self.process, self.descriptor, self.due = process, descriptor, None
        self.started_at, self._since = record["started_at"], now
        return True

    def start(
        self, command: Sequence[str], env: Mapping[str, str], umask: int, now: float, at: float
    ) -> None:
        """Start it in a session of its own, so that it and its children outlive this process and can
        be found. Raises OSError when it cannot be started."""
        if self.log.exists() and self.log.stat().st_size > LOG_LIMIT:
            self.log.replace(self.log.with_suffix(".log.1"))
        descriptor = os.open(self.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            self._child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=descriptor,
                stderr=descriptor,
                env=dict(env),
                cwd="/",
                umask=umask,
                start_new_session=True,
            )
        finally:
            os.close(descriptor)
        self.descriptor = os.pidfd_open(self._child.pid)
        self.process = Identity.of(self._child.pid)  # None when it is dead already: the pidfd tells
        self.due, self._since, self.started_at = None, now, at

    def died(self, now: float, at: float) -> float:
        """Note that the process has ended; returns the seconds until it is due again."""
        if self.descriptor is not None:
            os.close(self.descriptor)
        self.exit = _how(self._child.wait()) if self._child is not None else "ended"
        self.descriptor = self._child = None
        return self._again(now, at, now - self._since)

    def failed(self, now: float, at: float) -> float:
        """Note a start that did not succeed; returns the seconds until it is due."""
        return self._again(now, at, 0.0)

    def _again(self, now: float, at: float, up_for: float) -> float:
        self._backoff, delay = self._backoff.after_death(up_for)
        self.restarts = [*self.restarts, at][-REMEMBERED:]
        self.due, self.started_at = now + delay, None
        return delay

    def to_json(self) -> ProgramRecord:
        return {
            "process": self.process.to_json() if self.process else None,
            "started_at": self.started_at,
            "restarts": self.restarts,
            "exit": self.exit,
        }


def _how(code: int) -> str:
    """A return code of `subprocess` in words."""
    if code < 0:
        return f"killed by {signal_name(-code)}"
    return f"exit code {code}"
