"""Items with a cursor on one of them, which are marked one by one, or as a range from an anchor to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from textual import events
from textual.geometry import Region
from textual.message import Message

from console.tui.core.draw.lines import Line
from console.tui.widgets.lines import LineView


class Marked(LineView):
    """A view of items known by their keys, with a cursor on one of them. An action is done to all that is
    marked, or to the item under the cursor when nothing is.

    A subclass says where an item is drawn (`_line_of`, `_item_at`).
    """

    class _Told(Message):
        """Something happened to an item."""

        def __init__(self, view: Marked, key: str) -> None:
            super().__init__()
            self.view = view
            self.key = key

        @property
        def control(self) -> Marked:
            return self.view

    class Opened(_Told):
        """Enter or a second click on an item."""

    class Moved(_Told):
        """The cursor is on another item."""

    class Marks(Message):
        """Other items are marked than before."""

        def __init__(self, view: Marked) -> None:
            super().__init__()
            self.view = view

        @property
        def control(self) -> Marked:
            return self.view

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._keys: Sequence[str] = ()
        self._empty: Sequence[Line] = ()  # what stands there when there are no items
        self._places: Mapping[str, int] = {}
        self._cursor = 0
        self._marks: set[str] = set()
        self._anchor: str | None = None  # where a range began that still grows with the cursor

    @property
    def keys(self) -> Sequence[str]:
        return self._keys

    @property
    def cursor_key(self) -> str | None:
        """The key that the cursor is on; None when there are no items."""
        return self._keys[self._cursor] if self._keys else None

    @property
    def marked(self) -> list[str]:
        """Keys that are marked, those of a growing range with them, in the order of the items."""
        marks = self._marks | self._ranged()
        return [key for key in self._keys if key in marks] if marks else []

    @property
    def chosen(self) -> list[str]:
        """What an action is done to: all that is marked, else what the cursor is on."""
        return self.marked or [key for key in (self.cursor_key,) if key is not None]

    def clear_marks(self) -> None:
        self._marks.clear()
        self._anchor = None
        self.update_lines()
        self.post_message(self.Marks(self))

    def do_row_mark(self) -> None:
        """Mark the item under the cursor, or take its mark away, and go on to the next."""
        if self.cursor_key is not None:
            self._marks ^= {self.cursor_key}
            self._move_to(self._cursor + 1)
            self.update_lines()
            self.post_message(self.Marks(self))

    def do_row_range(self) -> None:
        """Begin a range at the cursor; the second time, keep what it has reached."""
        if self._anchor is None:
            self._anchor = self.cursor_key
        else:
            self._marks |= self._ranged()
            self._anchor = None
        self.update_lines()
        self.post_message(self.Marks(self))

    def select(self, key: str) -> None:
        """Put the cursor on a key, if it is there."""
        if key in self._places:
            self._move_to(self._places[key])

    def do_move_top(self) -> None:
        self._move_to(0)

    def do_move_bottom(self) -> None:
        self._move_to(len(self._keys) - 1)

    def do_row_open(self) -> None:
        if self.cursor_key is not None:
            self.post_message(self.Opened(self, self.cursor_key))

    def on_click(self, event: events.Click) -> None:
        spot = event.get_content_offset(self)
        if spot is None:
            return  # its title
        index = self._item_at(spot.x, spot.y + self.scroll_offset.y)
        if 0 <= index < len(self._keys):
            if index == self._cursor and event.chain > 1:
                self.do_row_open()
            self._move_to(index)

    def on_resize(self, event: events.Resize) -> None:
        self.update_lines()

    # Where an item is drawn.

    def _line_of(self, index: int) -> int:
        """The line that an item stands in."""
        return index

    def _item_at(self, x: int, y: int) -> int:
        """The index of the item at a cell of what is scrolled through; none may be there."""
        return y

    def _move_to(self, index: int) -> None:
        """Put the cursor on an item, the nearest that there is, and scroll there."""
        if not self._keys:
            return
        before = self._cursor
        self._cursor = max(0, min(index, len(self._keys) - 1))
        self.scroll_to_region(
            Region(0, self._line_of(self._cursor), 1, 1), animate=False, force=True
        )
        self.update_lines()
        if self._cursor != before:
            self.post_message(self.Moved(self, self._keys[self._cursor]))
            if self._anchor is not None:
                self.post_message(self.Marks(self))

    def _set_items(self, keys: Sequence[str], empty: Sequence[Line]) -> None:
        """Show other items; the cursor stays on its key, and marks on theirs."""
        self._empty = empty
        if keys != self._keys:
            self._replace(keys)
        self.update_lines()

    def _replace(self, keys: Sequence[str]) -> None:
        held = self.cursor_key
        self._keys = keys
        self._places = {key: index for index, key in enumerate(keys)}
        place = self._places.get(held, self._cursor) if held is not None else 0
        self._cursor = max(0, min(place, len(keys) - 1))
        self._marks &= self._places.keys()

    def _ranged(self) -> set[str]:
        if self._anchor is None or self._anchor not in self._places:
            return set()
        ends = sorted((self._places[self._anchor], self._cursor))
        return set(self._keys[ends[0] : ends[1] + 1])

    def _is_marked(self, index: int) -> bool:
        if self._keys[index] in self._marks:
            return True
        anchor = None if self._anchor is None else self._places.get(self._anchor)
        return anchor is not None and (
            min(anchor, self._cursor) <= index <= max(anchor, self._cursor)
        )
