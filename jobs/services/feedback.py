"""What a request's answer is worth, once the truth is known (pure)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["auto", "class", "number"]
Z = 1.959964
"""Standard deviations on both sides that hold 95 %."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """`rows` answers of one request: how many of them are right, or the sums of their absolute errors and
    of the squares of those. One of the two is None."""

    rows: int
    correct: int | None
    error: float | None
    squares: float | None


@dataclass(frozen=True, slots=True)
class Interval:
    """A share or a mean, with its 95 % interval."""

    value: float
    low: float
    high: float


def outcome(
    outputs: Mapping[str, Any], truth: Any, *, output: str | None = None, kind: Kind = "auto"
) -> Outcome:
    """Compare a logged answer with the truth.

    Args:
        outputs: as the inference log has them.
        truth: a value, or a list of one for each row of the request.
        output: which one holds the prediction; without, the first that has one value for each row, else
            the first, whose largest value names the class by its place.
        kind: numbers are compared by equality (class) or by their distance (number); auto takes the
            distance where either is no whole number.

    Raises ValueError in words when they cannot be compared.
    """
    truths = truth if isinstance(truth, list) else [truth]
    if not truths:
        raise ValueError("the truth is an empty list")
    predicted = _predictions(outputs, len(truths), output)
    pairs = list(zip(predicted, truths, strict=True))
    if kind == "auto":
        distance = all(map(_is_number, [*predicted, *truths])) and any(
            isinstance(value, float) and not value.is_integer() for pair in pairs for value in pair
        )
        kind = "number" if distance else "class"
    if kind == "class":
        return Outcome(len(pairs), sum(one == other for one, other in pairs), None, None)
    if not all(map(_is_number, [*predicted, *truths])):
        raise ValueError("prediction and truth are not both numbers")
    errors = [abs(float(one) - float(other)) for one, other in pairs]
    return Outcome(len(pairs), None, math.fsum(errors), math.fsum(e * e for e in errors))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _predictions(outputs: Mapping[str, Any], rows: int, output: str | None) -> list[Any]:
    if output is not None and output not in outputs:
        raise ValueError(f"there is no output '{output}'; there are: {', '.join(outputs)}")
    named = [output] if output is not None else list(outputs)
    values = {name: outputs[name].get("d") for name in named}
    held = {name: data for name, data in values.items() if data}
    if not held:
        raise ValueError("the log has no values of its answer: it is redacted, or too large")
    for data in held.values():
        if len(data) == rows:
            return list(data)
    scores: Sequence[Any] = next(iter(held.values()))
    if len(scores) % max(1, rows) or not all(map(_is_number, scores)):
        raise ValueError(f"the answer has {len(scores)} values for {rows} truths")
    width = len(scores) // rows
    return [
        max(range(width), key=scores[start : start + width].__getitem__)
        for start in range(0, len(scores), width)
    ]


def wilson(correct: int, rows: int) -> Interval:
    """A share with Wilson's interval (Journal of the American Statistical Association 22, 1927)."""
    share, spread = correct / rows, Z * Z / rows
    middle = (share + spread / 2) / (1 + spread)
    reach = Z * math.sqrt(share * (1 - share) / rows + spread / (4 * rows)) / (1 + spread)
    return Interval(share, max(0.0, middle - reach), min(1.0, middle + reach))


def mean(total: float, squares: float, rows: int) -> Interval:
    """A mean with its normal interval."""
    value = total / rows
    variance = max(0.0, squares / rows - value * value) * rows / max(1, rows - 1)
    reach = Z * math.sqrt(variance / rows)
    return Interval(value, value - reach, value + reach)
