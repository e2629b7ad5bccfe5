"""How a sweep's values are spread (EDF), and a surface through them over two parameters (contour). Pure.

The surface says what nobody has tried. So each of its cells is a mean of the trials nearby, cells that are
far from all of them are empty, and the trials are drawn over it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from console.tui.core.draw import dots
from console.tui.core.draw.dots import Grid, Label, Layer
from console.tui.core.draw.format import number
from console.tui.core.draw.glyphs import Glyphs
from console.tui.core.draw.lines import Line, line
from console.tui.core.sweeps import rank
from console.tui.core.sweeps.plots import GUTTER, Axis, Picture, Scene, said
from console.tui.core.sweeps.space import Dimension
from jobs.wire.sweepviews import TrialView

MOST_TRIALS = 300
"""A surface goes through at most so many of the newest trials: a cell weighs each of them."""

REACH = 0.2
"""Share of the width and the height of the plot beyond which a trial says nothing of a cell."""

SHADES = (" .:+#", "·░▒▓█")
"""From the worst to the best fifth, in ASCII and in Unicode."""


def ended_well(trials: Sequence[TrialView]) -> list[tuple[TrialView, float]]:
    """Complete trials with their first objective."""
    return [(t, t["values"][0]) for t in trials if t["state"] == "COMPLETE" and t["values"]]


def edf(scene: Scene, width: int, height: int, glyphs: Glyphs) -> Picture:
    """The share of the complete trials whose value is not above each value: stairs from 0 to 100 %."""
    known = ended_well(scene.trials)
    if scene.log:
        known = [(t, value) for t, value in known if value > 0]
    grid = Grid(width - GUTTER, height - 1, glyphs.braille)
    if not known or grid.cells < 8 or grid.rows < 2:
        return said("No trial is complete yet.", width)
    values = sorted(value for _, value in known)
    low, high = values[0], values[-1]
    if low == high:
        low, high = (low * 0.9, high * 1.1) if scene.log else (low - 0.5, high + 0.5)
    axis = Axis(low, high, scene.log)

    def at(value: float) -> tuple[int, int]:
        below = sum(one <= value for one in values)
        return grid.x(axis.share(value)), grid.y(below / len(values))

    corners = [(0, grid.y(0.0))]
    for count, value in enumerate(values, 1):
        x = grid.x(axis.share(value))
        corners += [(x, corners[-1][1]), (x, grid.y(count / len(values)))]
    corners.append((grid.x(1.0), corners[-1][1]))
    bits = 0
    for pair in pairwise(corners):
        bits |= grid.polyline(list(pair))
    left, right = number(low), number(high)
    metric = scene.objectives[0]["metric"]
    gap = max(1, grid.cells - len(left) - len(right))
    below = line(" " * GUTTER, (left, "dim"), (metric[:gap].center(gap), "key"), (right, "dim"))
    own = {t["number"]: value for t, value in known}

    def finish(chosen: TrialView | None) -> list[Line]:
        labels: dict[tuple[int, int], Label] = {}
        if chosen is not None and (value := own.get(chosen["number"])) is not None:
            row, column = grid.cell(*at(value))
            labels[row, column] = (glyphs.live, "key")
            rest = f" {number(value)}"
            place = column + 1 if column + len(rest) < grid.cells else column - len(rest)
            labels[row, max(0, place)] = (rest, "found")
        drawn = dots.render(grid, [Layer(bits, "accent", "*")], labels)
        return [*dots.framed(drawn, "0%", "100%", GUTTER, glyphs, middle="50%"), below]

    return finish


def contour(
    scene: Scene, across: Dimension, up: Dimension, width: int, height: int, glyphs: Glyphs
) -> Picture:
    """How good the first objective is over two parameters, in five shades, and the trials that say so."""
    grid = Grid(width - GUTTER, height - 1, glyphs.braille)
    if grid.cells < 8 or grid.rows < 2:
        return said("There is no room for it here.", width)
    known = [
        (at, scene.quality.share(value))
        for t, value in ended_well(scene.trials)[-MOST_TRIALS:]
        if (at := rank.where(t, across, up)) is not None
    ]
    if len(known) < 3:
        return said("It takes three complete trials with both parameters.", width)
    labels: dict[tuple[int, int], Label] = {}
    shades = SHADES[glyphs.braille]
    for row in range(grid.rows):
        for column in range(grid.cells):
            here = (column / (grid.cells - 1), 1 - row / (grid.rows - 1))
            value = _mean(here, known)
            if value is not None:
                step = min(4, int(value * 5))
                labels[row, column] = (shades[step], f"load{step}")
    for at, _ in known:
        labels[_cell(at, grid)] = (glyphs.mark, "strong")
    names = rank.edges(across, up, grid.cells, glyphs)

    def finish(chosen: TrialView | None) -> list[Line]:
        at = None if chosen is None else rank.where(chosen, across, up)
        top = (
            {}
            if at is None
            else {_cell(at, grid): ("@" if not grid.braille else glyphs.live, "key")}
        )
        drawn = dots.render(grid, [], labels | top)
        return [*dots.framed(drawn, names.low, names.high, GUTTER, glyphs, middle=""), names.below]

    return finish


def _cell(at: tuple[float, float], grid: Grid) -> tuple[int, int]:
    return round((1 - at[1]) * (grid.rows - 1)), round(at[0] * (grid.cells - 1))


def _mean(
    here: tuple[float, float], known: Sequence[tuple[tuple[float, float], float]]
) -> float | None:
    """The mean of what is near, weighed by nearness; None where nothing is."""
    total = weight = 0.0
    nearest = math.inf
    for (x, y), value in known:
        far = (x - here[0]) ** 2 + (y - here[1]) ** 2
        nearest = min(nearest, far)
        share = 1 / (far + 1e-4) ** 2
        total, weight = total + share * value, weight + share
    return total / weight if nearest <= REACH**2 else None
