"""The rows of a hold-out version: CSV, JSON lines, Parquet or npz, as one table in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, is_zipfile

import numpy as np

from ..batch.tables import Bad, Table, read
from ..batch.units import KINDS, cut, look_at
from .mistakes import Mistake, some

BATCH = 4096
"""Rows that are read at a time."""
TARGETS = ("target", "label", "y", "class")
"""Columns that are the target when nobody names one."""


@dataclass
class Arrays:
    """Rows of an .npz file: arrays with as many rows each."""

    arrays: dict[str, Any]
    places: Sequence[int]
    text: bool = False

    def names(self) -> list[str]:
        return list(self.arrays)

    def values(self, names: Sequence[str]) -> Any:
        if len(names) == 1:
            return self.arrays[names[0]]
        return np.column_stack([self.arrays[name] for name in names])

    def record(self, index: int) -> str:
        return str({name: array[index] for name, array in self.arrays.items()})[:1000]

    def take(self, indices: Sequence[int]) -> Arrays:
        rows = np.asarray(indices, dtype=np.int64)
        arrays = {name: array[rows] for name, array in self.arrays.items()}
        return Arrays(arrays, [self.places[n] for n in indices])


def tables(path: Path) -> Iterator[tuple[str, Table]]:
    """The rows, a table at a time, with the name of its file. Raises Mistake for what cannot be read."""
    if path.suffix == ".npz" or (path.is_dir() and any(path.glob("*.npz"))):
        files = [path] if path.is_file() else sorted(path.glob("*.npz"))
        for file in files:
            yield file.name, _npz(file)
        return
    try:
        sources = look_at([str(path)])
        for unit in cut(sources):
            source, bad = sources[unit.source], list[Bad]()
            for table in read(source, unit, BATCH, bad):
                yield Path(source.path).name, table
            if bad:
                raise Mistake(f"{Path(source.path).name}: row {bad[0].row + 1}: {bad[0].reason}")
    except SystemExit as error:
        text = str(error.code)
        formats = f"{', '.join(KINDS)} or .npz"
        raise Mistake(text.replace(", ".join(KINDS), formats)) from None
    except (OSError, ValueError) as error:
        raise Mistake(f"the data cannot be read: {error}") from None
    except ImportError as error:
        raise Mistake(f"the data cannot be read without {error.name}, which is not here") from None


def _npz(file: Path) -> Arrays:
    if not is_zipfile(file):
        raise Mistake(f"{file.name} cannot be read: it is no .npz file, or only a part of one")
    try:
        with np.load(file, allow_pickle=False) as found:
            arrays = {name: found[name] for name in found.files}
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        raise Mistake(f"{file.name} cannot be read: {error}") from None
    rows = {len(array) for array in arrays.values() if array.ndim}
    if len(rows) != 1 or any(not array.ndim for array in arrays.values()):
        shapes = some([f"{name} {list(array.shape)}" for name, array in arrays.items()])
        raise Mistake(f"{file.name}: its arrays do not have the same number of rows: {shapes}")
    return Arrays(arrays, range(rows.pop()))


def target_of(names: Sequence[str], wanted: str | None) -> str:
    """The column of the truth. Raises Mistake where there is none, or several might be it."""
    if wanted is not None:
        if wanted not in names:
            raise Mistake(f"there is no column '{wanted}' for --target; there are {some(names)}")
        return wanted
    likely = [name for name in names if name.lower() in TARGETS]
    if len(likely) != 1:
        why = f"{' and '.join(likely)} might be it" if likely else f"there are {some(names)}"
        raise Mistake(f"name the column of the truth with --target; {why}")
    return likely[0]


def column(parts: Sequence[tuple[str, Table]], name: str) -> list[Any]:
    """The values of a column in all tables. Raises Mistake where a table lacks it."""
    found: list[Any] = []
    for file, table in parts:
        if name not in table.names():
            raise Mistake(f"{file} has no column '{name}'; it has {some(table.names())}")
        found += list(table.values([name]))
    return found
