"""The gateway's audit log: a line of JSON for each login, session, command, and whoever was not let in.

What a command changes, and what a role refuses, is in the control plane's own audit log besides.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jobs.base.times import rfc3339

_LONGEST = 4096
"""Bytes of a command line that are written down."""


class Journal:
    """Args:
    path: the file; it is made for its owner alone, and appended to.
    now: unix time.
    """

    def __init__(self, path: Path, now: Callable[[], float]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._descriptor = os.open(
            path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600
        )
        self._now = now

    def note(self, what: str, **facts: Any) -> None:
        """Write one line. Raises OSError: what cannot be recorded does not happen."""
        facts = {n: v[:_LONGEST] if isinstance(v, str) else v for n, v in facts.items()}
        line = json.dumps({"at": rfc3339(self._now()), "what": what, **facts}).encode() + b"\n"
        written = os.write(self._descriptor, line)
        if written != len(line):
            raise OSError(f"{written} of {len(line)} bytes of the audit log were written")

    def close(self) -> None:
        os.close(self._descriptor)
