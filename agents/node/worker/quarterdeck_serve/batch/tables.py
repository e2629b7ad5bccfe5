"""Rows of a unit, a batch at a time, in the three formats; and results written in the same format.

A batch holds at most so many rows, so memory is bounded by the unit and the batch, never by the file.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..oip import Array
from .units import Source, Unit

csv.field_size_limit(64 << 20)
RECORD_SHOWN = 10_000
"""Characters of a bad row that are kept."""


@dataclass
class Bad:
    """A row that got no result."""

    row: int  # in its unit, from 0
    reason: str
    record: str


class Table(Protocol):
    """Some rows. `places` says which rows of the unit they are."""

    places: Sequence[int]
    text: bool  # values are text that is to be read as numbers

    def names(self) -> list[str]: ...
    def values(self, names: Sequence[str]) -> Any:
        """Of one column its values; of several a row's values together."""
        ...

    def record(self, index: int) -> str: ...
    def take(self, indices: Sequence[int]) -> Table: ...


@dataclass
class Rows:
    """Rows of CSV: text by the place of its column."""

    columns: tuple[str, ...]
    rows: list[list[str]]
    places: Sequence[int]
    text: bool = True

    def names(self) -> list[str]:
        return list(self.columns)

    def values(self, names: Sequence[str]) -> Any:
        at = [self.columns.index(name) for name in names]
        if len(at) == 1:
            return [row[at[0]] for row in self.rows]
        if at == list(range(at[0], at[0] + len(at))):
            first, last = at[0], at[-1] + 1
            return [row[first:last] for row in self.rows]
        return [[row[n] for n in at] for row in self.rows]

    def record(self, index: int) -> str:
        return ",".join(self.rows[index])[:RECORD_SHOWN]

    def take(self, indices: Sequence[int]) -> Rows:
        rows, places = [self.rows[n] for n in indices], [self.places[n] for n in indices]
        return Rows(self.columns, rows, places)


@dataclass
class Objects:
    """Rows of JSON lines."""

    rows: list[dict[str, Any]]
    places: Sequence[int]
    text: bool = False

    def names(self) -> list[str]:
        return list(dict.fromkeys(name for row in self.rows for name in row))

    def values(self, names: Sequence[str]) -> Any:
        if len(names) == 1:
            return [row.get(names[0]) for row in self.rows]
        return [[row.get(name) for name in names] for row in self.rows]

    def record(self, index: int) -> str:
        return json.dumps(self.rows[index])[:RECORD_SHOWN]

    def take(self, indices: Sequence[int]) -> Objects:
        return Objects([self.rows[n] for n in indices], [self.places[n] for n in indices])


@dataclass
class Arrow:
    """Rows of Parquet."""

    table: Any  # pyarrow.Table or RecordBatch
    places: Sequence[int]
    text: bool = False

    def names(self) -> list[str]:
        return [str(name) for name in self.table.schema.names]

    def values(self, names: Sequence[str]) -> Any:
        columns = [_numpy(self.table.column(name)) for name in names]
        if len(columns) == 1:
            return columns[0]
        if all(isinstance(column, np.ndarray) for column in columns):
            return np.column_stack(columns)
        return [list(row) for row in zip(*columns, strict=True)]

    def record(self, index: int) -> str:
        return json.dumps(self.table.slice(index, 1).to_pylist()[0], default=str)[:RECORD_SHOWN]

    def take(self, indices: Sequence[int]) -> Arrow:
        return Arrow(self.table.take(list(indices)), [self.places[n] for n in indices])


def _numpy(column: Any) -> Any:
    """Numbers as an array where nothing is missing, lists of equal length as a matrix, else as they are."""
    import pyarrow as pa

    if column.null_count == 0:
        if pa.types.is_floating(column.type) or pa.types.is_integer(column.type):
            return column.to_numpy(zero_copy_only=False)
        if pa.types.is_list(column.type) or pa.types.is_fixed_size_list(column.type):
            flat = column.flatten()
            if flat.null_count == 0 and len(column) and len(flat) % len(column) == 0:
                width = len(flat) // len(column)
                lengths = column.value_lengths() if pa.types.is_list(column.type) else None
                if lengths is None or set(lengths.to_pylist()) == {width}:
                    return flat.to_numpy(zero_copy_only=False).reshape(len(column), width)
    return column.to_pylist()


def read(source: Source, unit: Unit, size: int, bad: list[Bad]) -> Iterator[Table]:
    """The rows of a unit, at most `size` at a time; what is no row is added to `bad`."""
    if source.kind == "parquet":
        yield from _read_parquet(source, unit, size)
        return
    with Path(source.path).open("rb") as file:
        file.seek(unit.start)
        data = file.read(unit.end - unit.start)
    # What is no UTF-8 comes through as it is: it may be in a column that nobody looks at.
    text = data.decode("utf-8-sig" if unit.start == 0 else "utf-8", errors="surrogateescape")
    del data
    reader = _read_csv if source.kind == "csv" else _read_jsonl
    yield from reader(source, text, size, bad)


def _read_csv(source: Source, text: str, size: int, bad: list[Bad]) -> Iterator[Table]:
    rows: list[list[str]] = []
    places: list[int] = []
    width, number = len(source.columns), -1
    for row in csv.reader(io.StringIO(text, newline="")):
        if not row:
            continue  # an empty line
        number += 1
        if len(row) != width:
            reason = f"it has {len(row)} fields, the header has {width}"
            bad.append(Bad(number, reason, ",".join(row)[:RECORD_SHOWN]))
            continue
        rows.append(row)
        places.append(number)
        if len(rows) == size:
            yield Rows(source.columns, rows, places)
            rows, places = [], []
    if rows:
        yield Rows(source.columns, rows, places)


def _read_jsonl(source: Source, text: str, size: int, bad: list[Bad]) -> Iterator[Table]:
    rows: list[dict[str, Any]] = []
    places: list[int] = []
    number = -1
    for line in text.split("\n"):
        if not line.strip():
            continue
        number += 1
        try:
            row = _object(line)
        except (ValueError, RecursionError) as error:
            bad.append(Bad(number, f"it is no JSON object: {error}", line[:RECORD_SHOWN]))
            continue
        rows.append(row)
        places.append(number)
        if len(rows) == size:
            yield Objects(rows, places)
            rows, places = [], []
    if rows:
        yield Objects(rows, places)


def _object(line: str) -> dict[str, Any]:
    row = json.loads(line, parse_constant=_refuse)
    if isinstance(row, dict):
        return row
    raise ValueError("it is another value")


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _read_parquet(source: Source, unit: Unit, size: int) -> Iterator[Table]:
    from pyarrow import parquet

    with parquet.ParquetFile(source.path) as file:
        groups, number = range(unit.start, unit.end), 0
        for batch in file.iter_batches(batch_size=size, row_groups=groups, use_threads=False):
            yield Arrow(batch, range(number, number + batch.num_rows))
            number += batch.num_rows


@dataclass
class Writer:
    """Results of a unit, in a file beside. Outputs come after the columns that are kept."""

    path: Path
    kind: str
    kept: list[str]
    outputs: dict[str, int]  # name -> numbers in a row; 0: one that is no list; -1: a nested list
    _file: Any = field(default=None, repr=False)
    _rows: Any = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.kind == "parquet":
            return
        self._file = self.path.open("w", encoding="utf-8", errors="surrogateescape", newline="")
        if self.kind == "csv":
            self._rows = csv.writer(self._file, lineterminator="\n")
            self._rows.writerow(
                [*self.kept, *(n for name in self.outputs for n in self._named(name))]
            )

    def _named(self, name: str) -> list[str]:
        width = self.outputs[name]
        return [name] if width <= 0 else [f"{name}_{n}" for n in range(width)]

    def write(self, table: Table, outputs: dict[str, Array]) -> None:
        """As many rows of each output as the table has."""
        if self.kind == "parquet":
            self._write_parquet(table, outputs)
            return
        results = {name: self._shaped(name, array) for name, array in outputs.items()}
        if isinstance(table, Rows):
            at = [table.columns.index(name) for name in self.kept]
            columns: list[list[Any]] = [[row[n] for row in table.rows] for n in at]
            for name, values in results.items():
                width = self.outputs[name]
                if width > 0:
                    columns += [list(column) for column in zip(*values, strict=True)]
                else:
                    columns.append(values if width == 0 else [json.dumps(v) for v in values])
            self._rows.writerows(zip(*columns, strict=True))
            return
        assert isinstance(table, Objects)
        for n, row in enumerate(table.rows):
            told = {name: row.get(name) for name in self.kept}
            told |= {name: values[n] for name, values in results.items()}
            self._file.write(json.dumps(told) + "\n")

    def _shaped(self, name: str, array: Array) -> list[Any]:
        if self.outputs[name] == 0:
            array = array.reshape(len(array))
        if array.dtype.kind in "OSU":
            array = np.array([_told(value) for value in array.ravel()], object).reshape(array.shape)
        found: list[Any] = array.tolist()
        return found

    def _write_parquet(self, table: Table, outputs: dict[str, Array]) -> None:
        import pyarrow as pa
        from pyarrow import parquet

        assert isinstance(table, Arrow)
        columns = {name: table.table.column(name) for name in self.kept}
        for name, array in outputs.items():
            if self.outputs[name] > 0 and array.dtype.kind in "fiub":
                flat = pa.array(np.ascontiguousarray(array).ravel())
                offsets = np.arange(len(array) + 1, dtype=np.int32) * self.outputs[name]
                columns[name] = pa.ListArray.from_arrays(pa.array(offsets), flat)
            elif self.outputs[name] == 0 and array.dtype.kind in "fiub":
                columns[name] = pa.array(np.ascontiguousarray(array).ravel())
            else:
                columns[name] = pa.array(self._shaped(name, array))
        made = pa.table(columns)
        if self._file is None:
            self._file = parquet.ParquetWriter(str(self.path), made.schema)
        self._file.write_table(made)

    def close(self) -> bool:
        """Whether there is a file: one of Parquet without rows is none."""
        if self._file is None:
            return False
        self._file.close()
        return True


def _told(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
