"""Which features a model looks at: SHAP values, or permutation importance where SHAP is not there.

SHAP is asked through its permutation explainer, which needs nothing but predictions, against a sample of the
rows as the background. Permutation importance is scikit-learn's, of the first metric.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np

from .metrics import Floats, rounded
from .mistakes import Mistake

BACKGROUND = 20
"""Rows that stand for "this feature is not known"."""
SAMPLE = 100
"""Rows that the global explanation is the mean of."""
MOST = 256
"""Features that SHAP is asked about: predictions grow with them."""
REPEATS = 5
SHOWN = 20
"""Features of a row that are stored, the largest first."""


@dataclass(frozen=True)
class Explained:
    """`rows`: all rows, as numbers. `score`: of rows the scores; `right`: of rows, all of them with
    something changed, how right the model is, more is better; `metric`: what that is."""

    rows: Floats
    names: Sequence[str]
    score: Callable[[Any], Any]
    right: Callable[[Any], float]
    metric: str


def explain(what: Explained, count: int, classes: Sequence[str], seed: int) -> dict[str, Any]:
    """Raises Mistake where neither library is there."""
    why = ""
    if find_spec("shap") is None:
        why = "shap is not in the interpreter of the job"
    elif what.rows.shape[1] > MOST:
        why = f"there are {what.rows.shape[1]} features; SHAP is asked about {MOST} at most"
    if not why:
        return _shap(what, count, classes, seed)
    if find_spec("sklearn") is None:
        raise Mistake(f"no explanation without scikit-learn or shap: {why}")
    return {**_permutation(what, seed), "why": why}


def _shap(what: Explained, count: int, classes: Sequence[str], seed: int) -> dict[str, Any]:
    # Compiling costs more than it saves: 14 s of CPU against 3.6 s, for 100 rows of 64 features.
    if "numba" not in sys.modules:  # it does not take the change later on
        os.environ.setdefault("NUMBA_DISABLE_JIT", "1")
    import shap

    generator = np.random.default_rng(seed)
    order = generator.permutation(len(what.rows))
    chosen = np.sort(order[: max(SAMPLE, count)])
    background = what.rows[order[-BACKGROUND:]]
    explainer = shap.explainers.Permutation(
        what.score, shap.maskers.Independent(background, max_samples=BACKGROUND), seed=seed
    )
    found = explainer(
        what.rows[chosen], max_evals=2 * what.rows.shape[1] + 1, silent=True, batch_size=64
    )
    values = np.asarray(found.values, np.float64)  # rows x features (x classes)
    base = np.asarray(found.base_values, np.float64)
    if values.ndim == 2:
        values, base = values[:, :, None], base.reshape(len(chosen), -1)
    importance = np.abs(values).mean(axis=0).sum(axis=1)
    scores = np.asarray(what.score(what.rows[chosen]), np.float64).reshape(len(chosen), -1)
    return {
        "method": "SHAP",
        "rows": len(chosen),
        "background": len(background),
        "unit": "mean |SHAP value|, summed over the classes" if classes else "mean |SHAP value|",
        "features": _ranked(what.names, importance),
        "examples": [
            _example(what, int(chosen[n]), values[n], base[n], scores[n], classes)
            for n in range(min(count, len(chosen)))
        ],
    }


def _example(
    what: Explained, row: int, values: Floats, base: Floats, scores: Floats, classes: Sequence[str]
) -> dict[str, Any]:
    """One row: what speaks for the score that is largest, and what against it."""
    top = int(scores.argmax()) if len(scores) > 1 else 0
    largest = np.argsort(-np.abs(values[:, top]), kind="stable")[:SHOWN]
    return {
        "row": row + 1,
        "of": classes[top] if classes else None,
        "score": rounded(float(scores[top])),
        "base": rounded(float(base[top])),
        "features": [
            {
                "name": what.names[n],
                "value": rounded(float(what.rows[row, n])),
                "effect": rounded(float(values[n, top])),
            }
            for n in largest
        ],
    }


def _permutation(what: Explained, seed: int) -> dict[str, Any]:
    from sklearn.inspection import permutation_importance

    class Estimator:
        """What scikit-learn asks of one: it is only scored."""

        def fit(self, rows: Any, truth: Any) -> Estimator:
            return self

    found = permutation_importance(
        Estimator(),
        what.rows,
        None,
        scoring=lambda estimator, rows, truth: what.right(rows),
        n_repeats=REPEATS,
        random_state=seed % (1 << 32),
    )
    return {
        "method": "permutation importance",
        "rows": len(what.rows),
        "background": None,
        "unit": f"loss of {what.metric} when the feature is shuffled",
        "features": _ranked(what.names, np.asarray(found.importances_mean)),
        "examples": [],
    }


def _ranked(names: Sequence[str], importance: Floats) -> list[dict[str, Any]]:
    order = np.argsort(-importance, kind="stable")[:MOST]
    return [{"name": names[n], "importance": rounded(float(importance[n]))} for n in order]
