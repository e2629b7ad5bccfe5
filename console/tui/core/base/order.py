"""The order of a table's rows: by a column, either way, and stable. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class Order:
    """By which column rows are sorted; an empty one keeps the table's own order."""

    column: str = ""
    descending: bool = False

    def next(self, columns: Sequence[str]) -> Order:
        """By the column after this one; after the last one, the table's own order again."""
        at = columns.index(self.column) if self.column in columns else -1
        return Order(columns[at + 1]) if at + 1 < len(columns) else Order()

    def turned(self) -> Order:
        """The other way round; the table's own order stays as it is."""
        return replace(self, descending=not self.descending) if self.column else self

    def picked(self, column: str) -> Order:
        """By the column that was clicked; a second click turns it round."""
        return self.turned() if column == self.column else Order(column)

    @property
    def words(self) -> list[str]:
        """For a title; nothing for the table's own order."""
        return [f"by {self.column}" + (" down" if self.descending else "")] if self.column else []

    @property
    def text(self) -> str:
        """As it is kept between sessions: `name`, `-gpus`, or nothing."""
        return ("-" if self.descending else "") + self.column

    @classmethod
    def parse(cls, text: str, columns: Sequence[str]) -> Order:
        """What `text` wrote; the table's own order when there is no such column."""
        name = text.removeprefix("-")
        return cls(name, text.startswith("-")) if name in columns else cls()


def arranged(rows: Iterable[Row], key: Callable[[Row], Any], *, descending: bool) -> list[Row]:
    """Rows by `key`, equal ones in the order in which they came, those without a value last."""
    known: list[tuple[Any, Row]] = []
    unknown: list[Row] = []
    for row in rows:
        value = key(row)
        if value is None:
            unknown.append(row)
        else:
            known.append((value, row))
    # `reverse` keeps equal rows in their order, so the sort is stable both ways.
    known.sort(key=lambda pair: pair[0], reverse=descending)
    return [row for _, row in known] + unknown
