"""What the tracker has acknowledged, on disk: a journal of entries, and the ranks' metrics files.

Entries (experiments, runs, parameters, tags, models) are lines `[kind, id, value]`; the last one of an id
counts, null removes it. They are synced to disk before they are acknowledged. Points are lines of the metrics
file that `quarterdeck.log` writes too, with two fields more that say whose they are; like that one's they are
written whole, and not waited for until they are on the disk: a power cut ends their attempt anyway.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MAX_JOURNAL = 256 << 20
"""Bytes of an attempt's journal."""

_FLAGS = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW


class Torn(OSError):
    """A disk took a part of what was to be appended: `lines` whole lines of it."""

    def __init__(self, lines: int) -> None:
        super().__init__(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.lines = lines


def append(path: Path, data: bytes, *, durable: bool) -> None:
    """Append whole lines in one write, which the kernel keeps whole among those of others.

    Raises Torn, or another OSError when nothing was written.
    """
    file = os.open(path, _FLAGS, 0o644)
    try:
        size = os.fstat(file).st_size
        cut = bool(size) and os.pread(file, 1, size - 1) != b"\n"  # by a full disk, or a kill
        written = os.write(file, b"\n" + data if cut else data) - cut
        if written < len(data):
            raise Torn(data[: max(written, 0)].count(b"\n"))
        if durable:
            os.fdatasync(file)
    finally:
        os.close(file)


def lines(path: Path, *marks: bytes) -> Iterator[Any]:
    """The JSON values in a file of lines, of those that have all marks in them; what is none is left out."""
    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
        for line in file:
            if not all(mark in line for mark in marks):
                continue  # a metrics file may have millions of others
            with contextlib.suppress(ValueError, RecursionError):
                yield json.loads(line)


def dumped(value: Any) -> bytes:
    """A line. Half surrogate pairs, which no database stores, become question marks."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8", "replace") + b"\n"


class Journal:
    """Entries by kind and id, in memory and in `path`. One thread at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._entries: dict[str, dict[str, Any]] = {}
        for line in lines(path):
            if isinstance(line, list) and len(line) == 3:
                self._take(*line)

    def of(self, kind: str) -> dict[str, Any]:
        """All of a kind, by id, in the order in which they were first put. Not to be changed."""
        return self._entries.setdefault(kind, {})

    def put(self, *entries: tuple[str, str, Any]) -> None:
        """Store entries, all of them on disk when this returns. Raises OSError when they are not."""
        if not entries:
            return
        with contextlib.suppress(FileNotFoundError):
            if self._path.stat().st_size > MAX_JOURNAL:
                raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
        append(self._path, b"".join(map(dumped, entries)), durable=True)
        for entry in entries:
            self._take(*entry)

    def _take(self, kind: str, key: str, value: Any) -> None:
        if value is None:
            self.of(kind).pop(key, None)
        else:
            self.of(kind)[key] = value
