"""The tables in a data set, opened with DuckDB within a bound of memory.

DuckDB is an extra (`pip install 'quarterdeck[data]'`), imported when a table is looked into.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.base.errors import InvalidInput
from jobs.base.words import counted

if TYPE_CHECKING:
    import duckdb

MEMORY = "800MB"
_TEXT = (".csv", ".tsv", ".csv.gz", ".tsv.gz")
_LINES = (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz")
_KINDS = {
    "BOOLEAN": "boolean",
    "DATE": "time",
    "TIME": "time",
    "TIMESTAMP": "time",
    "TIMESTAMP WITH TIME ZONE": "time",
    "FLOAT": "number",
    "DOUBLE": "number",
}


@dataclass(frozen=True, slots=True)
class Table:
    """A table: what it is called in the data set, and the file here."""

    name: str
    path: Path


@dataclass(frozen=True, slots=True)
class Column:
    name: str
    type: str  # "integer", "number", "text", "boolean", "time", "other"


def available() -> bool:
    """Whether DuckDB is installed."""
    import importlib.util

    return importlib.util.find_spec("duckdb") is not None


def tables(path: Path) -> list[Table]:
    """The tables in a folder, by name, or a file that is one."""
    if path.is_file():
        return [Table(path.name, path)] if _is_table(path.name) else []
    found = []
    for base, folders, names in os.walk(path, followlinks=True):
        folders.sort()
        for name in sorted(names):
            if _is_table(name):
                file = Path(base, name)
                found.append(Table(file.relative_to(path).as_posix(), file))
    return found


def _is_table(name: str) -> bool:
    return name.lower().endswith((*_TEXT, *_LINES, ".parquet"))


@contextmanager
def database() -> Iterator[duckdb.DuckDBPyConnection]:
    """DuckDB in memory, within `MEMORY`; what does not fit goes to a temporary folder.

    Raises InvalidInput when it is not installed.
    """
    try:
        import duckdb
    except ImportError:
        raise InvalidInput(
            "reading tables needs DuckDB", "Install it: `pip install 'quarterdeck[data]'`."
        ) from None
    connection = duckdb.connect()
    try:
        connection.execute(f"SET memory_limit = '{MEMORY}'")
        connection.execute("SET autoinstall_known_extensions = false")
        connection.execute("SET enable_progress_bar = false")
        connection.execute("SET preserve_insertion_order = false")
        yield connection
    finally:
        connection.close()


def open_table(db: duckdb.DuckDBPyConnection, table: Table, view: str) -> list[Column]:
    """Make `view` of a table, and give its columns.

    Raises InvalidInput with DuckDB's own words, which name the line of a bad row.
    """
    import duckdb

    lower = table.name.lower()
    path = str(table.path)
    try:
        if lower.endswith(".parquet"):
            relation = db.from_parquet(path)
        elif lower.endswith(_LINES):
            relation = db.read_json(path, format="newline_delimited")
        else:
            relation = db.read_csv(path, strict_mode=True, ignore_errors=False)
        relation.create_view(view, replace=True)
        names = relation.columns
        kinds = [kind(str(dtype)) for dtype in relation.types]
    except (duckdb.Error, UnicodeDecodeError) as error:
        raise unreadable(table, error) from None
    if lower.endswith(_TEXT):
        _check_shape(table, len(names))
    return [Column(*pair) for pair in zip(names, kinds, strict=True)]


def _check_shape(table: Table, columns: int) -> None:
    """A text of several columns that was taken for one has rows of different lengths, and DuckDB's sniffer
    found no dialect that fits. Raises InvalidInput."""
    if columns != 1 or table.path.suffix == ".gz":
        return
    with table.path.open("rb") as file:
        first = file.readline(1 << 16)
    for mark in (b",", b"\t", b";", b"|"):
        if mark in first:
            raise InvalidInput(
                f"{table.name}: its first line has {counted(first.count(mark) + 1, 'column')}, but "
                "the rows do not agree on how many there are",
                "Look for rows that have more or fewer columns than the first.",
            )


def unreadable(table: Table, error: Exception) -> InvalidInput:
    """One sentence of what is wrong with a table's file, with the line where DuckDB knows it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    first = lines[0].replace(str(table.path), table.name) if lines else repr(error)
    detail = next(
        (line for line in lines[1:] if line.startswith(("Original Line", "Expected"))), ""
    )
    return InvalidInput(f"{table.name}: {first}" + (f" ({detail})" if detail else ""))


def kind(dtype: str) -> str:
    """One of our kinds for a type of DuckDB's."""
    upper = dtype.upper()
    if upper in _KINDS:
        return _KINDS[upper]
    if upper.startswith(("TIMESTAMP", "TIME")):
        return "time"
    if upper.startswith("DECIMAL"):
        return "number"
    if upper.endswith("INT") or upper in ("INTEGER", "UINTEGER"):
        return "integer"
    if upper.startswith(("VARCHAR", "ENUM", "UUID")):
        return "text"
    return "other"


def quoted(name: str) -> str:
    """A column's name as an identifier of SQL, whatever it holds."""
    return '"' + name.replace('"', '""') + '"'


def scalar(db: duckdb.DuckDBPyConnection, query: str, values: list[Any] | None = None) -> int:
    """The one whole number that a query gives. All of a result is fetched: DuckDB does nothing else on a
    connection that has one open."""
    ((value,),) = db.execute(query, values or []).fetchall()
    return int(value)
