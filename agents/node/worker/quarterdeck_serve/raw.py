"""A model behind a transform: it takes raw columns, and the numbers that the model gets are those that it
was trained with."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .app import Runnable
from .batch.mapping import Input
from .batch.tables import Bad, Table
from .features.columns import DTYPES, Column, cast, find_bad
from .features.transform import FeatureError, Features, Output
from .oip import DTYPES as WIRE
from .oip import Array, BadRequest, TensorSpec

_SENT = {"number": "FP64", "integer": "INT64", "boolean": "BOOL", "text": "BYTES", "time": "BYTES"}


class RawModel:
    """Takes a tensor for each input of the transform, with a value for each row; times as text in ISO 8601.

    Raises:
        SystemExit: its outputs are not what the model takes, or it looks at other rows.
    """

    def __init__(self, model: Runnable, folder: Path) -> None:
        try:
            self._features = Features(folder)
        except FeatureError as error:
            raise SystemExit(f"features: {error}") from None
        if not self._features.rowwise:
            raise SystemExit(
                "features: they look at other rows (rowwise: false), which none has here"
            )
        self._model = model
        self.platform, self.outputs = model.platform, model.outputs
        self._single = any(spec.shape[:1] == (1,) for spec in model.inputs)
        self._made = [
            _made(spec, self._features.outputs, len(model.inputs)) for spec in model.inputs
        ]
        self.inputs = [
            TensorSpec(column.name, _SENT[column.type], (-1,), column.missing)
            for column in self._features.inputs
        ]
        with contextlib.suppress(Exception):  # a first call takes longest; these rows may be none
            self.run({one.name: _some(one) for one in self._features.inputs}, [])

    def run(self, inputs: dict[str, Array], outputs: list[str]) -> list[Array]:
        """See `Runnable`. Raises BadRequest for rows that the transform has no features for."""
        try:
            given = self._features(inputs)
        except FeatureError as error:
            raise BadRequest(str(error)) from None
        tensors = {spec.name: _joined(spec, parts, given) for spec, parts in self._pairs()}
        if not self._single:
            return self._model.run(tensors, outputs)
        rows = len(next(iter(tensors.values())))
        each = [
            self._model.run({n: a[row : row + 1] for n, a in tensors.items()}, outputs)
            for row in range(rows)
        ]
        return [np.concatenate(parts) for parts in zip(*each, strict=True)]

    def _pairs(self) -> Any:
        return zip(self._model.inputs, self._made, strict=True)

    def tensors(
        self, table: Table, inputs: Sequence[Input], bad: list[Bad]
    ) -> tuple[Table, dict[str, Array]]:
        """As `batch.mapping.tensors`, by the types that the transform declares."""
        columns = self._features.inputs
        held = [table.values(one.columns) for one in inputs]
        try:
            return table, {
                column.name: cast(column, values, text=table.text)
                for column, values in zip(columns, held, strict=True)
            }
        except (ValueError, TypeError, OverflowError):
            reasons = find_bad(columns, held, text=table.text)
        for index, reason in sorted(reasons.items()):
            bad.append(Bad(table.places[index], reason, table.record(index)))
        good = [n for n in range(len(table.places)) if n not in reasons]
        if not good:
            return table.take([]), {}
        return self.tensors(table.take(good), inputs, bad)


def _made(spec: TensorSpec, outputs: Sequence[Output], inputs: int) -> list[Output]:
    """The outputs of the transform that make up an input of the model: the one of its name; else, for the
    one input, all of them, side by side, when they are as wide as it is."""
    named = [one for one in outputs if one.name == spec.name]
    found = named or (list(outputs) if inputs == 1 else [])
    width = sum(one.width or 1 for one in found)
    wanted = spec.shape[1] if len(spec.shape) == 2 else 1 if len(spec.shape) == 1 else None
    fits = found and wanted in (-1, width)
    if not fits or (len(spec.shape) == 1 and len(found) > 1):
        there = ", ".join(f"{one.name} of {one.width or 1}" for one in outputs)
        raise SystemExit(
            f"features: the model's input '{spec.name}' of {list(spec.shape)} is made up by none of "
            f"their outputs: {there}"
        )
    target = np.dtype(WIRE[spec.datatype])
    for one in found:
        if not np.can_cast(one.dtype, target, "same_kind"):
            raise SystemExit(
                f"features: output '{one.name}' is {one.type}, and the model's input '{spec.name}' "
                f"is {spec.datatype}"
            )
    return found


def _joined(spec: TensorSpec, outputs: Sequence[Output], given: dict[str, Array]) -> Array:
    target = np.dtype(WIRE[spec.datatype])
    if len(spec.shape) == 1:
        return given[outputs[0].name].astype(target, copy=False)
    parts = [given[one.name].reshape(len(given[one.name]), -1) for one in outputs]
    whole = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
    return whole.astype(target, copy=False)


def _some(column: Column) -> Array:
    """A value that is as good as any."""
    if column.type == "time":
        return np.array(["2000-01-01T00:00:00Z"], np.object_)
    if column.type == "text":
        return np.array(["x"], np.object_)
    return np.ones(1, DTYPES[column.type])
