"""Marks on the items of a list or a grid: one by one, or a range from an anchor to the cursor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from textual.message import Message

from console.tui.widgets.lines import LineView


class Marked(LineView):
    """A view of items known by their keys, with a cursor on one of them. An action is done to all that is
    marked, or to the item under the cursor when nothing is.

    A subclass keeps `_keys` and `_places` (key -> index) and moves the cursor in `_move_to`.
    """

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

    def _move_to(self, index: int) -> None:
        raise NotImplementedError

    def _set_items(self, keys: Sequence[str]) -> None:
        """Take other items; the cursor stays on its key, and marks on theirs."""
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
