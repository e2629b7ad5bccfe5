"""A list with a cursor, of any length: only what is visible is ever worked out."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from console.tui.core.draw.lines import BLANK, Line, Span
from console.tui.widgets.marks import Marked

RowLine = Callable[[str, int], Line]


class Rows(Marked):
    """Rows known by their keys.

    The cursor stays on its key when rows come, go or change places; when its key goes, it stays where
    it was. `row(key, width)` gives a row's line. Rows can be marked one by one, or a range of them from
    an anchor to the cursor, for an action that is done to all of them.
    """

    def __init__(self, row: RowLine, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._row = row

    def set_keys(self, keys: Sequence[str], empty: Sequence[Line] = ()) -> None:
        """Show these rows; `empty` is what stands there when there are none."""
        self._set_items(keys, empty)

    def count(self) -> int:
        return len(self._keys) or len(self._empty)

    def line_at(self, index: int) -> Line:
        if not self._keys:
            return self._empty[index]
        parts = self._row(self._keys[index], self.room.width)
        if not parts:
            return BLANK
        # The row's first cell is left free for cursor and mark, which must not hang on colour.
        marked = self._is_marked(index)
        if index == self._cursor:
            lead = Span(self.glyphs.cursor, "found" if marked else "key")
        elif marked:
            lead = Span(self.glyphs.mark, "key")
        else:
            return parts
        first, *rest = parts
        return (lead, Span(first.text[1:], first.tone), *rest)

    def highlighted(self, index: int) -> bool:
        return bool(self._keys) and index == self._cursor and self.has_focus

    def do_move_down(self) -> None:
        self._move_to(self._cursor + 1)

    def do_move_up(self) -> None:
        self._move_to(self._cursor - 1)

    def step(self, by: int) -> None:
        """Down by one row, or up."""
        self._move_to(self._cursor + (1 if by > 0 else -1))

    def _jump(self, by: int) -> None:
        self._move_to(self._cursor + by)

    def on_focus(self) -> None:
        self.update_lines()

    def on_blur(self) -> None:
        self.update_lines()
