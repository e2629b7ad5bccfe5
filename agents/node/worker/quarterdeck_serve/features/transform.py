"""A version of features: its declaration, its code, and what it gives for rows.

Bits: NumPy and BLAS may add in another order for one row than for many, so the same formula can differ in
its last bit between a request of one row and a file of a million. Therefore the code always sees blocks of
exactly `BLOCK` rows, in fresh arrays, wherever it runs; of a block that is not full the last row is
repeated. A row then gets the same numbers whichever rows it comes with.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from ..oip import Array
from .columns import DTYPES, Column, cast

BLOCK = 64
"""Rows that the code sees at a time: a multiple of every vector register and BLAS tile in use, and small
enough that a request of one row costs some microseconds more."""
DECLARATION = "features.json"
VARIABLE = "QD_DATA_FEATURES"
_OUTPUTS: dict[str, Any] = {
    "float32": np.float32, "float64": np.float64, "int32": np.int32, "int64": np.int64,
    "boolean": np.bool_, "text": np.object_,
}  # fmt: skip


class FeatureError(Exception):
    """What is wrong, in words. `rows`: those that are at fault, where that is known."""

    def __init__(self, text: str, rows: Mapping[int, str] | None = None) -> None:
        super().__init__(text)
        self.rows = dict(rows or {})


class Output:
    """What is declared of one output."""

    def __init__(self, name: str, given: Mapping[str, Any]) -> None:
        self.name, self.missing = name, bool(given["missing"])
        self.type: str = given["type"]
        self.width: int | None = given["width"]
        self.dtype = np.dtype(_OUTPUTS[self.type])

    def checked(self, value: Any, rows: int) -> Array:
        """As it is declared. Raises FeatureError."""
        array = np.asarray(value)
        wanted = (rows,) if self.width is None else (rows, self.width)
        if array.shape != wanted:
            raise FeatureError(
                f"output '{self.name}' has the shape {list(array.shape)} for {rows} rows; "
                f"{list(wanted)} is declared"
            )
        if self.type == "text":
            if not all(isinstance(text, str) for text in array.ravel()):
                raise FeatureError(f"output '{self.name}' is not all text")
            return array.astype(np.object_)
        if not np.can_cast(array.dtype, self.dtype, "same_kind"):
            raise FeatureError(f"output '{self.name}' is {array.dtype}; {self.type} is declared")
        if array.dtype.kind in "iu" and self.dtype.kind == "i" and array.size:
            limits = np.iinfo(self.dtype)
            if array.min() < limits.min or array.max() > limits.max:
                raise FeatureError(f"output '{self.name}' has values that do not fit {self.type}")
        with np.errstate(over="ignore"):  # it becomes infinite, which is then found
            return array.astype(self.dtype)

    def unfit(self, array: Array) -> dict[int, str]:
        """Rows with values that it may not have."""
        if self.dtype.kind != "f" or not array.size:
            return {}
        bad = np.isinf(array) if self.missing else ~np.isfinite(array)
        rows = np.flatnonzero(bad.reshape(len(array), -1).any(axis=1))
        why = f"output '{self.name}' is not finite"
        return {int(row): why for row in rows}


class Features:
    """A version, loaded from its folder.

    Raises:
        FeatureError: it cannot be loaded here, in a sentence.
    """

    def __init__(self, folder: Path) -> None:
        try:
            given = json.loads((folder / DECLARATION).read_bytes())
        except (OSError, ValueError) as error:
            raise FeatureError(f"{folder} is no version of features: {error}") from None
        _check_packages(given["requires"])
        self.inputs = [Column(name, **one) for name, one in given["inputs"].items()]
        self.outputs = [Output(name, one) for name, one in given["outputs"].items()]
        self.keep: list[str] = given["keep"]
        self.joins: list[dict[str, Any]] = given["joins"]
        self.rowwise: bool = given["rowwise"]
        self._function = _function(folder / given["code"], given["function"])

    def __call__(self, columns: Mapping[str, Any]) -> dict[str, Array]:
        """The outputs for rows.

        Args:
            columns: the values of each input, as many of each; arrays, or sequences.

        Raises:
            FeatureError: a column is missing, a value does not fit, or the code does not do what it has
                declared; and whatever the code raises.
        """
        return self.run(self.arrays(columns))

    def arrays(self, columns: Mapping[str, Any]) -> dict[str, Array]:
        """Inputs as the code gets them, as many of each. Raises FeatureError."""
        found: dict[str, Array] = {}
        for column in self.inputs:
            if column.name not in columns:
                raise FeatureError(
                    f"column '{column.name}' is missing; there are {', '.join(columns) or 'none'}"
                )
            values = columns[column.name]
            if column.type == "time" and getattr(values, "dtype", None) == DTYPES["time"]:
                found[column.name] = values
                continue
            try:
                found[column.name] = cast(column, values, text=False)
            except (ValueError, TypeError, OverflowError) as error:
                raise FeatureError(f"column '{column.name}': {error}") from None
        sizes = {len(array) for array in found.values()}
        if len(sizes) > 1:
            raise FeatureError("the columns have different lengths")
        return found

    def run(self, columns: Mapping[str, Array]) -> dict[str, Array]:
        """The outputs for columns that have their types. Raises as a call does."""
        rows = len(next(iter(columns.values())))
        if not self.rowwise:
            found = self._once({n: a.copy() for n, a in columns.items()}, rows, rows)
        else:
            parts = [
                self._once(*_block(columns, start, rows)) for start in range(0, rows, BLOCK)
            ] or [self._empty()]
            found = {
                one.name: np.concatenate([part[one.name] for part in parts]) for one in self.outputs
            }
        bad: dict[int, str] = {}
        for one in self.outputs:
            bad = one.unfit(found[one.name]) | bad
        if bad:
            row = min(bad)
            raise FeatureError(f"row {row}: {bad[row]}", bad)
        return found

    def _empty(self) -> dict[str, Array]:
        shapes = {one.name: (0,) if one.width is None else (0, one.width) for one in self.outputs}
        return {one.name: np.zeros(shapes[one.name], one.dtype) for one in self.outputs}

    def _once(self, columns: dict[str, Array], size: int, rows: int) -> dict[str, Array]:
        """What the code gives for `size` rows, of which the first `rows` are wanted."""
        with np.errstate(all="ignore"):  # what is not finite is found by its declaration
            given = self._function(columns)
        if not isinstance(given, Mapping):
            raise FeatureError(
                f"the code gives a {type(given).__name__}; a dict of arrays is wanted"
            )
        names = {one.name for one in self.outputs}
        for name in given:
            if name not in names:
                raise FeatureError(f"the code gives '{name}', which is no declared output")
        for name in names:
            if name not in given:
                raise FeatureError(f"the code gives no '{name}', which is declared")
        return {one.name: one.checked(given[one.name], size)[:rows] for one in self.outputs}

    def look_alone(self, columns: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        """Hold a few rows against what each gets by itself, to the bit.

        Raises:
            FeatureError: one gets something else, so that it would be served other numbers.
        """
        if not self.rowwise or not len(next(iter(columns.values()))):
            return
        rows = len(next(iter(columns.values())))
        for row in sorted(
            {0, 1 % rows, BLOCK - 1 if rows >= BLOCK else rows - 1, rows // 2, rows - 1}
        ):
            alone = self.run({name: array[row : row + 1] for name, array in columns.items()})
            for name, array in alone.items():
                if not same(array, outputs[name][row : row + 1]):
                    why = (
                        f"alone it has another '{name}' than among other rows: the code looks at "
                        "them, or at something that changes; declare `rowwise: false` if it is meant to"
                    )
                    raise FeatureError(f"row {row}: {why}", {row: why})


def content(folder: Path) -> str:
    """A digest of all that is in a version's folder."""
    whole = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = str(path.relative_to(folder)).encode()
        whole.update(b"%d %s %s\n" % (len(name), name, hashlib.sha256(path.read_bytes()).digest()))
    return whole.hexdigest()


def same(one: Array, other: Array) -> bool:
    """Whether two arrays are equal to the bit."""
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    if one.dtype == np.object_:
        return bool((one == other).all())
    return np.ascontiguousarray(one).tobytes() == np.ascontiguousarray(other).tobytes()


def load(folder: str | os.PathLike[str] | None = None) -> Features:
    """A version by its folder; by default what `features:` of the job names. Raises FeatureError."""
    where = folder if folder is not None else os.environ.get(VARIABLE)
    if where is None:
        raise FeatureError("the job names no `features:`, and no folder was given")
    return Features(Path(where))


def _block(
    columns: Mapping[str, Array], start: int, rows: int
) -> tuple[dict[str, Array], int, int]:
    wanted = min(BLOCK, rows - start)
    block = {}
    for name, array in columns.items():
        piece = np.empty(BLOCK, array.dtype)
        piece[:wanted] = array[start : start + wanted]
        piece[wanted:] = array[start + wanted - 1]
        block[name] = piece
    return block, BLOCK, wanted


def _check_packages(wanted: Sequence[str]) -> None:
    """Raises FeatureError where a package has another version: it may give other numbers."""
    for text in wanted:
        name, _, version = text.partition("==")
        try:
            there = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            there = ""
        if there != version:
            has = f"has {there}" if there else "does not have it"
            raise FeatureError(f"the features want {text}, and this environment {has}")


def _function(path: Path, name: str) -> Any:
    module = _module(path)
    found = getattr(module, name, None)
    if not callable(found):
        raise FeatureError(f"{path.name} has no function {name}")
    return found


def _module(path: Path) -> ModuleType:
    """The code, by its path; what it imports may be beside it."""
    spec = importlib.util.spec_from_file_location(f"_features_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise FeatureError(f"{path.name} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    sys.path.insert(0, str(path.parent))
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise FeatureError(f"{path.name} cannot be loaded: {error!r}") from error
    finally:
        sys.path.remove(str(path.parent))
        sys.dont_write_bytecode = before
    return module
