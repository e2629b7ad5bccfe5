"""Fewer bytes for a slow link: of a whole screen that is painted again, only the rows that differ.

Textual paints a screen two or three times while it opens: when it is composed, when it has its size,
and when it is resumed. Each time all rows are written, though many are on the terminal already.
"""

from __future__ import annotations

from typing import cast

from rich.console import Console, RenderableType
from textual._compositor import ChopsUpdate, CompositorUpdate, LayoutUpdate
from textual.geometry import Region


class Rows(CompositorUpdate):
    """Some rows of a screen, each at its place."""

    def __init__(self, x: int, rows: dict[int, str]) -> None:
        self._x, self._rows = x, rows

    def render_segments(self, console: Console) -> str:
        """The escape sequences that put the rows where they belong."""
        return "".join(
            f"\x1b[{y + 1};{self._x + 1}H{text}" for y, text in sorted(self._rows.items())
        )


class Frugal:
    """Remembers the rows that stand on the terminal, as long as it is sure of them."""

    def __init__(self) -> None:
        self._region: Region | None = None
        self._rows: dict[int, str] = {}

    def forget(self) -> None:
        """Something else wrote to the terminal."""
        self._region = None
        self._rows = {}

    def less(self, update: RenderableType | None, console: Console) -> RenderableType | None:
        """`update`, or one that leaves the same on the terminal with fewer bytes. What is given back
        must be written."""
        if isinstance(update, ChopsUpdate):
            for y, _, _ in update.spans:  # of these rows only parts are known from here on
                self._rows.pop(y, None)
            return update
        if not isinstance(update, LayoutUpdate):
            if update is not None:
                self.forget()
            return update
        rows = {
            y: "".join(strip.render(console) for strip in line)
            for y, line in enumerate(update.strips, update.region.y)
        }
        held = self._rows if update.region == self._region else {}
        self._region, self._rows = update.region, rows
        changed = {y: text for y, text in rows.items() if held.get(y) != text}
        return cast(RenderableType, Rows(update.region.x, changed))
