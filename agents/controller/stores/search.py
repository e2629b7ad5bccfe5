"""Searching lines for an expression that a user gave (see `expression.py`)."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
import threading
from collections.abc import Sequence
from typing import Any

from agents.controller.stores import expression
from jobs.base.errors import InvalidInput

_PLAIN = re.compile(r"[^\[\](){}]*")
"""Expressions whose reading is quick. A class that ignores case walks through all of Unicode, and eighty
of them fit into the thousand characters that are allowed."""


def check(pattern: str, seconds: float = expression.MAX_CPU) -> None:
    """Raises InvalidInput for what is not a regular expression, or takes too long to read. Blocking."""
    if _PLAIN.fullmatch(pattern):
        fault = expression.fault(pattern)
    else:
        search = Search(pattern, seconds)
        try:
            fault = search.fault()
        finally:
            search.close()
    if fault:
        raise InvalidInput(f"grep: '{pattern}' is not a regular expression: {fault}")


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
        found: list[int] | None = self._ask(texts)
        return found or []

    def fault(self) -> str:
        """Why it is no expression; empty when it is one. Raises InvalidInput when it takes too long."""
        found: str | None = self._ask(None)
        return found or ""

    def _ask(self, question: Any) -> Any:
        with self._lock:
            if self.closed():
                return None
            process = self._process = self._process or self._start()
            assert process.stdin is not None
            assert process.stdout is not None
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(json.dumps(question) + "\n")
                process.stdin.flush()
            answer = process.stdout.readline()
        if answer:
            return json.loads(answer)
        if self.closed():
            return None
        raise InvalidInput(
            f"grep: '{self.pattern}' takes too long to match",
            "Nested repetitions do, as in (a+)+; use a simpler expression.",
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
