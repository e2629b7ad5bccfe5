"""Metrics as functions of the weights of rows.

With weights of one a metric is what scikit-learn's function of the same name gives (the tests compare them);
with the counts of a bootstrap resample it is the metric of that resample. So an interval costs a thousand
passes over arrays that are already there, and two versions that were measured on the same rows share their
resamples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Metric = Callable[[Floats], float]
"""Of weights (one for each row, 0 or more) the metric; NaN where it is not defined."""

BINS = 15
"""Of the calibration, equally wide (Guo et al., On Calibration of Modern Neural Networks, 2017)."""

LESS_IS_BETTER = frozenset({"log_loss", "ece", "rmse", "mae"})


@dataclass(frozen=True)
class Classified:
    """Classes by number: the true one and the predicted one of each row, and the probabilities (rows x
    classes) where the model gives them. `positive` is the class that a yes is, of two."""

    truth: Ints
    predicted: Ints
    classes: tuple[str, ...]
    probabilities: Floats | None = None
    positive: int | None = None

    def take(self, rows: Any) -> Classified:
        given = self.probabilities
        return Classified(
            self.truth[rows],
            self.predicted[rows],
            self.classes,
            None if given is None else given[rows],
            self.positive,
        )

    def metrics(self) -> dict[str, Metric]:
        found: dict[str, Metric] = {
            "accuracy": mean_of(self.truth == self.predicted),
            "macro_f1": macro_f1(self.truth, self.predicted, len(self.classes)),
        }
        if self.probabilities is not None:
            found["log_loss"] = log_loss(self.truth, self.probabilities)
            found["roc_auc"] = roc_auc(self.truth, self.probabilities)
            found["ece"] = calibration_error(
                self.truth == self.predicted, self.probabilities.max(axis=1)
            )
        return found


@dataclass(frozen=True)
class Regressed:
    """The true and the predicted number of each row."""

    truth: Floats
    predicted: Floats

    def take(self, rows: Any) -> Regressed:
        return Regressed(self.truth[rows], self.predicted[rows])

    def metrics(self) -> dict[str, Metric]:
        off = self.predicted - self.truth
        squares = mean_of(off**2)
        return {
            "rmse": lambda weights: math.sqrt(squares(weights)),
            "mae": mean_of(np.abs(off)),
            "r2": r2(self.truth, self.predicted),
        }


Judged = Classified | Regressed


def mean_of(values: NDArray[Any]) -> Metric:
    numbers = np.asarray(values, np.float64)

    def metric(weights: Floats) -> float:
        total = float(weights.sum())
        return float(weights @ numbers) / total if total else math.nan

    return metric


def macro_f1(truth: Ints, predicted: Ints, classes: int) -> Metric:
    """The mean of the classes' F1, of those that occur in truth or prediction."""
    right = (truth == predicted).astype(np.float64)

    def metric(weights: Floats) -> float:
        hits = np.bincount(truth, weights * right, classes)
        seen = np.bincount(truth, weights, classes) + np.bincount(predicted, weights, classes)
        there = seen > 0
        return float((2 * hits[there] / seen[there]).mean()) if there.any() else math.nan

    return metric


def log_loss(truth: Ints, probabilities: Floats) -> Metric:
    """The mean of -log(probability of the true class), clipped as scikit-learn clips it."""
    tiny = float(np.finfo(probabilities.dtype).eps)
    scaled = probabilities / probabilities.sum(axis=1, keepdims=True)
    own = np.clip(scaled[np.arange(len(truth)), truth], tiny, 1 - tiny)
    return mean_of(-np.log(own))


def roc_auc(truth: Ints, probabilities: Floats) -> Metric:
    """The area under the ROC curve: of two classes, that of the second; of more, the mean of each against
    the rest. Not defined where a class has no rows."""
    width = probabilities.shape[1]
    if width == 2:
        return _auc(truth == 1, probabilities[:, 1])
    each = [_auc(truth == one, probabilities[:, one]) for one in range(width)]
    return lambda weights: float(np.mean([one(weights) for one in each]))


def _auc(positive: NDArray[np.bool_], scores: Floats) -> Metric:
    order = np.argsort(scores, kind="stable")
    ranked, yes = scores[order], positive[order].astype(np.float64)
    first = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])  # of each run of equal scores

    def metric(weights: Floats) -> float:
        sorted_ = weights[order]
        up = np.add.reduceat(sorted_ * yes, first)
        down = np.add.reduceat(sorted_ * (1 - yes), first)
        pairs = float(up.sum() * down.sum())
        if not pairs:
            return math.nan
        below = np.cumsum(down) - down
        return float(up @ (below + down / 2)) / pairs

    return metric if len(scores) else lambda weights: math.nan


def calibration_error(right: NDArray[np.bool_], confidence: Floats) -> Metric:
    """ECE: how far the share of right predictions is from their confidence, bin by bin."""
    bins, hits = bin_of(confidence), right.astype(np.float64)

    def metric(weights: Floats) -> float:
        total = float(weights.sum())
        if not total:
            return math.nan
        gap = np.bincount(bins, weights * (hits - confidence), BINS)
        return float(np.abs(gap).sum()) / total

    return metric


def bin_of(confidence: Floats) -> Ints:
    found: Ints = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    return found


def r2(truth: Floats, predicted: Floats) -> Metric:
    squares = (truth - predicted) ** 2

    def metric(weights: Floats) -> float:
        total = float(weights.sum())
        if not total:
            return math.nan
        spread = float(weights @ (truth - weights @ truth / total) ** 2)
        return 1 - float(weights @ squares) / spread if spread > 0 else math.nan

    return metric


def rounded(value: float) -> float | None:
    """As it is stored: seven digits, and nothing where it is not defined."""
    return float(f"{value:.7g}") if math.isfinite(value) else None


def points(metrics: Mapping[str, Metric], rows: int) -> dict[str, float]:
    """What the metrics are on all rows as they are."""
    ones = np.ones(rows)
    return {name: metric(ones) for name, metric in metrics.items()}
