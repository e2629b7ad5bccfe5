"""Reading what ranks write, by offset: logs with the times they were seen, metrics by whole lines.

Nothing sits between a rank and its file, so the files are ours to read only. The time index of a log
is a file beside it and outlives the agent.
"""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Sequence
from pathlib import Path

_MARK = struct.Struct("<Qd")  # end offset in bytes, unix time
_PAGE = 1024  # marks read at once

MAX_LINE = 65_536
"""Bytes of a metrics line that is waited for; longer ones are passed on in pieces, for the reader to
refuse (the helper's own lines are far shorter)."""


class TimeIndex:
    """When which bytes of a log were first seen. A mark is `(end, at)`: what lies between the previous
    mark's end and this one was seen at that time. 16 bytes a mark, at most five marks a second."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.size, self._last, self._count = 0, 0.0, 0
        if path.exists():
            # A torn mark at the end, from a node that lost power, is written over.
            self._count = path.stat().st_size // _MARK.size
            if self._count:
                self.size, self._last = self._marks(self._count - 1, self._count)[0]

    def observe(self, size: int, at: float) -> bool:
        """Note that the log has `size` bytes at unix time `at`; whether that is more than before.

        Without room on the disk the time is lost, and these bytes count as seen with the next ones.
        """
        if size <= self.size:
            return False
        self.size, self._last = size, max(self._last, at)
        with contextlib.suppress(OSError):
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                mark = _MARK.pack(size, self._last)
                written = os.pwrite(descriptor, mark, self._count * _MARK.size)
            finally:
                os.close(descriptor)
            self._count += written == len(mark)
        return True

    def between(self, start: int, end: int) -> list[tuple[int, float]]:
        """`(offset, unix time)` pairs that cover the bytes from `start` to `end` (exclusive), the
        first of them at `start`; empty for no bytes."""
        if start >= min(end, self.size):
            return []
        low, high = 0, self._count
        while low < high:  # the first mark that ends behind start
            middle = (low + high) // 2
            if self._marks(middle, middle + 1)[0][0] > start:
                high = middle
            else:
                low = middle + 1
        times = []
        while low < self._count and start < end:
            for mark_end, at in self._marks(low, min(low + _PAGE, self._count)):
                times.append((start, at))
                start = mark_end
                if start >= end:
                    break
            low += _PAGE
        return times if start >= end else [*times, (start, self._last)]

    def recent(self, count: int) -> list[float]:
        """Unix times of the last marks, oldest first, at most `count`."""
        if not self._count:
            return []
        return [at for _, at in self._marks(max(0, self._count - count), self._count)]

    def _marks(self, first: int, last: int) -> list[tuple[int, float]]:
        data = read_at(self._path, first * _MARK.size, (last - first) * _MARK.size)
        return [(end, at) for end, at in _MARK.iter_unpack(data)]


def read_at(path: Path, offset: int, size: int) -> bytes:
    """Up to `size` bytes of a file. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    try:
        return os.pread(descriptor, size, offset)
    finally:
        os.close(descriptor)


def read_lines(path: Path, offset: int, size: int, *, final: bool) -> bytes:
    """Whole lines from `offset` on, about `size` bytes of them, at least one when there is one.

    With `final` a last line without its end is given too: its writer is dead and will not end it.
    Raises OSError.
    """
    data = read_at(path, offset, max(size, MAX_LINE))
    end = data.rfind(b"\n", 0, size) + 1 or data.find(b"\n") + 1
    if (final and len(data) <= size) or (not end and (final or len(data) >= MAX_LINE)):
        end = len(data)
    return data[:end]


def fair_shares(needs: Sequence[int], budget: int) -> list[int]:
    """Divide `budget` bytes among streams that have `needs` bytes to give: small needs are met whole,
    the others get equal parts of the rest, so that a rank that floods its log cannot hide another's.
    """
    shares = [0] * len(needs)
    order = sorted(range(len(needs)), key=lambda index: needs[index])
    for place, index in enumerate(order):
        shares[index] = min(needs[index], budget // (len(order) - place))
        budget -= shares[index]
    return shares


def lost_bytes(count: int) -> bytes:
    """`count` bytes (at least 1) in the place of as many that a job cut from its log: one line."""
    text = f"[quarterdeck: {count} bytes are missing here, the job cut its own log]".encode()
    return text[: count - 1].ljust(count - 1) + b"\n"
