"""Two parameters against each other, and how good each trial is there among all: the rank plot. Pure.

Between trials nothing is drawn: a surface through them would say what nobody has tried.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from console.tui.core.draw import dots
from console.tui.core.draw.dots import Grid, Label
from console.tui.core.draw.glyphs import Glyphs
from console.tui.core.draw.lines import Line, fit, line
from console.tui.core.sweeps import words
from console.tui.core.sweeps.plots import GUTTER, Picture, Scene, said
from console.tui.core.sweeps.space import Dimension, place
from jobs.wire.sweepviews import TrialView

SPREAD = 0.8
"""So much of the band of a choice or a number its trials fill: they would else all lie on one line."""

FEW_NUMBERS = 12
"""Whole numbers up to so many have a band each, as choices have."""

_GOLDEN = 0.6180339887
"""Multiples of it, less their whole part, are spread evenly, however many there are."""


def pair(
    axes: Sequence[Dimension], across: int, up: int | None, shares: Mapping[str, float] | None
) -> tuple[int, int] | None:
    """Indices of the two parameters that are shown: the chosen ones, where there are none the most
    important. None where there are not two."""
    known = [i for i, axis in enumerate(axes) if axis.name]
    known.sort(key=lambda i: -(shares or {}).get(axes[i].name, 0.0))
    if len(known) < 2:
        return None
    first = across if across in known else known[0]
    second = up if up in known and up != first else next(i for i in known if i != first)
    return first, second


def without(scene: Scene, across: Dimension, up: Dimension) -> int:
    """Trials that lack one of the two parameters, and have no place in the plot."""
    return sum(where(trial, across, up) is None for trial in scene.trials)


def rank(
    scene: Scene, across: Dimension, up: Dimension, width: int, height: int, glyphs: Glyphs
) -> Picture:
    """A block for each trial, the higher and brighter the better it is among all; those that have ended
    without a result are dots. Of trials in one cell the best is shown."""
    grid = Grid(width - GUTTER, height - 1, glyphs.braille)
    if grid.cells < 8 or grid.rows < 2:
        return said("There is no room for it here.", width)
    if not scene.trials:
        return said("No trial has begun yet.", width)

    def cell(trial: TrialView) -> tuple[int, int] | None:
        if (at := where(trial, across, up)) is None:
            return None
        return round((1 - at[1]) * (grid.rows - 1)), round(at[0] * (grid.cells - 1))

    labels: dict[tuple[int, int], Label] = {}
    for _, trial in sorted(((_weight(t, scene), t) for t in scene.trials), key=lambda one: one[0]):
        if (at := cell(trial)) is not None:
            labels[at] = _mark(trial, scene, glyphs)
    ends = edges(across, up, grid.cells, glyphs)

    def finish(chosen: TrialView | None) -> list[Line]:
        here = None if chosen is None else cell(chosen)
        top = {} if here is None else {here: ("@" if not grid.braille else glyphs.live, "key")}
        drawn = dots.render(grid, [], labels | top)
        return [*dots.framed(drawn, ends.low, ends.high, GUTTER, glyphs, middle=""), ends.below]

    return finish


def _cut(text: str, cells: int, glyphs: Glyphs) -> str:
    return fit(text, cells, ellipsis=glyphs.ellipsis).rstrip()


@dataclass(frozen=True, slots=True)
class Edges:
    """What the axes say: the ends of the one up, and the line below."""

    low: str
    high: str
    below: Line


def edges(across: Dimension, up: Dimension, cells: int, glyphs: Glyphs) -> Edges:
    low, high = (_cut(up.text(share), GUTTER - 1, glyphs) for share in (0.0, 1.0))
    left, right = (_cut(across.text(share), cells // 3, glyphs) for share in (0.0, 1.0))
    gap = max(1, cells - len(left) - len(right))
    below = line(" " * GUTTER, (left, "dim"), (across.name.center(gap), "key"), (right, "dim"))
    return Edges(low, high, below)


def where(trial: TrialView, across: Dimension, up: Dimension) -> tuple[float, float] | None:
    """Where a trial is, as shares of the width and the height."""
    sides = [_share(trial, axis, turn) for turn, axis in enumerate((across, up), start=1)]
    return None if sides[0] is None or sides[1] is None else (sides[0], sides[1])


def _share(trial: TrialView, axis: Dimension, turn: int) -> float | None:
    share, count = place(trial, axis), _bands(axis)
    if share is None or not count:
        return share
    aside = (trial["number"] * _GOLDEN * turn) % 1 - 0.5
    return (round(share * (count - 1)) + 0.5 + SPREAD * aside) / count


def _bands(axis: Dimension) -> int:
    """How many values an axis has, if they are few; else 0."""
    if axis.choices:
        return len(axis.choices)
    count = int(axis.high - axis.low) + 1
    return count if axis.whole and not axis.log and count <= FEW_NUMBERS else 0


def _weight(trial: TrialView, scene: Scene) -> tuple[int, float, int]:
    """What lies over what."""
    value = words.reached(trial)
    if trial["state"] in words.OPEN:
        return 2, 0.0, trial["number"]
    if trial["state"] != "COMPLETE" or value is None:
        return 0, 0.0, trial["number"]
    return 1, scene.quality.share(value), trial["number"]


def _mark(trial: TrialView, scene: Scene, glyphs: Glyphs) -> Label:
    tone, value = scene.tone(trial), words.reached(trial)
    if trial["state"] in words.OPEN:
        return glyphs.running if glyphs.braille else "o", tone
    if trial["state"] != "COMPLETE" or value is None:
        return glyphs.dot if glyphs.braille else ",", tone
    return scene.quality.block(value, glyphs), tone
