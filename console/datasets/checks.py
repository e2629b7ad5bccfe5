"""Whether a data set is as expected: each rule, what was found, and rows that break it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from console.datasets.tables import (
    Column,
    Table,
    database,
    open_table,
    quoted,
    scalar,
    tables,
    unreadable,
)
from jobs.base.errors import InvalidInput
from jobs.data.expectations import ColumnRule, Expectations, TableRule

if TYPE_CHECKING:
    import duckdb

_EXAMPLES = 5


class Result(TypedDict):
    """One rule: what was expected of what, how many rows break it (0 when it holds), and some of them."""

    table: str
    column: str  # "" for the table as a whole
    expected: str
    found: str
    broken: int
    passed: bool
    examples: list[str]


@dataclass(frozen=True, slots=True)
class _Check:
    """A condition that rows break: `broken` is SQL over the table's row."""

    column: str
    expected: str
    broken: str
    values: tuple[Any, ...] = ()


def run_checks(wanted: Expectations, path: Path) -> list[Result]:
    """Check the tables in a folder, or a file. Raises InvalidInput when a file cannot be read."""
    found = {table.name: table for table in tables(path)}
    rules = dict(wanted.tables)
    if wanted.table is not None:
        if len(found) != 1:
            raise InvalidInput(
                f"`table` is for a data set with one table; this one has {len(found)}",
                "Use `tables`, by the path of each.",
            )
        rules.setdefault(next(iter(found)), wanted.table)
    results: list[Result] = []
    with database() as db:
        for name, rule in rules.items():
            if name not in found:
                results.append(_result(name, "", "the table is there", "it is not", 1))
                continue
            results += _table(db, found, found[name], rule)
    return results


def _table(
    db: duckdb.DuckDBPyConnection, found: dict[str, Table], table: Table, rule: TableRule
) -> Iterator[Result]:
    import duckdb

    columns = {column.name: column for column in open_table(db, table, "t")}
    try:
        rows = scalar(db, "SELECT count(*) FROM t")
        if rule.min_rows is not None:
            few = int(rows < rule.min_rows)
            yield _result(table.name, "", f"at least {rule.min_rows:,} rows", f"{rows:,}", few)
        if rule.max_rows is not None:
            many = int(rows > rule.max_rows)
            yield _result(table.name, "", f"at most {rule.max_rows:,} rows", f"{rows:,}", many)
        if rule.closed:
            extra = sorted(set(columns) - set(rule.columns))
            what = f"also {', '.join(extra)}" if extra else "only these"
            yield _result(table.name, "", "no other columns", what, len(extra))
        if rule.unique:
            yield _distinct(db, table, list(rule.unique), columns)
        for name, wanted in rule.columns.items():
            if name not in columns:
                yield _result(table.name, name, "the column is there", "it is not", 1)
                continue
            yield from _column(db, found, table, columns[name], wanted, rows)
    except (duckdb.Error, UnicodeDecodeError) as error:
        raise unreadable(table, error) from None


def _column(
    db: duckdb.DuckDBPyConnection,
    found: dict[str, Table],
    table: Table,
    column: Column,
    rule: ColumnRule,
    rows: int,
) -> Iterator[Result]:
    name = quoted(column.name)
    if rule.type is not None:
        fits = column.type == rule.type or (rule.type == "number" and column.type == "integer")
        yield _result(table.name, column.name, f"type {rule.type}", column.type, int(not fits))
        if not fits:
            return  # bounds on what is not even of the type only repeat it
    if rule.missing is not None:
        gone = scalar(db, f"SELECT count(*) - count({name}) FROM t")
        share = gone / rows if rows else 0.0
        over = gone if share > rule.missing else 0
        yield _result(
            table.name,
            column.name,
            f"at most {rule.missing:.1%} missing",
            f"{share:.1%}",
            over,
        )
    if rule.unique:
        yield _distinct(db, table, [column.name], {column.name: column})
    for check in _checks(db, found, column, rule):
        yield _run(db, table, check, rows)


def _checks(
    db: duckdb.DuckDBPyConnection, found: dict[str, Table], column: Column, rule: ColumnRule
) -> Iterator[_Check]:
    name = quoted(column.name)
    if rule.required:
        yield _Check(column.name, "no value missing", f"{name} IS NULL")
    if rule.min is not None:
        yield _Check(column.name, f"at least {_text(rule.min)}", f"{name} < ?", (rule.min,))
    if rule.max is not None:
        yield _Check(column.name, f"at most {_text(rule.max)}", f"{name} > ?", (rule.max,))
    if rule.allowed is not None:
        values = tuple(str(value) for value in rule.allowed)
        some = ", ".join(values[:6]) + (" ..." if len(values) > 6 else "")
        yield _Check(
            column.name,
            f"one of {some}",
            f"{name}::VARCHAR NOT IN (SELECT unnest(?::VARCHAR[]))",
            (list(values),),
        )
    if rule.pattern is not None:
        broken = f"NOT regexp_full_match({name}::VARCHAR, ?)"
        yield _Check(column.name, f"matches {rule.pattern}", broken, (rule.pattern,))
    if rule.references is not None:
        file, _, other = rule.references.rpartition(".")
        if file not in found:
            raise InvalidInput(f"references: there is no table {file} in this data set")
        known = {target.name for target in open_table(db, found[file], "other")}
        if other not in known:
            raise InvalidInput(f"references: {file} has no column {other}")
        yield _Check(
            column.name,
            f"one of {rule.references}",
            f"{name} IS NOT NULL AND NOT EXISTS"
            f" (SELECT 1 FROM other WHERE other.{quoted(other)} = t.{name})",
        )


def _run(db: duckdb.DuckDBPyConnection, table: Table, check: _Check, rows: int) -> Result:
    values = list(check.values)
    broken = scalar(db, f"SELECT count(*) FILTER (WHERE {check.broken}) FROM t", values)
    examples = []
    if broken:
        name = quoted(check.column)
        examples = [
            str(value)
            for (value,) in db.execute(
                f"SELECT DISTINCT left(coalesce({name}::VARCHAR, '(missing)'), 60) FROM t"
                f" WHERE {check.broken} LIMIT {_EXAMPLES}",
                values,
            ).fetchall()
        ]
    found = f"{broken:,} of {rows:,} rows" if broken else "all rows"
    return _result(table.name, check.column, check.expected, found, broken, examples)


def _distinct(
    db: duckdb.DuckDBPyConnection, table: Table, names: list[str], columns: dict[str, Column]
) -> Result:
    label = ", ".join(names)
    gone = [name for name in names if name not in columns]
    if gone:
        return _result(table.name, label, "unique", f"there is no column {gone[0]}", 1)
    keys = ", ".join(map(quoted, names))
    present = " AND ".join(f"{quoted(name)} IS NOT NULL" for name in names)
    twice = f"SELECT {keys}, count(*) AS n FROM t WHERE {present} GROUP BY {keys} HAVING n > 1"
    broken = scalar(db, f"SELECT coalesce(sum(n - 1), 0)::BIGINT FROM ({twice})")
    examples = [
        " ".join(map(str, row[:-1])) + f" ({row[-1]} times)"
        for row in db.execute(f"{twice} LIMIT {_EXAMPLES}").fetchall()
    ]
    found = f"{broken:,} rows are repeats" if broken else "no repeats"
    column = label if len(names) == 1 else ""
    expected = "unique" if len(names) == 1 else f"{label} unique together"
    return _result(table.name, column, expected, found, broken, examples)


def _result(
    table: str,
    column: str,
    expected: str,
    found: str,
    broken: int,
    examples: list[str] | None = None,
) -> Result:
    return Result(
        table=table,
        column=column,
        expected=expected,
        found=found,
        broken=broken,
        passed=broken == 0,
        examples=examples or [],
    )


def _text(bound: float | str) -> str:
    return bound if isinstance(bound, str) else f"{bound:g}"
