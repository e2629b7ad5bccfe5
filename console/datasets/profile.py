"""What is in the tables of a data set: types, missing and distinct values, distributions.

Aggregates that can be computed in one pass over a table, so that a table of any size is profiled within
`tables.MEMORY`. Counts of distinct values are estimates (HyperLogLog, within some percent), and quantiles
come from a t-digest.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from console.datasets.tables import Column, Table, database, open_table, quoted, unreadable
from jobs.base.errors import InvalidInput

if TYPE_CHECKING:
    import duckdb

MAX_TABLES, MAX_COLUMNS = 20, 1000
BINS = 10
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_TOP = 5


def profile(found: list[Table]) -> dict[str, Any]:
    """The first `MAX_TABLES` tables, column by column.

    Returns:
        `{"tables": [{"file", "rows", "columns": [{"name", "type", "missing", "distinct", ...}]}]}`: for
        numbers also min, max, mean, std, quantiles (5, 25, 50, 75 and 95 %) and histogram (`BINS` counts
        between min and max); for others the most common values. A table that cannot be read has
        "error" instead of rows.
    """
    result: dict[str, Any] = {"tables": []}
    with database() as db:
        for table in found[:MAX_TABLES]:
            try:
                result["tables"].append(_table(db, table))
            except InvalidInput as error:
                result["tables"].append(
                    {"file": table.name, "rows": 0, "columns": [], "error": error.message}
                )
    if len(found) > MAX_TABLES:
        result["more"] = len(found) - MAX_TABLES
    return result


def _table(db: duckdb.DuckDBPyConnection, table: Table) -> dict[str, Any]:
    import duckdb

    columns = open_table(db, table, "t")[:MAX_COLUMNS]
    try:
        (row,) = db.execute(
            f"SELECT count(*), {', '.join(_aggregates(column) for column in columns)} FROM t"
        ).fetchall()
        rows, facts = row[0], row[1:]
        views = [_view(column, rows, fact) for column, fact in zip(columns, facts, strict=True)]
        _histograms(db, columns, views)
    except (duckdb.Error, UnicodeDecodeError) as error:
        raise unreadable(table, error) from None
    return {"file": table.name, "rows": rows, "columns": views}


def _aggregates(column: Column) -> str:
    name = quoted(column.name)
    parts = [f"'present': count({name})", f"'distinct': approx_count_distinct({name})"]
    if column.type in ("integer", "number"):
        value = f"{name}::DOUBLE"
        finite = f"CASE WHEN isfinite({value}) THEN {value} END"
        parts += [
            f"'min': min({finite})",
            f"'max': max({finite})",
            f"'mean': avg({finite})",
            f"'std': CASE WHEN count({finite}) > 1 THEN stddev_samp({finite}) END",
            f"'quantiles': approx_quantile({finite}, {list(_QUANTILES)})",
        ]
    elif column.type in ("text", "boolean"):
        parts.append(f"'top': approx_top_k(left({name}::VARCHAR, 60), {_TOP})")
    elif column.type == "time":
        parts += [f"'first': min({name})::VARCHAR", f"'last': max({name})::VARCHAR"]
    return "{" + ", ".join(parts) + "}"


def _view(column: Column, rows: int, fact: dict[str, Any]) -> dict[str, Any]:
    present = fact.pop("present")
    view = {"name": column.name, "type": column.type, "missing": rows - present}
    view["distinct"] = min(fact.pop("distinct"), present)
    return view | {name: _plain(value) for name, value in fact.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _histograms(
    db: duckdb.DuckDBPyConnection, columns: list[Column], views: list[dict[str, Any]]
) -> None:
    """Counts of `BINS` equal parts from min to max, for all numbers in one more pass."""
    wanted = [
        (column, view)
        for column, view in zip(columns, views, strict=True)
        if view.get("min") is not None and view["min"] < view["max"]
    ]
    if not wanted:
        return
    counts = []
    for column, view in wanted:
        width = (view["max"] - view["min"]) / BINS
        value = f"{quoted(column.name)}::DOUBLE"
        bin_ = f"least(floor(({value} - {view['min']!r}) / {width!r}), {BINS - 1})"
        place = f"(CASE WHEN isfinite({value}) THEN {bin_} END)"  # least() skips a missing value
        counts.append(
            "[" + ", ".join(f"count(*) FILTER ({place} = {number})" for number in range(BINS)) + "]"
        )
    (row,) = db.execute(f"SELECT {', '.join(counts)} FROM t").fetchall()
    for (_, view), found in zip(wanted, row, strict=True):
        view["histogram"] = list(found)
