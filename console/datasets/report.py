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
    from jobs.wire.dataviews import DataFile

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
_MOVED = 0.1
"""Share of the distance from the 5 % to the 95 % quantile by which a quantile has to move to be named."""


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


def file_changes(old: Sequence[DataFile], new: Sequence[DataFile]) -> dict[str, list[str]]:
    """Paths that were added, removed, changed; sorted."""
    before = {file["path"]: (file["sha256"], file["link"]) for file in old}
    after = {file["path"]: (file["sha256"], file["link"]) for file in new}
    return {
        "added": sorted(after.keys() - before.keys()),
        "removed": sorted(before.keys() - after.keys()),
        "changed": sorted(p for p in before.keys() & after.keys() if before[p] != after[p]),
    }


def profile_changes(
    old: Mapping[str, Any] | None, new: Mapping[str, Any] | None
) -> list[dict[str, Any]]:
    """What differs in tables that both have: rows, columns, shares of missing values, distributions."""
    before = {found["file"]: found for found in (old or {}).get("tables", [])}
    changes = []
    for found in (new or {}).get("tables", []):
        known = before.get(found["file"])
        if known is None:
            continue
        if known["rows"] != found["rows"]:
            changes.append(_change(found, "", f"{known['rows']:,} rows", f"{found['rows']:,} rows"))
        columns = {view["name"]: view for view in known["columns"]}
        for view in found["columns"]:
            was = columns.pop(view["name"], None)
            if was is None:
                changes.append(_change(found, view["name"], "not there", view["type"]))
            else:
                changes += _column_changes(found, was, view, known["rows"], found["rows"])
        changes += [_change(found, name, was["type"], "not there") for name, was in columns.items()]
    return changes


def _column_changes(
    found: Mapping[str, Any], was: Mapping[str, Any], now: Mapping[str, Any], before: int, rows: int
) -> Iterator[dict[str, Any]]:
    if was["type"] != now["type"]:
        yield _change(found, now["name"], was["type"], now["type"])
        return
    shares = [was["missing"] / before if before else 0.0, now["missing"] / rows if rows else 0.0]
    if abs(shares[0] - shares[1]) >= 0.01:
        old, new = (f"{share:.1%} missing" for share in shares)
        yield _change(found, now["name"], old, new)
    if was.get("quantiles") and now.get("quantiles"):
        spread = was["quantiles"][-1] - was["quantiles"][0]
        moved = max(abs(a - b) for a, b in zip(was["quantiles"], now["quantiles"], strict=True))
        if moved > _MOVED * spread:
            old, new = (f"median {number(side['quantiles'][2])}" for side in (was, now))
            yield _change(found, now["name"], old, new)


def _change(found: Mapping[str, Any], column: str, old: str, new: str) -> dict[str, Any]:
    return {"table": found["file"], "column": column, "old": old, "new": new}


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
