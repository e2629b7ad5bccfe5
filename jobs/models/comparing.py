"""Whether a condition holds on what evaluations have measured: by the interval, never by the point alone.

Against a limit, the worse end of the metric's interval counts. Against another version, the worse end of the
interval of the difference, resample by resample, where both were measured on the same rows (the paired
bootstrap); evaluations of other rows are not compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jobs.models.conditions import Condition
from jobs.models.evaluations import Evaluated, intervals

_SIDE = 0.025
"""Of the resamples lie below a 95 % interval, and as many above."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One condition, held against one measured value. `margin`: how far the worse end is on the right side
    of the limit; the smallest is the worst. `interval` is of the value, or of its distance to the limit."""

    metric: str
    measured: float | None
    limit: float | None
    passed: bool
    why: str
    margin: float
    interval: tuple[float, float] | None = None
    against: dict[str, Any] | None = None
    on: dict[str, Any] | None = None


def on(evaluated: Evaluated) -> dict[str, Any]:
    """Where it was measured, as the gate's result says it."""
    return {
        "data": evaluated.data,
        "data_digest": evaluated.data_digest,
        "evaluation": evaluated.name,
        "evidence": evaluated.evidence,
    }


def against_limit(condition: Condition, key: str, evaluated: Evaluated) -> Answer:
    """A condition with a limit of its own."""
    limit = condition.limit
    assert limit is not None
    found, where = intervals(evaluated.report)[key], f"on {evaluated.data} ({evaluated.name})"
    value, low, high = found["value"], found["low"], found["high"]
    if value is None or low is None or high is None:
        why = f"{key} is not defined {where}" if value is None else f"{key} has no interval {where}"
        return Answer(key, value, limit, False, why, float("-inf"), on=on(evaluated))
    end = low if condition.least else high
    passed = condition.holds(end, limit)
    sign = condition.op if passed else _OPPOSITE[condition.op]
    why = (
        f"{key} is {value:.4g} (95 % from {low:.4g} to {high:.4g}) {where}: "
        f"{end:.4g} {sign} {limit:.6g}"
    )
    margin = end - limit if condition.least else limit - end
    return Answer(key, value, limit, passed, why, margin, (low, high), on=on(evaluated))


_OPPOSITE = {">=": "<", ">": "<=", "<=": ">", "<": ">="}


def against_version(
    condition: Condition, key: str, evaluated: Evaluated, other: Evaluated
) -> Answer:
    """A condition against another version, by the interval of the difference."""
    value = intervals(evaluated.report)[key]["value"]
    theirs = intervals(other.report)[key]["value"]
    facts = {"alias": condition.alias, "version": other.version, "run": None, "value": theirs}
    facts |= {"evaluation": other.name, "evidence": other.evidence}
    where = f"on {evaluated.data} ({evaluated.name})"
    if value is None or theirs is None:
        who = f"{evaluated.version} {where}" if value is None else f"{other.version} ({other.name})"
        why = f"{key} is not defined for {who}"
        return Answer(key, value, None, False, why, float("-inf"), against=facts, on=on(evaluated))
    limit = condition.shifted(theirs)
    beside = f"{other.version} ({condition.alias}) has {theirs:.4g} ({other.name})"
    found = difference(condition, evaluated.samples.get(key), other.samples.get(key))
    if not evaluated.pairs_with(other) or found is None:
        why = (
            f"{key} is {value:.4g} {where}; {beside}, but not of the same rows, so their difference has "
            f"no interval: evaluate {other.version} on {evaluated.data} again"
        )
        return Answer(key, value, limit, False, why, float("-inf"), against=facts, on=on(evaluated))
    low, high = found
    end = low if condition.least else high
    passed = condition.holds(end, 0.0)
    whole = passed or not condition.holds(high if condition.least else low, 0.0)
    verdict = "it is" if whole else "it may be"
    side = ("above" if condition.least else "below") if passed else _side(condition)
    equal = " or equal" if passed and condition.op in (">=", "<=") else ""
    why = (
        f"{key} is {value:.4g} {where}; {beside}, so the limit is {limit:.4g}; the difference to it is "
        f"{value - limit:+.4g} (95 % from {low:+.4g} to {high:+.4g}, paired): {verdict} {side}{equal}"
    )
    margin = end if condition.least else -end
    return Answer(key, value, limit, passed, why, margin, (low, high), facts, on(evaluated))


def _side(condition: Condition) -> str:
    return "below" if condition.least else "above"


def difference(
    condition: Condition,
    ours: Sequence[float | None] | None,
    theirs: Sequence[float | None] | None,
) -> tuple[float, float] | None:
    """The interval of how far we are above the limit that follows from theirs; None where too few of the
    resamples have both."""
    if not ours or not theirs or len(ours) != len(theirs):
        return None
    found = sorted(
        one - condition.shifted(other)
        for one, other in zip(ours, theirs, strict=True)
        if one is not None and other is not None
    )
    if len(found) < max(2, len(ours) // 2):
        return None
    return quantile(found, _SIDE), quantile(found, 1 - _SIDE)


def quantile(ordered: Sequence[float], share: float) -> float:
    """Of ordered numbers, with linear interpolation, as NumPy has it by default."""
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)
