"""Profiles, differences and checks as lines of text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from console.cli.format import number, sparkline
from console.cli.output import Column, paint, table, terminal_width
from console.text import neutralise
from jobs.base.words import counted

if TYPE_CHECKING:
    from console.datasets.checks import Result

_COLUMNS = [
    Column("COLUMN", flex=True),
    Column("TYPE"),
    Column("MISSING", right=True),
    Column("DISTINCT", right=True),
    Column("MIN", right=True),
    Column("MEDIAN", right=True),
    Column("MAX", right=True),
    Column("SHAPE"),
    Column("COMMON", flex=True),
]
_NAMED = 20
"""Files of each kind of change that are named."""


def draw(profile: Mapping[str, Any]) -> Iterator[str]:
    """Each table with its columns."""
    for found in profile["tables"]:
        yield f"{paint(neutralise(found['file']), 'bold')}  {counted(found['rows'], 'row')}"
        if "error" in found:
            yield f"  {neutralise(found['error'])}"
            continue
        rows = [_column(view, found["rows"]) for view in found["columns"]]
        yield from table(_COLUMNS, rows, terminal_width())
        yield ""
    if profile.get("more"):
        yield f"and {counted(profile['more'], 'more table')}"


def _column(view: Mapping[str, Any], rows: int) -> list[str]:
    share = f"{view['missing'] / rows:.1%}" if rows and view["missing"] else "-"
    counts = view.get("histogram") or []
    quantiles = view.get("quantiles") or []
    low, high = view.get("min"), view.get("max")
    return [
        neutralise(view["name"]),
        view["type"],
        share,
        f"{view['distinct']:,}",
        neutralise(str(view["first"])) if view.get("first") else _number(low),
        _number(quantiles[2] if quantiles else None),
        neutralise(str(view["last"])) if view.get("last") else _number(high),
        sparkline([float(count) for count in counts], 0.0, float(max(counts))) if counts else "",
        neutralise(", ".join(str(value) for value in view.get("top") or [])),
    ]


def _number(value: float | None) -> str:
    return "-" if value is None else number(value)


def drawn_changes(
    changes: Mapping[str, list[str]], columns: Sequence[Mapping[str, Any]]
) -> Iterator[str]:
    marks = {"added": "+", "removed": "-", "changed": "~"}
    for kind, paths in changes.items():
        for path in paths[:_NAMED]:
            yield f"{marks[kind]} {neutralise(path)}"
        if len(paths) > _NAMED:
            yield f"{marks[kind]} and {counted(len(paths) - _NAMED, 'more file')} {kind}"
    if columns:
        yield ""
        headings = [Column("TABLE", flex=True), Column("COLUMN"), Column("OLD"), Column("NEW")]
        rows = [
            [neutralise(str(item[name])) for name in ("table", "column", "old", "new")]
            for item in columns
        ]
        yield from table(headings, rows, terminal_width())


def drawn_checks(results: Sequence[Result]) -> Iterator[str]:
    """What failed, with examples; then how many checks there were."""
    failed = [found for found in results if not found["passed"]]
    if failed:
        headings = [
            Column("TABLE", flex=True),
            Column("COLUMN"),
            Column("EXPECTED", flex=True),
            Column("FOUND"),
            Column("EXAMPLES", flex=True),
        ]
        rows = [
            [
                neutralise(found["table"]),
                neutralise(found["column"]),
                neutralise(found["expected"]),
                neutralise(found["found"]),
                neutralise(", ".join(found["examples"])),
            ]
            for found in failed
        ]
        yield from table(headings, rows, terminal_width())
        yield ""
    passed = len(results) - len(failed)
    yield f"{passed} of {counted(len(results), 'check')} passed"
