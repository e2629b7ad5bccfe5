"""The list of data sets in words: its columns, its order and its filter. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from console.tui.core.base.filter import Filter, parse
from console.tui.core.base.order import Order
from console.tui.core.base.table import Column, in_order
from console.tui.core.cluster.cluster import natural
from console.tui.core.draw.format import age, size
from console.tui.core.draw.glyphs import Glyphs
from console.tui.core.draw.lines import Line, Span
from jobs.wire.dataviews import DataVersionView


@dataclass(frozen=True, slots=True)
class Row:
    """A version in the list.

    Attributes:
        folded: of the newest one of a data set with several, whether the others are hidden; else None.
        newest: whether it is the newest one. Others stand below it, where they are unfolded.
    """

    view: DataVersionView
    newest: bool
    folded: bool | None = None

    @property
    def id(self) -> str:
        return self.view["id"]


def in_rows(
    newest: Sequence[DataVersionView], older: Mapping[str, Sequence[DataVersionView]]
) -> list[Row]:
    """The rows of what was read: the newest version of each data set, and `older` ones by its name."""
    out: list[Row] = []
    for view in newest:
        several = view.get("versions", 1) > 1
        folded = view["name"] not in older if several else None
        out.append(Row(view, newest=True, folded=folded))
        out += [
            Row(one, newest=False)
            for one in older.get(view["name"], ())
            if one["version"] < view["version"]
        ]
    return out


def _name(row: Row, now: float, glyphs: Glyphs) -> tuple[str, str]:
    if not row.newest:
        return f"    {row.id}", ""
    if row.folded is None:
        return f"  {row.id}", "strong"
    return f"{glyphs.crumb if row.folded else glyphs.down} {row.id}", "strong"


def _versions(row: Row, now: float, glyphs: Glyphs) -> tuple[str, str]:
    return (str(row.view.get("versions", 1)), "") if row.newest else ("", "")


def _rows(row: Row, now: float, glyphs: Glyphs) -> tuple[str, str]:
    rows = row.view.get("rows")
    return ("-", "dim") if rows is None else (f"{rows:,}", "")


COLUMNS: tuple[Column[Row], ...] = (
    Column("data set", 18, _name, grow=2, order=lambda r: natural(r.view["name"])),
    Column("versions", 8, _versions, right=True, order=lambda r: r.view.get("versions", 1)),
    Column("size", 5, lambda r, n, g: (size(r.view["bytes"]), ""), right=True,
           order=lambda r: r.view["bytes"]),
    Column("files", 7, lambda r, n, g: (f"{r.view['files']:,}", ""), right=True,
           order=lambda r: r.view["files"]),
    Column("rows", 11, _rows, rank=1, right=True, order=lambda r: r.view.get("rows")),
    Column("added", 5, lambda r, n, g: (age(r.view["created_at"], n), "dim"), right=True,
           order=lambda r: r.view["created_at"]),
    Column("by", 8, lambda r, n, g: (r.view["user"], "dim"), rank=2, order=lambda r: r.view["user"]),
    Column("note", 12, lambda r, n, g: (r.view["note"] or "-", "dim"), rank=1, grow=3),
    Column("from", 12, lambda r, n, g: (r.view["source"], "dim"), rank=3, grow=2),
)  # fmt: skip

FIELDS: Mapping[str, Callable[[Row], Any]] = {
    "name": lambda r: r.view["name"],
    "version": lambda r: r.view["version"],
    "versions": lambda r: r.view.get("versions", 1),
    "user": lambda r: r.view["user"],
    "files": lambda r: r.view["files"],
    "size": lambda r: r.view["bytes"],
    "rows": lambda r: r.view.get("rows"),
}


def _anywhere(row: Row) -> str:
    view = row.view
    return " ".join((view["id"], view["note"], view["user"], view["source"]))


def data_filter(text: str) -> Filter[Row]:
    return parse(text, FIELDS, _anywhere)


def rows(known: Mapping[str, Row], wanted: Filter[Row], order: Order | None = None) -> list[str]:
    """Ids that match, in an order; by default by name. Older versions stay below their newest one, and
    are shown with it."""
    below: dict[str, list[Row]] = {}
    newest: list[Row] = []
    for row in known.values():
        if row.newest:
            newest.append(row)
        else:
            below.setdefault(row.view["name"], []).append(row)
    found = [
        row
        for row in newest
        if wanted.matches(row) or any(map(wanted.matches, below.get(row.view["name"], ())))
    ]
    found.sort(key=lambda row: natural(row.view["name"]))
    out: list[str] = []
    for row in in_order(found, COLUMNS, order):
        older = sorted(below.get(row.view["name"], ()), key=lambda r: -r.view["version"])
        out += [row.id, *(one.id for one in older)]
    return out


def totals(known: Mapping[str, Row]) -> Line:
    """What all data sets come to; nothing where there are none."""
    newest = [row for row in known.values() if row.newest]
    if not newest:
        return ()
    versions = sum(row.view.get("versions", 1) for row in newest)
    held = size(sum(row.view["bytes"] for row in newest))
    return (Span(f"{versions} versions, the newest ones {held}", "dim"),)


def before(chosen: Sequence[Row], known: Mapping[str, Row]) -> tuple[str, str] | str:
    """The two versions to compare, the older one first: those that are marked, else the one under the
    cursor with the one before it. Or why there are no two."""
    if len(chosen) == 2:
        first, second = sorted(chosen, key=lambda row: (row.view["name"], row.view["version"]))
        return first.id, second.id
    if len(chosen) != 1:
        return "Mark two versions with space, or none to compare with the one before."
    view = chosen[0].view
    if view["version"] == 1:
        return f"{view['id']} is the first version. Mark two to compare them."
    return f"{view['name']}@{view['version'] - 1}", view["id"]
