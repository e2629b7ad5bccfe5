"""Cells of equal width in as many columns as fit, with a cursor: the heat map and the rank strip."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from textual.geometry import Size

from console.tui.core.draw.lines import Line, Span
from console.tui.widgets.marks import Marked

CellLine = Callable[[str, bool], Line]


class Grid(Marked):
    """Items known by their keys, laid out down the columns (`by_column`) or along the rows.

    `cell(key, selected)` gives an item's line of `cell_width` cells.
    """

    def __init__(self, cell: CellLine, *, by_column: bool, id: str | None = None) -> None:
        super().__init__(id=id)
        self._cell = cell
        self._by_column = by_column
        self._cell_width = 1

    def set_cells(self, keys: Sequence[str], cell_width: int, empty: Sequence[Line] = ()) -> None:
        """Show these items; `empty` is what stands there when there are none."""
        self._cell_width = max(1, cell_width)
        self._set_items(keys, empty)

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

    def _line_of(self, index: int) -> int:
        return self._place(index)[0]

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

    def _jump(self, by: int) -> None:
        self._step(by, 0)

    def _item_at(self, x: int, y: int) -> int:
        return self._index(y, x // self._cell_width)
