"""A list with a cursor, of any length: only what is visible is ever worked out."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from textual import events
from textual.geometry import Region
from textual.message import Message

from console.tui.core.lines import BLANK, Line, Span
from console.tui.widgets.lines import LineView

RowLine = Callable[[str, int], Line]


class Rows(LineView):
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

    class Marked(Message):
        """Other rows are marked than before."""

        def __init__(self, rows: Rows) -> None:
            super().__init__()
            self.rows = rows

        @property
        def control(self) -> Rows:
            return self.rows

    def __init__(self, row: RowLine, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._row = row
        self._keys: Sequence[str] = ()
        self._places: dict[str, int] = {}
        self._cursor = 0
        self._empty: Sequence[Line] = ()
        self._marks: set[str] = set()
        self._anchor: str | None = None  # where a range began that still grows with the cursor

    @property
    def keys(self) -> Sequence[str]:
        return self._keys

    @property
    def cursor_key(self) -> str | None:
        """The key that the cursor is on; None in an empty list."""
        return self._keys[self._cursor] if self._keys else None

    @property
    def marked(self) -> list[str]:
        """Keys that are marked, those of a growing range with them, in the order of the rows."""
        marks = self._marks | self._ranged()
        return [key for key in self._keys if key in marks] if marks else []

    def _ranged(self) -> set[str]:
        if self._anchor not in self._places:
            return set()
        ends = sorted((self._places[self._anchor], self._cursor))
        return set(self._keys[ends[0] : ends[1] + 1])

    def clear_marks(self) -> None:
        self._marks.clear()
        self._anchor = None
        self.update_lines()

    def do_row_mark(self) -> None:
        """Mark the row under the cursor, or take its mark away, and go on to the next."""
        if self.cursor_key is not None:
            self._marks ^= {self.cursor_key}
            self._move_to(self._cursor + 1)
            self.post_message(self.Marked(self))

    def do_row_range(self) -> None:
        """Begin a range at the cursor; the second time, keep what it has reached."""
        if self._anchor is None:
            self._anchor = self.cursor_key
        else:
            self._marks |= self._ranged()
            self._anchor = None
        self.update_lines()
        self.post_message(self.Marked(self))

    def set_keys(self, keys: Sequence[str], empty: Sequence[Line] = ()) -> None:
        """Show these rows; `empty` is what stands there when there are none."""
        self._empty = empty
        if keys != self._keys:
            held = self.cursor_key
            self._keys = keys
            self._places = {key: index for index, key in enumerate(keys)}
            place = self._places.get(held, self._cursor) if held is not None else 0
            self._cursor = max(0, min(place, len(keys) - 1))
            self._marks &= self._places.keys()
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

    def _is_marked(self, index: int) -> bool:
        if self._keys[index] in self._marks:
            return True
        anchor = None if self._anchor is None else self._places.get(self._anchor)
        return anchor is not None and (
            min(anchor, self._cursor) <= index <= max(anchor, self._cursor)
        )

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
                self.post_message(self.Marked(self))

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
