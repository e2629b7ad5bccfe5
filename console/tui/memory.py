"""Keeps the session on disk. A console that cannot write there works all the same."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from console.tui.core.base.session import Session, dump, parse

_LARGEST = 1 << 16
"""Bytes; a file that is larger was not written by us."""


class Memory:
    """The session of this console. Args: path: the file, or None to remember nothing."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self.session = Session()
        if path is not None:
            with suppress(OSError, UnicodeDecodeError), path.open(encoding="utf-8") as file:
                self.session = parse(file.read(_LARGEST))

    def note(self, **changes: Any) -> None:
        """Remember some fields of `Session`, at once in memory and on disk when the console ends."""
        self.session = replace(self.session, **changes)

    def save(self) -> None:
        """Write it, whole or not at all."""
        if self._path is None:
            return
        with suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            part = self._path.with_suffix(f".{os.getpid()}")
            part.write_text(dump(self.session), encoding="utf-8")
            part.replace(self._path)
