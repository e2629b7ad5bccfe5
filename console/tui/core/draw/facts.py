"""Facts, one below another: a name, and what there is to say. Pure."""

from __future__ import annotations

from console.text import neutralise
from console.tui.core.draw.lines import BLANK, Line, line, wrap

NAMES = 11
"""Cells for the name of a fact."""


def fact(name: str, said: str, width: int, tone: str = "") -> list[Line]:
    """A fact, wrapped beside its name; nothing where there is nothing to say."""
    pieces = wrap(neutralise(said), width - NAMES - 2)
    return [
        line((f"  {name if index == 0 else '':<{NAMES}}", "dim"), (piece, tone))
        for index, piece in enumerate(pieces)
    ]


def section(title: str, body: list[Line]) -> list[Line]:
    """A heading and what is below it, after a blank line; nothing where nothing is below it."""
    return [BLANK, line((title, "strong")), *body] if body else []
