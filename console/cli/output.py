"""Where the words of a command go: data on stdout, narration on stderr.

The streams are looked up at each call, so that whoever replaces them (a test, a pager) is heard.
"""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass, replace
from typing import Any, TextIO

from console.text import cut, neutralise, pad, width
from jobs.base.numbers import dumps

_CODES = {
    "bold": "1",
    "dim": "2",
    "red": "31",
    "green": "32",
    "yellow": "33",
    "blue": "34",
    "magenta": "35",
    "cyan": "36",
}
_STATES = {
    "SUCCEEDED": "green",
    "RUNNING": "cyan",
    "STAGING": "blue",
    "PLACING": "blue",
    "QUEUED": "yellow",
    "STOPPING": "yellow",
    "FAILED": "red",
    "CANCELLED": "magenta",
    "PREEMPTED": "yellow",
    "LOST": "red",
    "READY": "green",
    "DRAINING": "yellow",
    "DRAINED": "yellow",
    "SUSPECT": "yellow",
    "QUARANTINED": "red",
    "EXITED": "dim",
    "PENDING": "yellow",
    "COMPLETE": "green",
    "DONE": "green",
    "FINISHED": "green",
    "PRUNED": "dim",
    "PAUSED": "yellow",
    "WAITING": "dim",
    "ACTIVE": "green",
    "FIRING": "red",
    "RESOLVED": "green",
    "STARTED": "green",
    "MISSED": "yellow",
    "CACHED": "green",
    "SKIPPED": "dim",
    "APPROVED": "green",
    "REJECTED": "red",
    "ARCHIVED": "dim",
    "holds": "green",
    "fails": "red",
    "ok": "green",
    "degraded": "yellow",
    "unreachable": "red",
}
_NARROWEST = 8
"""Columns below which a cell is not cut, to keep a table readable on a very narrow terminal."""


def emit(document: Any) -> None:
    """Write the one JSON document of a command. ASCII only, so no terminal or encoding minds."""
    indent = 2 if sys.stdout.isatty() else None
    print(dumps(document, indent=indent), flush=True)


def emit_line(document: Any, *, flush: bool = True) -> None:
    """Write one document of a stream; at once, unless many more are known to follow."""
    print(dumps(document), flush=flush)


def say(text: str = "") -> None:
    """Write a line for people on stdout."""
    print(text)


def narrate(text: str) -> None:
    """Write a line about what happens on stderr; controls in it are made visible."""
    print(neutralise(text), file=sys.stderr, flush=True)


def coloured(stream: TextIO) -> bool:
    """Whether colour is welcome there: a terminal, and nobody said no (https://no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def paint(text: str, colour: str, stream: TextIO | None = None) -> str:
    """`text` in a colour of `_CODES`, where the stream (stdout) takes colour."""
    if not colour or not coloured(stream or sys.stdout):
        return text
    return f"\x1b[{_CODES[colour]}m{text}\x1b[0m"


def state_colour(state: str) -> str:
    return _STATES.get(state, "")


def paint_state(state: str) -> str:
    """A state in its colour. The word always stays: colour only repeats it."""
    return paint(neutralise(state), state_colour(state))


def terminal_width() -> int | None:
    """How many columns stdout has; None when it is no terminal, where nothing is cut."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table.

    Args:
        title: its heading.
        right: flush right, for numbers.
        flex: may be cut when the terminal is too narrow for the whole table.
        states: holds states, which have colours.
    """

    title: str
    right: bool = False
    flex: bool = False
    states: bool = False


def table(columns: list[Column], rows: list[list[str]], room: int | None) -> list[str]:
    """The lines of an aligned table, heading first.

    Args:
        rows: one text per column; controls are made visible here, as in headings.
        room: columns that a line may take; None: as many as it needs.
    """
    columns = [replace(column, title=neutralise(column.title)) for column in columns]
    cells = [[neutralise(text).replace("\t", " ") for text in row] for row in rows]
    widths = [
        max([width(column.title), *(width(row[i]) for row in cells)])
        for i, column in enumerate(columns)
    ]
    if room is not None:
        _shrink(widths, columns, room)
    lines = [_line([column.title for column in columns], columns, widths, room, heading=True)]
    return lines + [_line(row, columns, widths, room) for row in cells]


def _shrink(widths: list[int], columns: list[Column], room: int) -> None:
    """Take what is too much from the flexible columns, the widest first."""
    excess = sum(widths) + 2 * (len(widths) - 1) - room
    flexible = [i for i, column in enumerate(columns) if column.flex]
    while excess > 0 and flexible:
        widest = max(flexible, key=lambda i: widths[i])
        if widths[widest] <= _NARROWEST:
            return
        widths[widest] -= 1
        excess -= 1


def _line(
    texts: list[str],
    columns: list[Column],
    widths: list[int],
    room: int | None,
    *,
    heading: bool = False,
) -> str:
    left = room
    parts: list[str] = []
    for text, column, wide in zip(texts, columns, widths, strict=True):
        cell = pad(cut(text, wide), wide, right=column.right)
        if left is not None:
            cell = cut(cell, left)
            left = max(0, left - width(cell) - 2)
        colour = "dim" if heading else state_colour(text) if column.states else ""
        bare = cell.strip()
        parts.append(cell.replace(bare, paint(bare, colour), 1) if bare else cell)
        if left == 0:
            break
    return "  ".join(parts).rstrip()


def show(columns: list[Column], rows: list[list[str]]) -> None:
    """Write a table on stdout, as wide as the terminal or as its content."""
    for line in table(columns, rows, terminal_width()):
        say(line)
