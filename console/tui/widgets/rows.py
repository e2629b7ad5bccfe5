"""A list with a cursor, of any length: only what is visible is ever worked out."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from textual import events
from textual.geometry import Region
from textual.message import Message

from console.tui.core.lines import BLANK, Line, Span
from console.tui.widgets.marks import Marked

RowLine = Callable[[str, int], Line]


class Rows(Marked):
    """Rows known by their keys.

    The cursor stays on its key when rows come, go or change places; when its key goes, it stays where
    it was. `row(key, width)` gives a row's line. Rows can be marked one by one, or a range of them from
    an anchor to the cursor, for an action that is done to all of them.
    """

    class Opened(Message):
        """Enter or a second click on a row."""

        def __init__(self, rows: Rows, key: str) -> None:
            super().__init__()
            self.rows = rows
            self.key = key

        @property
        def control(self) -> Rows:
            return self.rows

    class Moved(Message):
        """The cursor is on another row."""

        def __init__(self, rows: Rows, key: str) -> None:
            super().__init__()
            self.rows = rows
            self.key = key

        @property
        def control(self) -> Rows:
            return self.rows

    def __init__(self, row: RowLine, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._row = row
        self._empty: Sequence[Line] = ()

    def set_keys(self, keys: Sequence[str], empty: Sequence[Line] = ()) -> None:
        """Show these rows; `empty` is what stands there when there are none."""
        self._empty = empty
        if keys != self._keys:
            self._set_items(keys)
        self.update_lines()

    def select(self, key: str) -> None:
        """Put the cursor on a key, if it is there."""
        if key in self._places:
            self._move_to(self._places[key])

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

    def _move_to(self, index: int) -> None:
        if not self._keys:
            return
        before = self._cursor
        self._cursor = max(0, min(index, len(self._keys) - 1))
        self.scroll_to_region(Region(0, self._cursor, 1, 1), animate=False, force=True)
        self.update_lines()
        if self._cursor != before:
            self.post_message(self.Moved(self, self._keys[self._cursor]))
            if self._anchor is not None:
                self.post_message(self.Marks(self))

    def do_move_down(self) -> None:
        self._move_to(self._cursor + 1)

    def do_move_up(self) -> None:
        self._move_to(self._cursor - 1)

    def do_move_top(self) -> None:
        self._move_to(0)

    def do_move_bottom(self) -> None:
        self._move_to(len(self._keys) - 1)

    def _jump(self, by: int) -> None:
        self._move_to(self._cursor + by)

    def do_row_open(self) -> None:
        if self.cursor_key is not None:
            self.post_message(self.Opened(self, self.cursor_key))

    def on_click(self, event: events.Click) -> None:
        index = event.y + self.scroll_offset.y
        if 0 <= index < len(self._keys):
            if index == self._cursor and event.chain > 1:
                self.do_row_open()
            self._move_to(index)

    def on_focus(self) -> None:
        self.update_lines()

    def on_blur(self) -> None:
        self.update_lines()

    def on_resize(self, event: events.Resize) -> None:
        self.update_lines()
