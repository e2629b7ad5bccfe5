"""Searching lines for an expression that a user gave (see `expression.py`)."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
import threading
from collections.abc import Sequence

from agents.controller import expression
from jobs.errors import InvalidInput


def check(pattern: str) -> None:
    """Raises InvalidInput for what is not a regular expression."""
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise InvalidInput(f"grep: '{pattern}' is not a regular expression: {error}") from None


class Search:
    """One expression and the process that looks for it, started at the first call.

    Blocking, and for one thread at a time; `close` may come from any.

    Args:
        seconds: CPU time allowed for one call.
    """

    def __init__(self, pattern: str, seconds: float = expression.MAX_CPU) -> None:
        self.pattern, self._seconds = pattern, seconds
        self._process: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()
        self._closed = threading.Event()

    def __call__(self, texts: Sequence[str]) -> list[int]:
        """The indices of the texts that match. Raises InvalidInput when it takes too long."""
        with self._lock:
            if self.closed():
                return []
            process = self._process = self._process or self._start()
            assert process.stdin is not None
            assert process.stdout is not None
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(json.dumps(texts) + "\n")
                process.stdin.flush()
            answer = process.stdout.readline()
        if answer:
            found: list[int] = json.loads(answer)
            return found
        if self.closed():
            return []
        raise InvalidInput(
            f"grep: '{self.pattern}' takes too long to look for",
            "Repetitions inside of repetitions do, as in (a+)+; a simpler expression will not.",
        )

    def closed(self) -> bool:
        return self._closed.is_set()

    def _start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-I", "-S", expression.__file__, str(self._seconds), self.pattern],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
        )

    def close(self) -> None:
        """End the process; a call that is under way finds nothing."""
        self._closed.set()
        process = self._process
        if process is not None:
            process.kill()
        with self._lock:
            if self._process is not None:
                self._process.kill()
                with contextlib.suppress(BrokenPipeError):
                    self._process.communicate()
                self._process = None
