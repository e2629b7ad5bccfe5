"""Logs in bounded memory: a ring of lines per rank, and the merged ring of all ranks.

Lines are kept as bytes and turned into safe text only when shown: escapes, control characters and
bidirectional overrides are made visible (console.text), colours are dropped, tabs are spaces.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

from console.text import expand_tabs, last_state, neutralise
from console.tui.core.base.whole import Spot
from console.tui.core.draw.format import moment
from console.tui.core.draw.lines import normal
from jobs.wire.views import LogLine

RANK_BYTES = 4 << 20
"""What is kept of one rank's log. The rest is a scroll to the top away (it is read again by offset)."""

MERGED_LINES = 20_000
CHUNK = 64 << 10
"""Bytes asked for at once: a screenful is far less, and a slow link carries it in a moment."""

LONGEST_LINE = 8 << 10
"""Bytes of a line that are shown; a longer one is cut with a note, or one line could fill memory."""

_COLOUR = re.compile(r"\x1b\[[0-9;:]*m")


@lru_cache(maxsize=2048)
def readable(raw: bytes) -> str:
    """A line as it may be put on a screen. Of a progress bar that rewrote itself with carriage
    returns, its last state is shown, as a terminal would."""
    if len(raw) > LONGEST_LINE and b"\r" in raw:
        raw = raw[-LONGEST_LINE:].partition(b"\r")[2]  # its newest states
    cut = len(raw) - LONGEST_LINE
    text = raw[:LONGEST_LINE].decode("utf-8", "backslashreplace")
    text = last_state(_COLOUR.sub("", text))
    text = expand_tabs(neutralise(normal(text)))
    return text if cut <= 0 else f"{text} [{cut} more bytes]"


class Lines(Protocol):
    """What a log viewer shows: lines by number, from the oldest that is kept."""

    @property
    def first(self) -> int:
        """Number of the oldest line that is kept: how many were dropped before it."""
        ...

    @property
    def end(self) -> int:
        """Number after the newest line."""
        ...

    def text(self, index: int) -> str: ...

    def rank(self, index: int) -> int | None:
        """The rank to show before the line; None when all lines are of one."""
        ...

    def gap(self, index: int) -> float:
        """Seconds between the line before and this one; 0 where they are not known."""
        ...


class RankLog:
    """A window of one rank's log file: `[start, end)` in bytes, as whole lines plus an unfinished one.

    Not thread-safe: only message handlers touch it.
    """

    def __init__(self, budget: int = RANK_BYTES) -> None:
        self._budget = budget
        self._lines: list[bytes] = []
        self._partial = b""
        self._held = 0
        self._number = 0  # of _lines[0]; below zero after earlier lines were read in
        self.start = 0  # byte offset of _lines[0]
        self.tail = 0  # byte offset after the last byte that was received
        self.size = 0  # of the file, as last told

    @property
    def first(self) -> int:
        return self._number

    @property
    def end(self) -> int:
        return self._number + len(self._lines) + (1 if self._partial else 0)

    def text(self, index: int) -> str:
        at = index - self._number
        return readable(self._lines[at] if at < len(self._lines) else self._partial)

    def rank(self, index: int) -> int | None:
        return None

    def gap(self, index: int) -> float:
        return 0.0  # a rank's own log has no times

    @property
    def empty(self) -> bool:
        return not self._lines and not self._partial

    def begin(self, offset: int) -> None:
        """Start a window at a byte offset; a first line that is cut there is dropped on arrival."""
        self._lines.clear()
        self._partial = b""
        self._held = self._number = 0
        self.start = self.tail = offset

    def extend(self, offset: int, data: bytes, size: int) -> int:
        """Take bytes that follow what is held; returns how many lines were finished.

        Bytes that do not connect (an answer that was overtaken) are ignored.
        """
        self.size = size
        if offset != self.tail or not data:
            return 0
        self.tail += len(data)
        if self.empty and offset == self.start and offset > 0 and not self._lines:
            # The window was opened at an arbitrary byte: the first, halved line is not shown.
            head, newline, data = data.partition(b"\n")
            if not newline:
                self.start = self.tail
                return 0
            self.start += len(head) + 1
        *whole, self._partial = (self._partial + data).split(b"\n")
        self._lines.extend(whole)
        self._held += sum(len(one) + 1 for one in whole)
        self._shrink()
        return len(whole)

    def prepend(self, offset: int, data: bytes) -> int:
        """Take bytes that end where the window starts; returns how many lines came before it."""
        if offset + len(data) != self.start or not data:
            return 0
        if offset > 0:
            head, newline, data = data.partition(b"\n")
            if not newline:
                return 0
            offset += len(head) + 1
        whole = data.split(b"\n")[:-1]
        self._lines[:0] = whole
        self._held += len(data)
        self._number -= len(whole)
        self.start = offset
        return len(whole)

    def _shrink(self) -> None:
        """Drop the oldest lines, a quarter at a time, so that each byte is moved a few times at most."""
        if self._held <= self._budget * 5 // 4:
            return
        dropped = count = 0
        while self._held - dropped > self._budget and count < len(self._lines):
            dropped += len(self._lines[count]) + 1
            count += 1
        del self._lines[:count]
        self._number += count
        self._held -= dropped
        self.start += dropped

    def drop_end(self) -> None:
        """Drop the newest lines beyond the budget: what is read in before them has gone far from the
        end of the log. `tail` moves back, so that they can be read again."""
        if self._held <= self._budget * 5 // 4:
            return
        dropped = 0
        count = len(self._lines)
        while self._held - dropped > self._budget and count:
            count -= 1
            dropped += len(self._lines[count]) + 1
        del self._lines[count:]
        self.tail -= dropped + len(self._partial)
        self._partial = b""
        self._held -= dropped

    def offset_of(self, index: int) -> int:
        """Byte offset in the file of the line with that number; of the end for one beyond it."""
        return self.start + sum(len(one) + 1 for one in self._lines[: index - self._number])

    def index_at(self, offset: int) -> int | None:
        """Number of the line that begins at or holds a byte offset; None when it is not here."""
        if not self.start <= offset < self.tail:
            return None
        at = self.start
        for index, one in enumerate(self._lines):
            at += len(one) + 1
            if offset < at:
                return self._number + index
        return self._number + len(self._lines)

    @property
    def held(self) -> int:
        """Bytes kept."""
        return self._held + len(self._partial)


@dataclass(frozen=True, slots=True)
class _Merged:
    rank: int
    raw: bytes
    at: float  # seconds since the epoch
    offset: int = -1  # in the rank's log; below zero for a note of ours


class MergedLog:
    """Lines of all ranks in the order of time, the newest `limit`.

    A stream that was cut is opened again with the same tail; what is known already is recognised by
    its offset and left out, so that no line is doubled. When more came meanwhile than the tail holds,
    a note stands where lines are missing: a gap is never silent, unless the stream is `sparse`, of
    matching lines only.
    """

    def __init__(self, limit: int = MERGED_LINES, *, sparse: bool = False) -> None:
        self._limit = limit
        self._sparse = sparse
        self._lines: list[_Merged] = []
        self._number = 0
        self._next: dict[int, int] = {}  # rank -> offset after its newest line

    @property
    def first(self) -> int:
        return self._number

    @property
    def end(self) -> int:
        return self._number + len(self._lines)

    def text(self, index: int) -> str:
        return readable(self._lines[index - self._number].raw)

    def rank(self, index: int) -> int | None:
        return self._lines[index - self._number].rank

    def gap(self, index: int) -> float:
        return 0.0 if index <= self.first else self.at(index) - self.at(index - 1)

    def at(self, index: int) -> float:
        """When the line was written, in seconds since the epoch."""
        return self._lines[index - self._number].at

    def spot(self, index: int) -> Spot:
        """Where the line stands among all that were written."""
        one = self._lines[index - self._number]
        return Spot(one.at, one.rank, one.offset)

    def number_of(self, spot: Spot) -> int | None:
        """Number of a line; None when it is not here."""
        for index, one in enumerate(self._lines):
            if one.rank == spot.rank and one.offset == spot.offset:
                return self._number + index
        return None

    def index_when(self, when: float) -> int | None:
        """Number of the first line that was written at or after a moment; None without lines."""
        if not self._lines:
            return None
        place = bisect_left(self._lines, when, key=lambda one: one.at)
        return self._number + min(place, len(self._lines) - 1)

    def extend(self, lines: Iterable[LogLine]) -> int:
        """Take lines of the stream; returns how many were new."""
        new = 0
        for one in lines:
            rank, offset = one["rank"], one["offset"]
            raw = one["line"].encode("utf-8", "backslashreplace")
            expected = self._next.get(rank, offset)
            if offset < expected:
                continue
            # A moment that goes back, as when a node's clock was set, would break the search by time.
            latest = self._lines[-1].at if self._lines else 0.0
            at = max(latest, moment(one["at"]) or 0.0)
            if offset > expected and not self._sparse:
                note = f"[{offset - expected} bytes of r{rank} are not here; its own log has them]"
                self._lines.append(_Merged(rank, note.encode(), at))
            self._next[rank] = offset + len(raw) + 1
            self._lines.append(_Merged(rank, raw, at, offset))
            new += 1
        if len(self._lines) > self._limit * 5 // 4:
            drop = len(self._lines) - self._limit
            del self._lines[:drop]
            self._number += drop
        return new


def search(lines: Lines, needle: str, start: int, *, backwards: bool = False) -> int | None:
    """Number of the next line after `start` that has `needle` in it (any case), going round once."""
    if not needle or lines.end == lines.first:
        return None
    wanted = needle.lower()
    total = lines.end - lines.first
    step = -1 if backwards else 1
    for distance in range(1, total + 1):
        index = lines.first + (start - lines.first + step * distance) % total
        if wanted in lines.text(index).lower():
            return index
    return None


class Quiet:
    """When each rank last wrote, by what the console itself has seen.

    The API tells a log's size, not the time of its last byte: growth between two looks dates it.
    A rank whose log did not grow since the first look is known only to be at least that quiet.
    """

    def __init__(self) -> None:
        self._sizes: dict[int, int] = {}
        self._grew: dict[int, float] = {}

    def look(self, sizes: Sequence[tuple[int, int]], now: float) -> None:
        """Take (rank, log bytes) pairs."""
        for rank, size in sizes:
            if rank in self._sizes and size > self._sizes[rank]:
                self._grew[rank] = now
            self._sizes[rank] = max(size, self._sizes.get(rank, 0))

    def wrote(self, rank: int, at: float) -> None:
        """A line of the rank was written at a known moment."""
        self._grew[rank] = max(at, self._grew.get(rank, at))

    def since(self, rank: int, now: float) -> float | None:
        """Seconds since the rank's last line; None when no line was seen to come."""
        at = self._grew.get(rank)
        return None if at is None else max(0.0, now - at)
