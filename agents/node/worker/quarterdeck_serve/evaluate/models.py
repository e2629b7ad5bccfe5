"""Models that can be evaluated: ONNX, by the code of the model server, and scikit-learn's by skops."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol
from zipfile import BadZipFile

import numpy as np

from ..batch.mapping import Input, assign, tensors
from ..batch.tables import Bad, Table
from ..oip import Array, TensorSpec
from .mistakes import Mistake, some

ROWS = 1024
"""Rows of one inference."""


class Predictor(Protocol):
    """`classes`: those that the model names itself. `single`: it takes one row at a time only."""

    classes: tuple[str, ...]
    single: bool

    def prepare(
        self,
        table: Table,
        rest: Sequence[str],
        features: Sequence[str],
        bad: list[Bad],
        *,
        allow_nan: bool,
    ) -> dict[str, Array]:
        """The inputs of some rows. `rest` are the columns that may be features. Raises Mistake."""
        ...

    def names(self, name: str) -> tuple[str, ...]:
        """What the places of an input are called, of one that is a vector."""
        ...

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]: ...


class Onnx:
    """An ONNX model."""

    def __init__(self, path: Path) -> None:
        try:
            from ..model import Model

            self._model = Model(path)
        except ImportError as error:
            raise Mistake(
                f"an ONNX model needs {error.name}, which is not in this interpreter"
            ) from None
        except SystemExit as error:
            raise Mistake(str(error.code)) from None
        self.classes: tuple[str, ...] = ()
        self.single = any(spec.shape[:1] == (1,) for spec in self._model.inputs)
        self._outputs = [spec.name for spec in self._model.outputs]
        self._inputs: list[Input] = []

    def prepare(
        self,
        table: Table,
        rest: Sequence[str],
        features: Sequence[str],
        bad: list[Bad],
        *,
        allow_nan: bool,
    ) -> dict[str, Array]:
        if not self._inputs:
            self._inputs = _assigned(self._model.inputs, rest, features)
        missing = [n for one in self._inputs for n in one.columns if n not in table.names()]
        if missing:
            raise Mistake(
                f"there is no column '{missing[0]}' in every file; one has {some(table.names())}"
            )
        return tensors(table, self._inputs, bad, allow_nan=allow_nan)[1]

    def names(self, name: str) -> tuple[str, ...]:
        found = next(one for one in self._inputs if one.spec.name == name)
        if len(found.columns) > 1:
            return found.columns
        width = found.spec.shape[1] if len(found.spec.shape) == 2 else 0
        return tuple(f"{name}[{n}]" for n in range(width))

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        return dict(zip(self._outputs, self._model.run(dict(inputs), self._outputs), strict=True))


class Skops:
    """An estimator of scikit-learn that skops has stored. Types that skops does not trust are refused."""

    single = False

    def __init__(self, path: Path) -> None:
        try:
            from skops import io
        except ImportError:
            raise Mistake("a skops model needs skops, which is not in this interpreter") from None
        try:
            strange = io.get_untrusted_types(file=path)
            if strange:
                raise Mistake(f"{path.name} holds types that skops does not trust: {some(strange)}")
            self._estimator: Any = io.load(path)
        except (OSError, ValueError, TypeError, KeyError, BadZipFile) as error:
            raise Mistake(f"{path.name} cannot be loaded: {error}") from None
        self.classes = tuple(str(one) for one in getattr(self._estimator, "classes_", ()))
        self._features: tuple[str, ...] = ()

    def prepare(
        self,
        table: Table,
        rest: Sequence[str],
        features: Sequence[str],
        bad: list[Bad],
        *,
        allow_nan: bool,
    ) -> dict[str, Array]:
        if not self._features:
            own = tuple(str(n) for n in getattr(self._estimator, "feature_names_in_", ()))
            width = int(getattr(self._estimator, "n_features_in_", len(rest)))
            chosen = tuple(features) or own or tuple(rest)
            if len(chosen) != width:
                raise Mistake(
                    f"the model takes {width} columns, and there are {len(chosen)}: {some(chosen)}; "
                    "name them with --features"
                )
            self._features = chosen
        spec = TensorSpec("features", "FP64", (-1, len(self._features)))
        found = _assigned([spec], table.names(), self._features)
        return tensors(table, found, bad, allow_nan=allow_nan)[1]

    def names(self, name: str) -> tuple[str, ...]:
        return self._features

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        rows = inputs["features"]
        own = getattr(self._estimator, "feature_names_in_", None)
        if own is not None:
            try:
                import pandas as pd
            except ImportError:
                raise Mistake("a model that was fitted on named columns needs pandas") from None
            rows = pd.DataFrame(rows, columns=list(own))
        found = {"label": np.asarray(self._estimator.predict(rows))}
        if hasattr(self._estimator, "predict_proba"):
            found["probabilities"] = np.asarray(self._estimator.predict_proba(rows))
        return found


def _assigned(
    specs: Sequence[TensorSpec], names: Sequence[str], features: Sequence[str]
) -> list[Input]:
    try:
        return assign(specs, names, features)
    except SystemExit as error:
        raise Mistake(str(error.code)) from None


def load(kind: str, path: Path) -> Predictor:
    """Raises Mistake for a format that cannot be evaluated."""
    if kind == "onnx":
        return Onnx(path)
    if kind == "skops":
        return Skops(path)
    raise Mistake(f"a model of the format {kind} cannot be evaluated; allowed: onnx, skops")


def run(model: Predictor, inputs: Mapping[str, Array], rows: int = ROWS) -> dict[str, Array]:
    """The outputs of all rows, so many at a time."""
    count = len(next(iter(inputs.values())))
    step = 1 if model.single else rows
    parts = [
        model.run({name: array[start : start + step] for name, array in inputs.items()})
        for start in range(0, count, step)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
