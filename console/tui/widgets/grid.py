"""Cells of equal width in as many columns as fit, with a cursor: the heat map and the rank strip."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from textual import events
from textual.geometry import Region, Size
from textual.message import Message

from console.tui.core.lines import Line, Span
from console.tui.widgets.marks import Marked

CellLine = Callable[[str, bool], Line]


class Grid(Marked):
    """Items known by their keys, laid out down the columns (`by_column`) or along the rows.

    `cell(key, selected)` gives an item's line of `cell_width` cells.
    """

    class Opened(Message):
        def __init__(self, grid: Grid, key: str) -> None:
            super().__init__()
            self.grid = grid
            self.key = key

        @property
        def control(self) -> Grid:
            return self.grid

    class Moved(Message):
        def __init__(self, grid: Grid, key: str) -> None:
            super().__init__()
            self.grid = grid
            self.key = key

        @property
        def control(self) -> Grid:
            return self.grid

    def __init__(self, cell: CellLine, *, by_column: bool, id: str | None = None) -> None:
        super().__init__(id=id)
        self._cell = cell
        self._by_column = by_column
        self._cell_width = 1
        self._empty: Sequence[Line] = ()

    def set_cells(self, keys: Sequence[str], cell_width: int, empty: Sequence[Line] = ()) -> None:
        """Show these items; `empty` is what stands there when there are none."""
        self._cell_width = max(1, cell_width)
        self._empty = empty
        if keys != self._keys:
            self._set_items(keys)
        self.update_lines()

    def select(self, key: str) -> None:
        """Put the cursor on a key, if it is there."""
        if key in self._places:
            self._move_to(self._places[key])

    @property
    def columns(self) -> int:
        return max(1, self.room.width // self._cell_width)

    def overflows(self, size: Size) -> bool:
        return self.rows_needed(size.width) > size.height

    def rows_needed(self, width: int) -> int:
        """Lines that the grid takes at a width."""
        columns = max(1, width // self._cell_width)
        return -(-len(self._keys) // columns)

    def count(self) -> int:
        return -(-len(self._keys) // self.columns) if self._keys else len(self._empty)

    def _index(self, row: int, column: int) -> int:
        if self._by_column:
            return column * self.count() + row
        return row * self.columns + column

    def _place(self, index: int) -> tuple[int, int]:
        """(row, column) of an item."""
        if self._by_column:
            column, row = divmod(index, max(1, self.count()))
            return row, column
        return divmod(index, self.columns)

    def line_at(self, index: int) -> Line:
        if not self._keys:
            return self._empty[index]
        out: list[Span] = []
        for column in range(self.columns):
            item = self._index(index, column)
            if item < len(self._keys):
                cell = self._cell(self._keys[item], item == self._cursor)
                out.extend(self._with_mark(cell, item) if self._is_marked(item) else cell)
        return tuple(out)

    def _with_mark(self, cell: Line, item: int) -> Line:
        """The cell's first column is left free for cursor and mark."""
        first, *rest = cell
        at_cursor = item == self._cursor
        lead = self.glyphs.cursor if at_cursor else self.glyphs.mark
        return (
            Span(lead, "found" if at_cursor else "key"),
            Span(first.text[1:], first.tone),
            *rest,
        )

    def _move_to(self, index: int) -> None:
        if not self._keys:
            return
        before = self._cursor
        self._cursor = max(0, min(index, len(self._keys) - 1))
        self.scroll_to_region(
            Region(0, self._place(self._cursor)[0], 1, 1), animate=False, force=True
        )
        self.update_lines()
        if self._cursor != before:
            self.post_message(self.Moved(self, self._keys[self._cursor]))
            if self._anchor is not None:
                self.post_message(self.Marks(self))

    def _step(self, rows: int, columns: int) -> None:
        """Move by rows and columns, staying where there is an item."""
        row, column = self._place(self._cursor)
        row = max(0, min(row + rows, self.count() - 1))
        column = max(0, min(column + columns, self.columns - 1))
        wanted = self._index(row, column)
        if wanted < len(self._keys) or rows > 0:
            self._move_to(wanted)

    def do_move_down(self) -> None:
        self._step(1, 0)

    def do_move_up(self) -> None:
        self._step(-1, 0)

    def do_move_left(self) -> None:
        self._step(0, -1)

    def do_move_right(self) -> None:
        self._step(0, 1)

    def do_move_top(self) -> None:
        self._move_to(0)

    def do_move_bottom(self) -> None:
        self._move_to(len(self._keys) - 1)

    def _jump(self, by: int) -> None:
        self._step(by, 0)

    def do_row_open(self) -> None:
        if self.cursor_key is not None:
            self.post_message(self.Opened(self, self.cursor_key))

    def on_click(self, event: events.Click) -> None:
        index = self._index(event.y + self.scroll_offset.y, event.x // self._cell_width)
        if 0 <= index < len(self._keys):
            if index == self._cursor and event.chain > 1:
                self.do_row_open()
            self._move_to(index)

    def on_resize(self, event: events.Resize) -> None:
        self.update_lines()
