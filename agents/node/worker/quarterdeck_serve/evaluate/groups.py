"""Slices of the rows, and how differently groups are treated.

The differences and ratios are Fairlearn's (`demographic_parity_difference`, `equalized_odds_difference`,
`MetricFrame.difference`, all between groups, agg="worst_case"); the tests compare them with it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .metrics import Classified, Floats, Judged, Metric, mean_of
from .mistakes import Mistake

MOST = 20
"""Slices of a column: of more different numbers, quarters are made; of more different words, none."""
PREFIX = "fairness."


@dataclass(frozen=True)
class Slice:
    """The rows (numbers, ascending) with a value in a column."""

    column: str
    value: str
    rows: NDArray[np.int64]


def slices(column: str, values: Sequence[Any]) -> list[Slice]:
    """The slices of a column, by value. Raises Mistake where it has too many different words."""
    words = [word_of(value) for value in values]
    names = sorted(set(words), key=_order)
    if len(names) <= MOST:
        return [_slice(column, name, [word == name for word in words]) for name in names]
    numbers = np.array([_number(word) for word in words])
    if np.isfinite(numbers).mean() < 0.9:
        raise Mistake(
            f"column '{column}' has {len(names)} different values, so it makes no slices; allowed: {MOST}, "
            "or numbers"
        )
    finite = numbers[np.isfinite(numbers)]
    edges = np.unique(np.quantile(finite, [0, 0.25, 0.5, 0.75, 1]))
    found = []
    for place, (low, high) in enumerate(itertools.pairwise(edges)):
        last = place == len(edges) - 2
        inside = (numbers >= low) & ((numbers <= high) if last else (numbers < high))
        name = f"{low:.6g} to {high:.6g}" if last else f"{low:.6g} to under {high:.6g}"
        found.append(_slice(column, name, inside))
    if not np.isfinite(numbers).all():
        found.append(_slice(column, "missing", ~np.isfinite(numbers)))
    return [one for one in found if len(one.rows)]


def _slice(column: str, value: str, inside: Any) -> Slice:
    return Slice(column, value, np.flatnonzero(np.asarray(inside)))


def word_of(value: Any) -> str:
    """A value as people write it: 3.0 is 3, nothing is "missing"."""
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        return "missing"
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    text = str(value)
    return text[:-2] if text.endswith(".0") and text[:-2].lstrip("-").isdigit() else text


def _number(word: str) -> float:
    try:
        return float(word)
    except ValueError:
        return math.nan


def _order(word: str) -> tuple[float, str]:
    number = _number(word)
    return (number if math.isfinite(number) else math.inf), word


def key(name: str, one: Slice) -> str:
    """What the samples of a metric of a slice are called."""
    return f"{name}[{one.column}={one.value}]"


def on(judged: Judged, one: Slice) -> dict[str, Metric]:
    """The metrics of a slice, by name, as functions of the weights of all rows."""
    inner = judged.take(one.rows).metrics()
    inner.pop("roc_auc", None)  # a slice seldom has all classes

    def of(metric: Metric) -> Metric:
        return lambda weights: metric(weights[one.rows])

    return {name: of(metric) for name, metric in inner.items()}


def fairness(judged: Judged, groups: Sequence[Slice]) -> dict[str, Metric]:
    """How much groups differ. What speaks of a positive class is there for classification with one."""
    if not isinstance(judged, Classified):
        errors = np.abs(judged.predicted - judged.truth)
        mae = _each(groups, lambda rows: mean_of(errors[rows]))
        return {"mae_difference": _spread(mae), "mae_ratio": _ratio(mae)}
    right = judged.truth == judged.predicted
    accuracy = _each(groups, lambda rows: mean_of(right[rows]))
    found = {"accuracy_difference": _spread(accuracy), "accuracy_ratio": _ratio(accuracy)}
    if judged.positive is None:
        return found
    said, true = judged.predicted == judged.positive, judged.truth == judged.positive
    selected = _each(groups, lambda rows: mean_of(said[rows]))
    hits = _each(groups, lambda rows: _share(said[rows], true[rows]))
    alarms = _each(groups, lambda rows: _share(said[rows], ~true[rows]))
    hit_gap, alarm_gap = _spread(hits), _spread(alarms)
    hit_ratio, alarm_ratio = _ratio(hits), _ratio(alarms)
    return {
        "demographic_parity_difference": _spread(selected),
        "demographic_parity_ratio": _ratio(selected),
        "equalized_odds_difference": lambda w: max(hit_gap(w), alarm_gap(w)),
        "equalized_odds_ratio": lambda w: min(hit_ratio(w), alarm_ratio(w)),
        "equal_opportunity_difference": hit_gap,
        "equal_opportunity_ratio": hit_ratio,
        **found,
    }


Rates = Callable[[Floats], Floats]


def _each(groups: Sequence[Slice], of: Callable[[NDArray[np.int64]], Metric]) -> Rates:
    parts = [(one.rows, of(one.rows)) for one in groups]
    return lambda weights: np.array([metric(weights[rows]) for rows, metric in parts])


def _share(said: NDArray[np.bool_], among: NDArray[np.bool_]) -> Metric:
    """The share of `said` among some rows; 0 where there are none, as scikit-learn's recall has it."""
    values, chosen = said.astype(np.float64), among.astype(np.float64)

    def metric(weights: Floats) -> float:
        if not float(weights.sum()):
            return math.nan  # the group was not drawn
        total = float(weights @ chosen)
        return float(weights @ (values * chosen)) / total if total else 0.0

    return metric


def _spread(rates: Rates) -> Metric:
    def metric(weights: Floats) -> float:
        found = rates(weights)
        return float(found.max() - found.min()) if np.isfinite(found).all() else math.nan

    return metric


def _ratio(rates: Rates) -> Metric:
    def metric(weights: Floats) -> float:
        found = rates(weights)
        if not np.isfinite(found).all() or found.max() == 0:
            return math.nan
        return float(found.min() / found.max())

    return metric


def named(metrics: Mapping[str, Metric], column: str) -> dict[str, Metric]:
    """As samples call them."""
    return {f"{PREFIX}{name}[{column}]": metric for name, metric in metrics.items()}
