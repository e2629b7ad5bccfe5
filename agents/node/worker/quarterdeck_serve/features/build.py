"""Running a transform over a version of a data set, with its point-in-time joins."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..batch.tables import Bad, Table, Writer, read
from ..batch.units import Source, cut, look_at
from ..oip import Array
from .columns import Column, cast, find_bad
from .joins import Known, taken
from .transform import BLOCK, FeatureError, Features

ROWS = 64 * BLOCK
"""Rows that are read at a time."""
SHOWN = 5
"""Bad rows that are named when a build fails."""


class Failed(Exception):
    """Why there is no result, in lines."""


@dataclass(frozen=True)
class Joined:
    """A join, with its table in memory."""

    name: str
    on: str
    by: tuple[str, ...]
    known: Known
    columns: Mapping[str, Array]


def build(
    features: Features,
    rows: Path,
    tables: Mapping[str, Path],
    out: Path,
    say: Callable[[int], None] = lambda count: None,
) -> int:
    """Write the features of all rows below `out`: each file by its own name, in its own format, in order.

    Args:
        rows: a file or a folder of CSV, JSON lines or Parquet.
        tables: those that are joined, by the names that the declaration gives them.
        say: gets the number of rows so far.

    Returns:
        how many rows there are.

    Raises:
        Failed: naming file, row and reason; what is below `out` is then of no use.
    """
    joins = [_joined(features, join, tables) for join in features.joins]
    out.mkdir(parents=True, exist_ok=True)
    total = 0
    for source in look_at([str(rows)]):
        total = _file(features, source, joins, out, total, say)
    if not total:
        raise Failed(f"{rows.name} has no rows")
    return total


def _file(
    features: Features,
    source: Source,
    joins: Sequence[Joined],
    out: Path,
    total: int,
    say: Callable[[int], None],
) -> int:
    writer: Writer | None = None
    for tables, columns in _batches(features, source, joins):
        first = tables[0][0]
        try:
            outputs = features.run(columns)
            features.look_alone(columns, outputs)
        except FeatureError as error:
            raise Failed(_told(source, first, error.rows) or f"{_name(source)}: {error}") from None
        except Exception as error:
            raise Failed(_raised(features, source, first, columns, error)) from error
        if writer is None:
            widths = {one.name: one.width or 0 for one in features.outputs}
            path = out / Path(source.path).name
            writer = Writer(path, source.kind, features.keep, widths)
        for start, table in tables:
            at, end = start - first, start - first + len(table.places)
            writer.write(table, {name: array[at:end] for name, array in outputs.items()})
        total += sum(len(table.places) for _, table in tables)
        say(total)
    if writer is not None:
        writer.close()
    return total


Batch = tuple[list[tuple[int, Table]], dict[str, Array]]
"""Tables with the number of their first row, and the inputs of all of them together."""


def _batches(features: Features, source: Source, joins: Sequence[Joined]) -> Iterator[Batch]:
    """What the transform gets at once: a piece of the file, or all of it where it looks at other rows."""
    whole: list[Batch] = []
    for first, table in _pieces(source):
        _check_columns(features, source, table.names(), joins)
        batch: Batch = [(first, table)], _columns(features, source, table, first, joins)
        if features.rowwise:
            yield batch
        else:
            whole.append(batch)
    if whole:
        names = whole[0][1]
        yield (
            [one for tables, _ in whole for one in tables],
            {name: np.concatenate([columns[name] for _, columns in whole]) for name in names},
        )


def _pieces(source: Source) -> Iterator[tuple[int, Table]]:
    """The rows of a file, so many at a time, each piece with the number of its first row."""
    first = 0
    for unit in cut([source]):
        bad: list[Bad] = []
        start = first
        for table in read(source, unit, ROWS, bad):
            _refuse(source, start, bad)
            yield first, table
            first += len(table.places)
        _refuse(source, start, bad)


def _refuse(source: Source, first: int, bad: Sequence[Bad]) -> None:
    if bad:
        raise Failed(_told(source, first, {one.row: one.reason for one in bad}))


def _name(source: Source) -> str:
    """Its folder is that of a cache, which says nothing."""
    return Path(source.path).name


def _told(source: Source, first: int, rows: Mapping[int, str]) -> str:
    """Bad rows of a file, the first ones; empty without any. Rows are counted from 1."""
    lines = [f"{_name(source)}, row {first + row + 1}: {rows[row]}" for row in sorted(rows)[:SHOWN]]
    if len(rows) > SHOWN:
        lines.append(f"and {len(rows) - SHOWN} more among the rows that were read with them")
    return "\n".join(lines)


def _raised(
    features: Features,
    source: Source,
    first: int,
    columns: Mapping[str, Array],
    error: Exception,
) -> str:
    """What the code raised, and on which row, if on one alone."""
    if features.rowwise:
        for row in range(len(next(iter(columns.values())))):
            try:
                features.run({name: array[row : row + 1] for name, array in columns.items()})
            except Exception as alone:
                return _told(source, first, {row: f"the code raised {alone!r}"})
    return f"{_name(source)}: the code raised {error!r}"


def _check_columns(
    features: Features, source: Source, names: Sequence[str], joins: Sequence[Joined]
) -> None:
    joined = {name for join in joins for name in join.columns}
    wanted = [column.name for column in features.inputs if column.name not in joined]
    _has(source, names, [*wanted, *features.keep])


def _has(source: Source, names: Sequence[str], wanted: Sequence[str]) -> None:
    for name in wanted:
        if name not in names:
            some = ", ".join(names[:20]) + (" ..." if len(names) > 20 else "")
            raise Failed(f"{_name(source)} has no column '{name}'; it has {some}")


def _columns(
    features: Features, source: Source, table: Table, first: int, joins: Sequence[Joined]
) -> dict[str, Array]:
    """The inputs of these rows, those from joined tables among them."""
    joined = {name for join in joins for name in join.columns}
    own = [column for column in features.inputs if column.name not in joined]
    found = _cast(source, own, [table.values([column.name]) for column in own], table.text, first)
    for join in joins:
        places = join.known.find([found[name] for name in join.by], found[join.on])
        for name, values in join.columns.items():
            column = next(one for one in features.inputs if one.name == name)
            if not column.missing and (places < 0).any():
                why = f"no row of {join.name} was known then, and '{name}' may not be missing"
                rows = {int(row): why for row in np.flatnonzero(places < 0)}
                raise Failed(_told(source, first, rows))
            found[name] = taken(values, places)
    return {column.name: found[column.name] for column in features.inputs}


def _cast(
    source: Source, columns: Sequence[Column], values: Sequence[Any], text: bool, first: int
) -> dict[str, Array]:
    try:
        return {
            column.name: cast(column, held, text=text)
            for column, held in zip(columns, values, strict=True)
        }
    except (ValueError, TypeError, OverflowError):
        raise Failed(_told(source, first, find_bad(columns, values, text=text))) from None


def _joined(features: Features, join: Mapping[str, Any], tables: Mapping[str, Path]) -> Joined:
    """A table, read whole: of its columns those that the join names."""
    name = join["table"]
    if name not in tables:
        raise Failed(f"the features join a table {name}, and nobody said which data it is")
    declared = {column.name: column for column in features.inputs}
    moment = Column(join["at"] or join["on"], "time", zone=join["zone"])
    keys = [declared[key] for key in join["by"]]
    taken_from = {
        given: Column(theirs, declared[given].type, declared[given].missing, declared[given].zone)
        for given, theirs in join["columns"].items()
    }
    columns = [moment, *keys, *taken_from.values()]
    parts: list[list[Array]] = [[] for _ in columns]
    for source in look_at([str(tables[name])]):
        for first, table in _pieces(source):
            _has(source, table.names(), [column.name for column in columns])
            held = [table.values([column.name]) for column in columns]
            try:
                found = [cast(c, v, text=table.text) for c, v in zip(columns, held, strict=True)]
            except (ValueError, TypeError, OverflowError):
                bad = find_bad(columns, held, text=table.text)
                raise Failed(_told(source, first, bad)) from None
            for part, array in zip(parts, found, strict=True):
                part.append(array)
    if not parts[0]:
        raise Failed(f"the table {name} has no rows")
    whole = [np.concatenate(part) for part in parts]
    tolerance = join["tolerance"]
    known = Known(
        whole[1 : 1 + len(keys)],
        whole[0],
        None if tolerance is None else round(tolerance * 1_000_000),
    )
    rest = whole[1 + len(keys) :]
    return Joined(
        name, join["on"], tuple(join["by"]), known, dict(zip(taken_from, rest, strict=True))
    )
