"""How well a model does on records that it has not trained on, and whether that changes.

Prequential evaluation: each record first tests the model and then trains it (Dawid, 1984; Gama, Sebastiao and
Rodrigues, 2013), with the score taken over a window of the last records.
"""

from __future__ import annotations

import math
import operator
from collections import deque
from typing import Any

LEAST = 100
"""Errors from which a mean and a spread are taken before drift is looked for."""
MEMORY = 10_000
"""Errors after which the mean forgets: a model that has become better is compared with what it is now."""

MOST = 10.0
"""Standard deviations that one error counts for, at most: one outlier is no drift."""
RARE = 0.1
"""The least spread of 0 and 1: that of one mistake in a hundred. Rarer ones count as that rare."""


class Score:
    """Accuracy or mean absolute error over the last `window` records.

    Args:
        kind: `accuracy` or `mae`; None: mae when the first truth is a number with a fraction's type.
    """

    def __init__(self, kind: str | None, window: int) -> None:
        self.kind = kind
        self._last: deque[float] = deque(maxlen=window)

    def add(self, guess: Any, truth: Any) -> float:
        """The error of one guess: 0 or 1, or the distance. Raises TypeError, ValueError."""
        if self.kind is None:
            self.kind = "mae" if _is_float(truth) else "accuracy"
        if self.kind == "mae":
            error = abs(float(guess) - float(truth))
            if not math.isfinite(error):
                raise ValueError(f"the error of {guess!r} against {truth!r} is not finite")
        else:
            error = 0.0 if _plain(guess) == _plain(truth) else 1.0
        self._last.append(error)
        return error

    @property
    def value(self) -> float | None:
        """The score; None before the first record."""
        if not self._last:
            return None
        mean = math.fsum(self._last) / len(self._last)
        return 1.0 - mean if self.kind == "accuracy" else mean

    def state(self) -> dict[str, Any]:
        last: list[float] = list(self._last)
        return {
            "kind": self.kind,
            "last": [int(e) for e in last] if self.kind == "accuracy" else last,
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.kind = self.kind or state["kind"]
        if self.kind == state["kind"]:
            self._last.extend(float(error) for error in state["last"])


def _is_float(value: Any) -> bool:
    if isinstance(value, (bool, int, str)):
        return False
    try:
        operator.index(value)
    except TypeError:
        return not isinstance(value, bytes) and hasattr(value, "__float__")
    return False


def _plain(value: Any) -> Any:
    """Without the wrapping of NumPy and PyTorch: np.int64(3) and 3 are one class."""
    item = getattr(value, "item", None)
    return item() if callable(item) else value


class Drift:
    """Page's test (Biometrika 41, 1954; also Page-Hinkley) for errors that have become larger.

    Errors are compared with their own mean so far, in units of their own spread, so that the same settings
    do for 0 and 1 as for distances. The sum of what they are above it, less `size / 2` each, is reset to 0
    whenever it is below. Drift is where it exceeds the threshold at which such a sum, without any change,
    does so once in `between` records (Siegmund, Sequential Analysis, 1985, formula 2.53).

    Args:
        size: the change that matters, in standard deviations of the errors.
        between: mean number of records between two false alarms.
        floor: the spread that errors have at least.
    """

    def __init__(self, size: float, between: float, floor: float = 0.0) -> None:
        self._half, self.floor = size / 2, floor
        self.threshold = threshold(self._half, between)
        self._count = 0
        self._mean = self._spread = self._sum = 0.0
        self.found = 0

    def add(self, error: float) -> bool:
        """Whether there is drift now. After that it begins with a new mean."""
        away = error - self._mean
        if self._count >= LEAST:
            self._sum = max(0.0, self._sum + self._deviations(away) - self._half)
            if self._sum > self.threshold:
                self._count, self._mean, self._spread, self._sum = 0, 0.0, 0.0, 0.0
                self.found += 1
                return True
        self._count += 1
        share = 1.0 / min(self._count, MEMORY)
        self._mean += share * away
        self._spread += share * (away * (error - self._mean) - self._spread)
        return False

    def _deviations(self, away: float) -> float:
        spread = max(math.sqrt(self._spread), self.floor)
        if away >= MOST * spread:
            return MOST if away > 0 else 0.0
        return away / spread

    def state(self) -> dict[str, Any]:
        return {
            "count": self._count,
            "mean": self._mean,
            "spread": self._spread,
            "sum": self._sum,
            "found": self.found,
        }

    def restore(self, state: dict[str, Any]) -> None:
        self._count, self._mean = state["count"], state["mean"]
        self._spread, self._sum, self.found = state["spread"], state["sum"], state["found"]


def threshold(half: float, between: float) -> float:
    """Where the sum is cut: (exp(2kb) - 2kb - 1) / 2k² = between, with b = threshold + 1.166."""
    wanted = between * 2 * half * half
    low, high = 0.0, 700.0
    for _ in range(100):
        middle = (low + high) / 2
        if math.expm1(middle) - middle < wanted:
            low = middle
        else:
            high = middle
    return max(1.0, low / (2 * half) - 1.166)
