"""The vocabulary between the core and the widgets: lines of toned text.

The core says *what* a piece of text is ("warn", "load4", "key"); `console.tui.theme` says how that looks
in the current theme, with or without colour. So everything on screen can be tested as plain values.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from typing import NamedTuple

from rich.cells import cell_len, chop_cells, set_cell_size

from console.text import neutralise
from console.tui.core.draw.glyphs import Glyphs


class Span(NamedTuple):
    """Text, and what it means. An empty tone is the pane's own foreground."""

    text: str
    tone: str = ""


Line = tuple[Span, ...]

BLANK: Line = ()

TONES = (
    "",
    "dim",
    "faint",
    "strong",
    "key",
    "ok",
    "info",
    "warn",
    "error",
    "accent",
    "found",
    "cursor",
    "load0",
    "load1",
    "load2",
    "load3",
    "load4",
)
"""Every tone there is; a theme that lacks one fails its test."""


def line(*parts: str | tuple[str, str]) -> Line:
    """A line from plain strings and (text, tone) pairs; empty ones are dropped."""
    spans = (Span(part) if isinstance(part, str) else Span(*part) for part in parts)
    return tuple(span for span in spans if span.text)


def plain(parts: Iterable[Span]) -> str:
    """The text of a line without its tones."""
    return "".join(span.text for span in parts)


def titled(text: str) -> str:
    """`text`, made safe, as a pane's title: it may hold names from outside, and no markup is meant."""
    return neutralise(text).replace("[", "(").replace("]", ")")


def width(parts: Iterable[Span]) -> int:
    """Cells that a line takes."""
    return sum(cell_len(span.text) for span in parts)


def fit(text: str, cells: int, *, right: bool = False, ellipsis: str = "…") -> str:
    """`text`, made safe, in exactly `cells` cells: padded, or cut with an ellipsis so that a cut is
    never silent."""
    if cells <= 0:
        return ""
    text = neutralise(text)
    size = cell_len(text)
    if size > cells:
        return set_cell_size(text, cells - 1) + ellipsis
    pad = " " * (cells - size)
    return pad + text if right else text + pad


def crop(parts: Line, start: int, cells: int) -> Line:
    """The window of `cells` cells from cell `start` on. A wide character that the edge would halve
    becomes spaces, so that columns stay where they are."""
    out: list[Span] = []
    at = 0
    end = start + cells
    for text, tone in parts:
        size = cell_len(text)
        if at >= end:
            break
        if at + size > start:
            piece = _crop_text(text, max(0, start - at), min(size, end - at))
            out.append(Span(piece, tone))
        at += size
    return tuple(out)


def window(parts: Line, start: int, cells: int, glyphs: Glyphs) -> Line:
    """As `crop`, with a sign at each edge beyond which the line goes on."""
    out = crop(parts, start, cells)
    if cells < 2:
        return out
    if (
        width(parts) > start + cells
        and plain(crop(parts, start + cells, len(plain(parts)) * 2)).strip()
    ):
        out = (*crop(out, 0, cells - 1), Span(glyphs.more, "key"))
    if start and plain(crop(parts, 0, start)).strip():
        out = (Span(glyphs.less, "key"), *crop(out, 1, cells - 1))
    return out


def _crop_text(text: str, start: int, end: int) -> str:
    if text.isascii():
        return text[start:end]
    out: list[str] = []
    at = 0
    for char in text:
        size = cell_len(char)
        if at >= end:
            break
        if at >= start and at + size <= end:
            out.append(char)
        elif at + size > start:
            out.append(" " * (min(at + size, end) - max(at, start)))
        at += size
    return "".join(out)


def wrap(text: str, cells: int) -> list[str]:
    """`text` broken at spaces into lines of at most `cells` cells; a longer word is chopped."""
    if cells <= 0:
        return []
    out: list[str] = []
    current = ""
    for word in text.split():
        for piece in chop_cells(word, cells) if cell_len(word) > cells else [word]:
            if not current:
                current = piece
            elif cell_len(current) + 1 + cell_len(piece) <= cells:
                current += " " + piece
            else:
                out.append(current)
                current = piece
    if current:
        out.append(current)
    return out


def normal(text: str) -> str:
    """NFC, so that a letter and its accent are one cell in every terminal."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)
