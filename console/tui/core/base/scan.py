"""Looking for a text through a whole log file, a chunk at a time. Pure but for the read it is given.

Nothing of the file is kept but the chunk at hand, so a log of any size can be searched.
"""

from __future__ import annotations

from collections.abc import Callable

CHUNK = 1 << 20
"""Bytes read at once: large enough that a local socket is the limit, small enough to stop soon."""

Read = Callable[[int, int], bytes]
"""(offset, limit) -> bytes of the log from there."""


def forwards(read: Read, needle: bytes, start: int, end: int, chunk: int = CHUNK) -> int | None:
    """Offset of the first line that begins in [start, end) and has `needle` in it, in any case.

    `start` must be the offset of a line's beginning. None when there is no such line.
    """
    wanted = needle.lower()
    line = at = start  # where the current line begins; where the next chunk does
    rest = b""  # of the current line, as much as can be part of a match
    while line < end:
        data = read(at, chunk)
        if not data:
            return None
        held = (rest + data).lower()
        base = at - len(rest)
        hit = held.find(wanted)
        if hit >= 0:
            before = held.rfind(b"\n", 0, hit)
            found = line if before < 0 else base + before + 1
            return found if found < end else None
        at += len(data)
        newline = held.rfind(b"\n")
        if newline >= 0:
            line = base + newline + 1
        rest = held[-(len(wanted) - 1) :] if len(wanted) > 1 else b""
        if newline >= 0 and len(held) - newline - 1 < len(rest):
            rest = held[newline + 1 :]
    return None


def backwards(read: Read, needle: bytes, start: int, end: int, chunk: int = CHUNK) -> int | None:
    """Offset of the last line that begins in [start, end) and has `needle` in it, in any case.

    Both must be offsets of lines' beginnings (`end` may be the log's size).
    """
    wanted = needle.lower()
    at = end
    after = b""  # the first bytes of what was read before, for matches across the edge
    found: int | None = None  # a match whose line begins before what was read
    while at > start:
        low = max(start, at - chunk)
        data = read(low, at - low).lower()
        held = data + after
        if found is None:
            hit = held.rfind(wanted)
            if hit >= 0:
                found = low + hit
        if found is not None:
            newline = data.rfind(b"\n", 0, max(0, min(found - low, len(data))))
            if newline >= 0:
                return low + newline + 1
        after = held[: len(wanted) - 1]
        at = low
    return None if found is None else start
