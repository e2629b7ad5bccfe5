"""From a model's outputs and the column of the truth to what metrics are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..oip import Array
from .groups import word_of
from .metrics import Classified, Floats, Judged, Regressed
from .mistakes import Mistake, some


@dataclass(frozen=True)
class Wanted:
    """What a person has said of the outputs; None: what they look like.

    `classes` are in the order of the model's scores, `positive` is the class that counts as a yes.
    """

    task: str | None = None
    output: str | None = None
    classes: tuple[str, ...] = ()
    positive: str | None = None


@dataclass(frozen=True)
class Reading:
    """How the outputs were read, in words, and the classes."""

    task: str
    output: str
    scores: str | None  # "probabilities", "softmax of logits", "sigmoid of logits"
    classes: tuple[str, ...] = ()
    positive: str | None = None


def check_truth(name: str, values: Sequence[Any]) -> list[str]:
    """The truth as words. Raises Mistake for a value that is missing."""
    words = [word_of(value) for value in values]
    missing = [place for place, word in enumerate(words) if word in ("missing", "nan", "NaN")]
    if missing:
        raise Mistake(
            f"column '{name}' has no value in {len(missing)} of {len(words)} rows, first in row "
            f"{missing[0] + 1}"
        )
    return words


class Reader:
    """Reads outputs, always in the way that the first ones and the truth have suggested.

    Args:
        own: the classes that the model itself names, in the order of its scores.

    Raises:
        Mistake: outputs and truth do not fit together.
    """

    def __init__(
        self,
        outputs: Mapping[str, Array],
        target: str,
        truth: Sequence[str],
        wanted: Wanted,
        own: Sequence[str] = (),
    ) -> None:
        self._target, self._words = target, list(truth)
        self._kind: str | None = None
        names = {name: _flat(name, array) for name, array in outputs.items()}
        if wanted.output is not None and wanted.output not in names:
            raise Mistake(f"there is no output '{wanted.output}'; there are {some(list(names))}")
        if wanted.output is not None:
            names = {wanted.output: names[wanted.output]}
        wide = [
            name for name, array in names.items() if array.ndim == 2 and array.dtype.kind == "f"
        ]
        thin = [name for name, array in names.items() if array.ndim == 1]
        labels = [name for name in thin if names[name].dtype.kind in "iubOUS"]
        self._labels = labels[0] if labels else None
        self._scores = wide[0] if wide else None
        numbers = [name for name in thin if names[name].dtype.kind in "fiu"]
        regression = wanted.task == "regression" or (
            wanted.task is None
            and self._scores is None
            and bool(numbers)
            and not self._binary(names, numbers[0])
            and _numeric(self._words)
            and (names[numbers[0]].dtype.kind == "f" or len(set(self._words)) > 50)
        )
        if regression:
            self._regression(numbers)
        else:
            self._classification(names, numbers, wanted, own)

    def _binary(self, names: Mapping[str, Array], number: str) -> bool:
        values = names[number]
        return (
            len(set(self._words)) <= 2
            and values.dtype.kind == "f"
            and bool((values >= 0).all() and (values <= 1).all())
        )

    def _regression(self, numbers: Sequence[str]) -> None:
        if not numbers:
            raise Mistake(
                "the model has no output with one number for each row; name one, --output"
            )
        if not _numeric(self._words):
            word = next(word for word in self._words if not _is_number(word))
            raise Mistake(f"column '{self._target}' is no number everywhere: it has '{word}'")
        self._number = numbers[0]
        self._truth = np.array([float(word) for word in self._words])
        self.reading = Reading("regression", self._number, None)

    def _classification(
        self,
        names: Mapping[str, Array],
        numbers: Sequence[str],
        wanted: Wanted,
        own: Sequence[str],
    ) -> None:
        seen = sorted(set(self._words), key=lambda w: (not _is_number(w), _value(w), w))
        if len(seen) < 2:
            raise Mistake(
                f"column '{self._target}' has one class only, {seen[0]}: nothing can be told apart"
            )
        floats = [name for name in numbers if names[name].dtype.kind == "f"]
        if self._scores is None and self._labels is None and not floats:
            raise Mistake(f"no output looks like classes; there are {some(list(names))}")
        if self._scores is not None:
            width = names[self._scores].shape[1]
            classes = self._classes(width, seen, wanted, own)
            self._kind = _kind(names[self._scores])
        elif self._labels is not None:
            said = {word_of(value) for value in names[self._labels].tolist()}
            classes = tuple(wanted.classes or own) or tuple(
                sorted(said | set(seen), key=lambda w: (not _is_number(w), _value(w), w))
            )
        else:
            classes = self._classes(2, seen, wanted, own)
            self._scores = floats[0]
            self._kind = _kind(names[self._scores])
        strange = [word for word in seen if word not in classes]
        if strange:
            raise Mistake(
                f"column '{self._target}' has the class {strange[0]}, which is none of the model's: "
                f"{some(classes)}"
            )
        positive = wanted.positive
        if positive is not None and positive not in classes:
            raise Mistake(f"--positive: there is no class '{positive}'; there are {some(classes)}")
        if positive is None and len(classes) == 2:
            positive = classes[1]
        at = {word: place for place, word in enumerate(classes)}
        self._at = at
        self._truth_codes = np.array([at[word] for word in self._words], np.int64)
        told = self._scores or self._labels
        assert told is not None
        self.reading = Reading("classification", told, self._kind, classes, positive)

    def _classes(
        self, width: int, seen: Sequence[str], wanted: Wanted, own: Sequence[str]
    ) -> tuple[str, ...]:
        named = tuple(wanted.classes or own)
        if named:
            if len(named) != width:
                raise Mistake(
                    f"the model has scores for {width} classes, and {len(named)} are named"
                )
            return named
        counted = tuple(str(n) for n in range(width))
        if set(seen) <= set(counted):
            return counted
        if len(seen) == width:
            return tuple(seen)
        raise Mistake(
            f"the model has scores for {width} classes, and column '{self._target}' has {len(seen)}: "
            f"{some(seen)}; name the model's, in their order, with --classes"
        )

    def judged(self, outputs: Mapping[str, Array], rows: Any = None) -> Judged:
        """Truth and prediction. `rows`: which ones the outputs are of; all by default."""
        chosen = slice(None) if rows is None else rows
        if self.reading.task == "regression":
            predicted = np.asarray(_flat("", outputs[self._number]), np.float64)
            _finite(predicted, self._number)
            return Regressed(self._truth[chosen], predicted)
        truth, classes = self._truth_codes[chosen], self.reading.classes
        positive = None if self.reading.positive is None else self._at[self.reading.positive]
        probabilities = None
        if self._scores is not None:
            scores = np.asarray(_flat("", outputs[self._scores]), np.float64)
            _finite(scores, self._scores)
            probabilities = _probabilities(scores, self._kind)
        if self._labels is not None and self._labels in outputs:
            words = [word_of(v) for v in _flat("", outputs[self._labels]).tolist()]
            strange = next((word for word in words if word not in self._at), None)
            if strange is not None:
                raise Mistake(
                    f"the model predicts the class {strange}, which is not among {some(classes)}"
                )
            predicted_ = np.array([self._at[word] for word in words], np.int64)
        else:
            assert probabilities is not None
            predicted_ = probabilities.argmax(axis=1).astype(np.int64)
        return Classified(truth, predicted_, classes, probabilities, positive)

    def scores(self, outputs: Mapping[str, Array]) -> Floats:
        """What an explanation explains: the probabilities, or the number, of each row."""
        if self.reading.task == "regression":
            return np.asarray(_flat("", outputs[self._number]), np.float64)
        if self._scores is None:
            raise Mistake("the model gives classes without scores, which cannot be explained")
        raw = np.asarray(_flat("", outputs[self._scores]), np.float64)
        return _probabilities(raw, self._kind)


def _flat(name: str, array: Array) -> Array:
    """With one number a row as a vector."""
    if array.ndim == 2 and array.shape[1] == 1:
        return array[:, 0]
    if array.ndim > 2:
        if name:
            raise Mistake(
                f"output '{name}' has the shape {list(array.shape)}; allowed: rows of scores"
            )
        return array
    return array


def _finite(values: Floats, name: str) -> None:
    fine = np.isfinite(values).reshape(len(values), -1).all(axis=1)
    if not fine.all():
        bad = np.flatnonzero(~fine)
        raise Mistake(
            f"output '{name}' is not finite in {len(bad)} of {len(values)} rows, first in row {bad[0] + 1}"
        )


def _kind(scores: Array) -> str:
    inside = bool((scores >= -1e-6).all() and (scores <= 1 + 1e-6).all())
    if scores.ndim == 1:
        return "probabilities" if inside else "sigmoid of logits"
    sums = scores.sum(axis=1)
    if inside and bool(np.allclose(sums, 1, atol=1e-3)):
        return "probabilities"
    return "softmax of logits"


def _probabilities(scores: Floats, kind: str | None) -> Floats:
    if kind == "softmax of logits":
        raised = np.exp(scores - scores.max(axis=1, keepdims=True))
        return np.asarray(raised / raised.sum(axis=1, keepdims=True))
    if kind == "sigmoid of logits":
        scores = 0.5 * (1 + np.tanh(scores / 2))
    if scores.ndim == 1:
        return np.column_stack([1 - scores, scores])
    return np.clip(scores, 0.0, 1.0)


def _is_number(word: str) -> bool:
    try:
        return bool(np.isfinite(float(word)))
    except ValueError:
        return False


def _value(word: str) -> float:
    return float(word) if _is_number(word) else 0.0


def _numeric(words: Sequence[str]) -> bool:
    return all(_is_number(word) for word in words)
