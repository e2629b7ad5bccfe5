"""From columns to a model's inputs: which column is what, and rows whose values do not fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..oip import DTYPES, Array, TensorSpec
from .tables import Bad, Table


@dataclass(frozen=True)
class Input:
    """One input of the model and the columns that it is made of: one with whole values, or one a number."""

    spec: TensorSpec
    columns: tuple[str, ...]


def assign(
    specs: Sequence[TensorSpec], names: Sequence[str], features: Sequence[str]
) -> list[Input]:
    """Which columns make up which input.

    A column with the input's name; else, for the one input that is a vector, the columns `features`, or
    those named `INPUT_0`, `INPUT_1` ..., or all when there are just so many.

    Raises SystemExit, naming what is wanted and what there is.
    """
    missing = [name for name in features if name not in names]
    if missing:
        raise SystemExit(f"--features: there is no column '{missing[0]}'; there are {_some(names)}")
    return [_input(spec, names, features, alone=len(specs) == 1) for spec in specs]


def _input(
    spec: TensorSpec, names: Sequence[str], features: Sequence[str], *, alone: bool
) -> Input:
    if not spec.shape or spec.shape[0] > 1:
        raise SystemExit(
            f"input '{spec.name}' has the shape {list(spec.shape)}, so it takes no rows"
        )
    inner = spec.shape[1:]
    if features and alone:
        if len(inner) != 1 or inner[0] not in (-1, len(features)):
            raise SystemExit(
                f"--features: {len(features)} columns do not make up '{spec.name}' of {list(spec.shape)}"
            )
        return Input(spec, tuple(features))
    if spec.name in names:
        return Input(spec, (spec.name,))
    width = inner[0] if len(inner) == 1 else 0
    numbered = tuple(f"{spec.name}_{n}" for n in range(max(width, 0)))
    if numbered and set(numbered) <= set(names):
        return Input(spec, numbered)
    if alone and width > 0 and len(names) == width:
        return Input(spec, tuple(names))
    hint = f", or name its {width} columns with --features" if width > 0 else ""
    raise SystemExit(
        f"no column is named '{spec.name}', the model's input{hint}; there are {_some(names)}"
    )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")


def tensors(
    table: Table, inputs: Sequence[Input], bad: list[Bad], *, allow_nan: bool
) -> tuple[Table, dict[str, Array]]:
    """The model's inputs, and the rows that they are of. Rows that do not fit are added to `bad`."""
    found: dict[str, Array] = {}
    reasons: dict[int, str] = {}
    for one in inputs:
        try:
            found[one.spec.name] = _tensor(table.values(one.columns), one.spec, text=table.text)
        except (ValueError, TypeError, OverflowError):
            _find_bad(table, one, reasons)
            continue
        if not allow_nan:
            _not_finite(found[one.spec.name], one.spec.name, reasons)
    if not reasons:
        return table, found
    for index, reason in sorted(reasons.items()):
        bad.append(Bad(table.places[index], reason, table.record(index)))
    good = [n for n in range(len(table.places)) if n not in reasons]
    if not good:
        return table.take([]), {}
    return tensors(table.take(good), inputs, bad, allow_nan=allow_nan)


def _not_finite(array: Array, name: str, reasons: dict[int, str]) -> None:
    if array.dtype.kind != "f":
        return
    fine = np.isfinite(array).reshape(len(array), -1).all(axis=1)
    for index in np.flatnonzero(~fine).tolist():
        reasons.setdefault(index, f"input '{name}' has values that are not finite")


def _find_bad(table: Table, one: Input, reasons: dict[int, str]) -> None:
    """Row by row, which a batch without bad rows never is."""
    for index in range(len(table.places)):
        try:
            _tensor(table.take([index]).values(one.columns), one.spec, text=table.text)
        except (ValueError, TypeError, OverflowError) as error:
            reasons.setdefault(index, f"input '{one.spec.name}': {error}"[:500])


def _tensor(values: Any, spec: TensorSpec, *, text: bool) -> Array:
    """Raises ValueError and its kind when a value does not fit."""
    array = _texts(values) if spec.datatype == "BYTES" else _numbers(values, spec.datatype, text)
    count = len(values)
    inner = spec.shape[1:]
    if array.ndim == 1 and (not inner or inner == (1,) or inner == (-1,)):
        return array.reshape((count, *(1 for _ in inner)))
    if array.shape[1:] != inner:
        fits = len(array.shape) == len(spec.shape) and all(
            want in (-1, have) for have, want in zip(array.shape[1:], inner, strict=True)
        )
        if not fits:
            if -1 in inner or array.size != count * int(np.prod(inner)):
                raise ValueError(
                    f"the shape of a row is {list(array.shape[1:])}, {list(inner)} is wanted"
                )
            array = array.reshape((count, *inner))
    return array


def _texts(values: Any) -> Array:
    array = np.array(values, dtype=np.object_)
    if not all(isinstance(value, str) for value in array.ravel()):
        raise ValueError("text is wanted")
    return array


_TRUTH: Mapping[str, bool] = {"true": True, "1": True, "false": False, "0": False}


def _numbers(values: Any, datatype: str, text: bool) -> Array:
    wanted = np.dtype(DTYPES[datatype])
    raw = np.asarray(values)
    if text:
        if wanted.kind == "b":
            truth = [_TRUTH.get(value.lower()) for value in raw.ravel().tolist()]
            if None in truth:
                raise ValueError("true or false is wanted")
            return np.array(truth, np.bool_).reshape(raw.shape)
        # Through the widest kind of number, as JSON comes: the same text is the same number online.
        raw = raw.astype({"f": np.float64, "i": np.int64, "u": np.uint64}[wanted.kind])
    allowed = {"b": "b", "i": "iu", "u": "iu", "f": "iuf"}[wanted.kind]
    if raw.size and raw.dtype.kind not in allowed:
        raise ValueError(f"the values are not all {datatype}")
    if wanted.kind in "iu" and raw.size:
        limits = np.iinfo(wanted)
        if raw.min() < limits.min or raw.max() > limits.max:
            raise ValueError(f"a value does not fit into {datatype}")
    with np.errstate(over="ignore"):  # it becomes infinite, which is then found
        return raw.astype(wanted, copy=False)
