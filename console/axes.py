"""Round places on an axis of numbers. Pure; the terminal's charts and those of reports use it."""

from __future__ import annotations

import math

_SAME = 1e-12
"""Ends closer than this part of them are one value."""


def values(low: float, high: float, most: int) -> list[float]:
    """At most `most` + 1 multiples of 1, 2 or 5 times a power of ten in [low, high]."""
    if not (math.isfinite(low) and math.isfinite(high)) or high <= low or most < 1:
        return []
    if high - low < max(abs(low), abs(high)) * _SAME or not 1e-290 < high - low < 1e300:
        return []  # floats have no round numbers between them
    raw = (high - low) / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(times * power for times in (1, 2, 5, 10) if times * power >= raw * (1 - 1e-9))
    return multiples(low, high, step)


def multiples(low: float, high: float, step: float) -> list[float]:
    """The multiples of a step in [low, high]."""
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    digits = max(0, 1 - math.floor(math.log10(step)))  # 0.30000000000000004 is 0.3
    return [round(index * step, digits) for index in range(first, last + 1)]


def short(value: float) -> str:
    """A whole number in few characters: `500`, `20k`, `1.5M`."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / (1e3 if unit == 'k' else size):g}{unit}"
    return f"{value:g}"
