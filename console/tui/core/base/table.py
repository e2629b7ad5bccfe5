"""Columns that fit themselves into a width. Pure; used by every table of the console."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from console.tui.core.base.order import Order, arranged
from console.tui.core.draw.glyphs import Glyphs
from console.tui.core.draw.lines import Line, Span, fit

Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class Column(Generic[Row]):
    """One column.

    Attributes:
        title: its head.
        width: cells at least.
        cell: the row's text and tone, at a moment (seconds since the epoch).
        rank: 0 is always shown; greater ones are dropped first when the width is short.
        grow: its share of the cells that are left over; 0 keeps the width.
        right: flush right, for numbers.
        order: what rows are sorted by; None when sorting by it would say nothing.
    """

    title: str
    width: int
    cell: Callable[[Row, float, Glyphs], tuple[str, str]]
    rank: int = 0
    grow: int = 0
    right: bool = False
    order: Callable[[Row], Any] | None = None


def arrange(columns: Sequence[Column[Row]], width: int) -> list[tuple[Column[Row], int]]:
    """The columns that fit, in order, with their widths; one space goes between two."""
    chosen = list(columns)
    while len(chosen) > 1 and sum(c.width + 1 for c in chosen) > width:
        worst = max(c.rank for c in chosen)
        if worst == 0:
            break
        last = max(i for i, c in enumerate(chosen) if c.rank == worst)
        del chosen[last]
    spare = max(0, width - sum(c.width + 1 for c in chosen))
    shares = sum(c.grow for c in chosen)
    out: list[tuple[Column[Row], int]] = []
    for column in chosen:
        extra = spare * column.grow // shares if shares else 0
        out.append((column, column.width + extra))
    return out


def head(
    layout: Sequence[tuple[Column[Row], int]], glyphs: Glyphs, order: Order | None = None
) -> Line:
    """The columns' names; an arrow after the one that rows are sorted by."""
    by = order or Order()
    arrow = glyphs.down if by.descending else glyphs.up
    out: list[Span] = [Span(" ")]
    for column, width in layout:
        sorted_by = column.title == by.column
        title = fit(column.title, width, right=column.right, ellipsis=glyphs.ellipsis)
        text = fit(title.rstrip() + (arrow if sorted_by else ""), width + 1)
        out.append(Span(text, "key" if sorted_by else "dim"))
    return tuple(out)


def column_at(layout: Sequence[tuple[Column[Row], int]], x: int) -> Column[Row] | None:
    """The column whose head is drawn at cell `x`."""
    at = 1
    for column, width in layout:
        if at <= x <= at + width:
            return column
        at += width + 1
    return None


def sortable(columns: Sequence[Column[Row]]) -> tuple[str, ...]:
    """Titles of the columns that rows can be sorted by."""
    return tuple(column.title for column in columns if column.order is not None)


def in_order(rows: Iterable[Row], columns: Sequence[Column[Row]], order: Order | None) -> list[Row]:
    """The rows sorted by one of the columns; as they come where the order names none of them."""
    by = next((c.order for c in columns if order is not None and c.title == order.column), None)
    if order is None or by is None:
        return list(rows)
    return arranged(rows, by, descending=order.descending)


def row_line(
    row: Row, layout: Sequence[tuple[Column[Row], int]], now: float, glyphs: Glyphs
) -> Line:
    out: list[Span] = [Span(" ")]
    for column, width in layout:
        text, tone = column.cell(row, now, glyphs)
        # The space between columns belongs to the cell: a change of style costs bytes on the wire.
        out.append(Span(fit(text, width, right=column.right, ellipsis=glyphs.ellipsis) + " ", tone))
    return tuple(out)
