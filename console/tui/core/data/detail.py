"""Everything about a version of a data set, and what differs between two, as pages. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from console.datasets.changes import file_changes, profile_changes
from console.text import neutralise
from console.tui.core.base import table
from console.tui.core.base.table import Column
from console.tui.core.draw.facts import fact, section
from console.tui.core.draw.format import STATE_TONE, many, number, size
from console.tui.core.draw.glyphs import Glyphs, block
from console.tui.core.draw.lines import BLANK, Line, Span, fit, line
from jobs.wire.dataviews import DataFile, DataVersionDetail
from jobs.wire.runviews import RunView

RUNS_SHOWN = 12
PATHS_SHOWN = 20
"""Of each kind of change; `qd data diff` says how many there are, as here."""


def users_of(runs: Iterable[RunView], version: str) -> list[RunView]:
    """The runs that read a version, in their order."""
    return [run for run in runs if version in run["data"].values()]


def detail_lines(
    detail: DataVersionDetail,
    runs: Sequence[RunView],
    looked_at: int,
    more: bool,
    width: int,
    glyphs: Glyphs,
) -> list[Line]:
    """What it is, which runs read it, and what is in its tables.

    Args:
        runs: those that read it, newest first.
        looked_at: among how many of the newest runs they were looked for; `more` when there are others.
    """
    held = f"{size(detail['bytes'])} in {many(detail['files'], 'file')}"
    out = [line((neutralise(detail["id"]), "strong"))]
    out += fact("holds", held, width)
    out += fact("note", detail["note"], width)
    out += fact("from", detail["source"], width)
    out += fact("added", f"{_at(detail['created_at'])} by {detail['user']}", width)
    out += fact("digest", detail["digest"], width)
    out += section("Used by", _users(detail["id"], runs, looked_at, more, width, glyphs))
    if detail["profile"] is None:
        return [*out, *section("Tables", [line(("  No table in it was profiled.", "dim"))])]
    for found in detail["profile"]["tables"]:
        out += [BLANK, *_table(found, width, glyphs)]
    if others := detail["profile"].get("more"):
        out += [BLANK, line((f"and {many(others, 'more table')}", "dim"))]
    return out


def _at(text: str) -> str:
    """Local date and time."""
    return datetime.fromisoformat(text).astimezone().strftime("%Y-%m-%d %H:%M")


def _users(
    version: str, runs: Sequence[RunView], looked_at: int, more: bool, width: int, glyphs: Glyphs
) -> list[Line]:
    among = f" of the newest {looked_at}" if more else ""
    if not runs:
        return [line((f"  None{among or ' of the runs'}.", "dim"))] if looked_at else []
    out = []
    for run in runs[:RUNS_SHOWN]:
        names = ", ".join(name for name, read in run["data"].items() if read == version)
        out.append(
            line(
                "  ",
                (fit(run["id"], 9, ellipsis=glyphs.ellipsis), "strong"),
                (fit(run["state"].lower(), 11), STATE_TONE[run["state"]]),
                (fit(run["user"], 9, ellipsis=glyphs.ellipsis), "dim"),
                fit(f"{run['name']} as {names}", max(8, width - 31), ellipsis=glyphs.ellipsis),
            )
        )
    if len(runs) > RUNS_SHOWN:
        out.append(line((f"  and {many(len(runs) - RUNS_SHOWN, 'more run')}{among}", "dim")))
    elif more:
        out.append(line((f"  {many(len(runs), 'run')}{among}", "dim")))
    return out


# Tables.


def _table(found: Mapping[str, Any], width: int, glyphs: Glyphs) -> list[Line]:
    told = f"  {found['rows']:,} rows, {many(len(found['columns']), 'column')}"
    name = fit(found["file"], width - len(told), ellipsis=glyphs.ellipsis).rstrip()
    if "error" in found:
        return [line((name, "strong")), *fact("", found["error"], width, "error")]
    head = line((name, "strong"), (told, "dim"))
    layout = table.arrange(_columns(found["rows"]), width - 1)
    rows = [table.row_line(view, layout, 0.0, glyphs) for view in found["columns"]]
    return [head, table.head(layout, glyphs), *rows]


def _columns(rows: int) -> Sequence[Column[Mapping[str, Any]]]:
    def missing(view: Mapping[str, Any], now: float, glyphs: Glyphs) -> tuple[str, str]:
        share = view["missing"] / rows if rows else 0.0
        return (f"{share:.1%}", "warn") if view["missing"] else ("-", "dim")

    return (
        Column("column", 12, lambda v, n, g: (str(v["name"]), ""), grow=3),
        Column("type", 7, lambda v, n, g: (str(v["type"]), "dim")),
        Column("missing", 7, missing, rank=1, right=True),
        Column("distinct", 9, lambda v, n, g: (f"{v['distinct']:,}", ""), rank=2, right=True),
        Column("min", 10, lambda v, n, g: (_end(v, "min", "first"), ""), right=True),
        Column("values", 10, lambda v, n, g: (histogram(v, g), "info"), grow=3),
        Column("max", 10, lambda v, n, g: (_end(v, "max", "last"), "")),
        Column("median", 9, lambda v, n, g: (_median(v), ""), rank=3, right=True),
    )


def _end(view: Mapping[str, Any], name: str, of_times: str) -> str:
    if view.get(of_times):
        return str(view[of_times])[:10]
    return number(view[name]) if view.get(name) is not None else ""


def _median(view: Mapping[str, Any]) -> str:
    quantiles = view.get("quantiles")
    return number(quantiles[2]) if quantiles else ""


def _common(view: Mapping[str, Any]) -> str:
    return ", ".join(str(value) for value in view.get("top") or [])


def histogram(view: Mapping[str, Any], glyphs: Glyphs) -> str:
    """Counts in equal parts from the least to the greatest value, as blocks; of a column of words, its
    most common ones."""
    counts = view.get("histogram") or []
    if not counts:
        return _common(view)
    most = max(counts)
    return "".join(" " if not count else block(count / most * 0.999, glyphs) for count in counts)


# Two versions.


def diff_lines(
    sides: tuple[DataVersionDetail, DataVersionDetail],
    files: tuple[Sequence[DataFile], Sequence[DataFile]],
    width: int,
    glyphs: Glyphs,
) -> list[Line]:
    """Files and columns that differ between an older version and a newer one."""
    old, new = sides
    out = [
        line(
            (neutralise(old["id"]), "strong"),
            (f" {glyphs.crumb} ", "dim"),
            (neutralise(new["id"]), "strong"),
            (f"  {size(old['bytes'])} in {many(old['files'], 'file')}, then ", "dim"),
            (f"{size(new['bytes'])} in {many(new['files'], 'file')}", "dim"),
        )
    ]
    changed = file_changes(*files)
    if not any(changed.values()):
        return [*out, BLANK, line(("They have the same content.", "ok"))]
    signs = {"added": ("+", "ok"), "removed": ("-", "error"), "changed": ("~", "warn")}
    for kind, paths in changed.items():
        sign, tone = signs[kind]
        body = [
            line((f"  {sign} ", tone), fit(path, width - 4, ellipsis=glyphs.ellipsis).rstrip())
            for path in paths[:PATHS_SHOWN]
        ]
        if len(paths) > PATHS_SHOWN:
            body.append(line((f"    and {len(paths) - PATHS_SHOWN:,} more", "dim")))
        out += section(f"{len(paths):,} {kind}", body)
    return [*out, *_columns_changed(old, new, width, glyphs)]


def _columns_changed(
    old: DataVersionDetail, new: DataVersionDetail, width: int, glyphs: Glyphs
) -> list[Line]:
    if old["profile"] is None or new["profile"] is None:
        told = "  Tables are compared where both versions were profiled."
        return section("Columns", [line((told, "dim"))])
    views = (_by_column(old["profile"]), _by_column(new["profile"]))
    body: list[Line] = []
    for one in profile_changes(old["profile"], new["profile"]):
        name = f"{one['table']} {one['column']}".rstrip()
        body.append(
            line(
                (f"  {neutralise(name)}: ", "strong"),
                neutralise(one["old"]),
                (f" {glyphs.crumb} ", "dim"),
                neutralise(one["new"]),
            )
        )
        key = one["table"], one["column"]
        pair = [view.get(key) for view in views]
        if all(view is not None and view.get("histogram") for view in pair):
            body += [
                _spread(view, said, glyphs)
                for view, said in zip(pair, ("before", "after"), strict=True)
                if view is not None
            ]
    if not body:
        body = [line(("  Types, missing values and distributions are as they were.", "dim"))]
    return section("Columns", body)


def _by_column(profile: Mapping[str, Any]) -> dict[tuple[str, str], Mapping[str, Any]]:
    return {
        (found["file"], view["name"]): view
        for found in profile["tables"]
        for view in found["columns"]
    }


def _spread(view: Mapping[str, Any], said: str, glyphs: Glyphs) -> Line:
    """A histogram between the ends that it was counted between: those of the other may differ."""
    return (
        Span(f"    {said:<7}", "dim"),
        Span(f"{number(view['min']):>9} "),
        Span(histogram(view, glyphs), "info"),
        Span(f" {number(view['max'])}"),
    )
