"""Round places on an axis, and what they are called. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime

from console.axes import multiples, short, values
from console.tui.core.draw.format import clock, number
from console.tui.core.draw.glyphs import Glyphs
from console.tui.core.draw.lines import Line, line

Tick = tuple[float, str]
"""A place on the axis, and its label."""

_SPANS = (
    1,
    2,
    5,
    10,
    15,
    30,
    60,
    120,
    300,
    600,
    900,
    1800,
    3600,
    7200,
    10_800,
    21_600,
    43_200,
    86_400,
)
"""Seconds between two moments on a time axis, as clocks are read."""


def of_values(low: float, high: float, most: int) -> list[Tick]:
    return [(value, number(value)) for value in values(low, high, most)]


def of_logs(low: float, high: float, most: int) -> list[Tick]:
    """The same for an axis of decimal logarithms: powers of ten, else round values between them."""
    powers = range(math.ceil(low - 1e-9), math.floor(high + 1e-9) + 1)
    if len(powers) >= 2:
        every = max(1, math.ceil(len(powers) / max(1, most + 1)))
        return [(float(power), number(10.0**power)) for power in powers[::every]]
    return [(math.log10(v), number(v)) for v in values(10.0**low, 10.0**high, most) if v > 0]


def of_steps(low: float, high: float, most: int) -> list[Tick]:
    """Whole steps, as `500`, `20k`, `1.5M`."""
    return [(at, short(at)) for at in values(low, high, most) if at == int(at)]


def of_times(low: float, high: float, most: int) -> list[Tick]:
    """Round local times of day; `low` and `high` are seconds since the epoch."""
    if high <= low or most < 1:
        return []
    step = next((one for one in _SPANS if one * most >= high - low), 86_400 * 10)
    offset = datetime.fromtimestamp(low).astimezone().utcoffset()
    shift = offset.total_seconds() if offset is not None else 0.0
    local = multiples(low + shift, high + shift, float(step))
    return [(at - shift, clock(at - shift, seconds=step < 60)) for at in local]


def axis(
    ticks: Sequence[Tick], x0: float, x1: float, gutter: int, cells: int, glyphs: Glyphs
) -> Line:
    """The line below a chart: a mark at the cell of each tick, and its label after it."""
    corner, rule, mark = ("└", "─", "┴") if glyphs.braille else ("+", "-", "+")
    out = [rule] * cells
    free = 0
    for at, label in ticks:
        cell = min(cells - 1, int((at - x0) / (x1 - x0) * cells)) if x1 > x0 else 0
        if cell < free or cell + 1 + len(label) > cells:
            continue
        out[cell : cell + 1 + len(label)] = [mark, *label]
        free = cell + 2 + len(label)
    return line((" " * (gutter - 1) + corner + "".join(out), "dim"))
