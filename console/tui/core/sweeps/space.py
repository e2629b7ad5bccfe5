"""A sweep's search space in pictures: parallel coordinates with a brush, importance, slices. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from console.tui.core.draw import dots
from console.tui.core.draw.dots import Grid, Label, Layer
from console.tui.core.draw.format import number
from console.tui.core.draw.glyphs import Glyphs
from console.tui.core.draw.lines import Line, Span, fit, line
from console.tui.core.sweeps import words
from console.tui.core.sweeps.plots import (
    GUTTER,
    LAYERS,
    Picture,
    Scene,
    drawn_layers,
    said,
    scattered,
    value_axis,
)
from jobs.wire.sweepviews import ObjectiveView, TrialView

MOST_LINES = 3000
"""Trials among the parallel coordinates, the newest."""

VALUE = ""
"""The name of the axis of the objective, which no parameter has."""


@dataclass(frozen=True, slots=True)
class Dimension:
    """One axis: a parameter with a range or with choices, or the objective. `flipped` has its least
    value at the top, which is where better is."""

    name: str
    low: float = 0.0
    high: float = 1.0
    log: bool = False
    whole: bool = False
    choices: tuple[Any, ...] = ()
    flipped: bool = False

    def share(self, value: Any) -> float | None:
        """Where a value is, from 0 at the bottom to 1 at the top; None for what has no place here."""
        if self.choices:
            places = [i for i, choice in enumerate(self.choices) if _same(choice, value)]
            return places[0] / max(1, len(self.choices) - 1) if places else None
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        low, high, at = self.low, self.high, float(value)
        if self.log:
            if min(low, at) <= 0:
                return None
            low, high, at = math.log(low), math.log(high), math.log(at)
        share = (at - low) / (high - low) if high > low else 0.5
        share = max(0.0, min(1.0, share))
        return 1 - share if self.flipped else share

    def text(self, share: float) -> str:
        """The value at a place."""
        if self.choices:
            return words.value_text(self.choices[round(share * (len(self.choices) - 1))])
        share = 1 - share if self.flipped else share
        if self.log:
            value = math.exp(math.log(self.low) * (1 - share) + math.log(self.high) * share)
        else:
            value = self.low * (1 - share) + self.high * share
        return str(round(value)) if self.whole else words.short(value)

    @property
    def step(self) -> float:
        """How far a brush moves: from choice to choice, or a twentieth of a range."""
        return 1 / max(1, len(self.choices) - 1) if self.choices else 0.05


def _same(one: Any, other: Any) -> bool:
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def dimensions(
    space: Mapping[str, Mapping[str, Any]],
    trials: Sequence[TrialView],
    objective: ObjectiveView,
    *,
    log: bool,
) -> list[Dimension]:
    """The axes: each parameter, as the sweep's file has it, and the first objective at the end."""
    out = [_parameter(name, held, trials) for name, held in space.items()]
    values = [v for t in trials if (v := words.reached(t)) is not None]
    axis = value_axis(values, objective, log=log)
    flipped = objective["goal"] == "minimize"
    out.append(Dimension(VALUE, axis.low, axis.high, axis.log, flipped=flipped))
    return out


def _parameter(name: str, held: Mapping[str, Any], trials: Sequence[TrialView]) -> Dimension:
    if held.get("choices") is not None:
        return Dimension(name, choices=tuple(held["choices"]))
    low, high = held.get("low"), held.get("high")
    if low is None or high is None:  # a sweep of which the file is not known: what was tried
        seen = [t["params"][name] for t in trials if name in t["params"]]
        if not seen or any(isinstance(v, bool) or not isinstance(v, int | float) for v in seen):
            return Dimension(name, choices=tuple(dict.fromkeys(seen)))
        low, high = min(seen), max(seen)
    whole = isinstance(low, int) and isinstance(high, int) and held.get("type") != "float"
    return Dimension(name, float(low), float(high), bool(held.get("log")), whole)


@dataclass(frozen=True, slots=True)
class Brush:
    """Ranges of axes that a trial must be in, as shares; by the axis' name."""

    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.ranges)

    def passes(self, trial: TrialView, axes: Mapping[str, Dimension]) -> bool:
        for name, (low, high) in self.ranges.items():
            axis = axes.get(name)
            share = None if axis is None else place(trial, axis)
            if share is None or not low - 1e-9 <= share <= high + 1e-9:
                return False
        return True

    def toggled(self, axis: Dimension, around: float | None) -> Brush:
        """A brush on this axis, about a place or at the top; or without the one that is there."""
        held = dict(self.ranges)
        if held.pop(axis.name, None) is None:
            at = 1.0 if around is None else around
            half = 0.0 if axis.choices else 0.15
            held[axis.name] = (max(0.0, at - half), min(1.0, at + half))
        return Brush(held)

    def moved(self, axis: Dimension, by: int) -> Brush:
        """The range one step up or down, as far as there is room."""
        if axis.name not in self.ranges:
            return self
        low, high = self.ranges[axis.name]
        shift = max(-low, min(1.0 - high, by * axis.step))
        return replace(self, ranges={**self.ranges, axis.name: (low + shift, high + shift)})

    def widened(self, axis: Dimension, by: int) -> Brush:
        """The range wider or narrower by a step at both ends; never empty."""
        if axis.name not in self.ranges:
            return self
        low, high = self.ranges[axis.name]
        low, high = max(0.0, low - by * axis.step), min(1.0, high + by * axis.step)
        if high < low or (high - low < axis.step / 2 and not axis.choices):
            return self
        return replace(self, ranges={**self.ranges, axis.name: (low, high)})

    def words(self, axes: Mapping[str, Dimension], value: str) -> str:
        """`lr 0.001 to 0.01`, for each range. `value` is what the objective is called."""
        out = []
        for name, (low, high) in self.ranges.items():
            if axis := axes.get(name):
                first, last = axis.text(low), axis.text(high)
                told = first if first == last else f"{first} to {last}"
                out.append(f"{name or value} {told}")
        return ", ".join(out)


def place(trial: TrialView, axis: Dimension) -> float | None:
    """Where a trial is on an axis; None where it has no value."""
    if axis.name == VALUE:
        value = words.reached(trial)
        return None if value is None else axis.share(value)
    return axis.share(trial["params"][axis.name]) if axis.name in trial["params"] else None


def parallel(
    scene: Scene,
    axes: Sequence[Dimension],
    brush: Brush,
    cursor: int,
    width: int,
    height: int,
    glyphs: Glyphs,
) -> Picture:
    """Every trial as a line through its parameters to its value. Ranges that are brushed stand out on
    their axes.

    Args:
        cursor: index of the axis that keys work on.
    """
    grid = Grid(width - 2, height - 3, glyphs.braille)
    if len(axes) < 2 or grid.cells < 4 * len(axes) or grid.rows < 2:
        return said("Parallel coordinates need more room: z.", width)
    at = [grid.x(i / (len(axes) - 1)) for i in range(len(axes))]
    layers = dict.fromkeys(LAYERS, 0)
    rules = 0
    for x in at:
        rules |= grid.upright(x, 0, grid.height - 1)
    for trial in scene.trials[-MOST_LINES:]:
        if trial["state"] != "QUEUED":
            layers[scene.line_tone(trial)] |= _through(trial, axes, at, grid)
    labels: dict[tuple[int, int], Label] = {}
    for index, axis in enumerate(axes):
        if axis.name in brush.ranges:
            low, high = brush.ranges[axis.name]
            top, column = grid.cell(at[index], grid.y(high))
            bottom, _ = grid.cell(at[index], grid.y(low))
            for row in range(top, bottom + 1):
                labels[row, column] = (glyphs.thick, "found" if index == cursor else "key")
    ground = [Layer(rules, "dim", "|"), *drawn_layers(layers)]
    value = scene.objectives[0]["metric"]
    columns = [grid.cell(x, 0)[1] for x in at]
    names = [axis.name or value for axis in axes]
    tones = ["key" if i == cursor else "strong" for i in range(len(axes))]
    quiet = ["dim"] * len(axes)
    above = [
        _over(names, columns, tones, grid.cells, glyphs),
        _over([a.text(1.0) for a in axes], columns, quiet, grid.cells, glyphs),
    ]
    below = _over([a.text(0.0) for a in axes], columns, quiet, grid.cells, glyphs)

    def finish(chosen: TrialView | None) -> list[Line]:
        top = {} if chosen is None else {"key": _through(chosen, axes, at, grid)}
        drawn = dots.render(grid, [*ground, *drawn_layers(top)], labels)
        return [*above, *((Span(" "), *parts) for parts in drawn), below]

    return finish


def _through(trial: TrialView, axes: Sequence[Dimension], at: Sequence[int], grid: Grid) -> int:
    """A trial's line; where a parameter does not exist for it, the line has a gap."""
    bits = 0
    before: tuple[int, int] | None = None
    for x, axis in zip(at, axes, strict=True):
        share = place(trial, axis)
        here = None if share is None else (x, grid.y(share))
        if here is not None and before is not None:
            bits |= grid.polyline([before, here])
        before = here
    return bits


def _over(
    texts: Sequence[str], columns: Sequence[int], tones: Sequence[str], cells: int, glyphs: Glyphs
) -> Line:
    """Texts above the columns of their axes, each within its share of the width."""
    share = cells // max(1, len(texts) - 1) - 1  # between two axes, less a space
    out: list[Span] = [Span(" ")]
    used = 0
    for index, (text, column, tone) in enumerate(zip(texts, columns, tones, strict=True)):
        edge = index in (0, len(texts) - 1)
        room = max(2, (share * 3 // 5 if edge else share))
        shown = fit(text, min(len(text), room), ellipsis=glyphs.ellipsis)
        begin = column if index == 0 else column - len(shown) // 2
        begin = max(used, min(begin, cells - len(shown)))
        out += [Span(" " * (begin - used)), Span(shown, tone)]
        used = begin + len(shown)
    return tuple(span for span in out if span.text)


def importance(
    shares: Mapping[str, float] | None,
    names: Sequence[str],
    chosen: str,
    width: int,
    glyphs: Glyphs,
) -> list[Line]:
    """How much of what decides the objective is each parameter's, as bars.

    Args:
        shares: parameter -> its share; they sum to 1. None before they are known.
        names: all parameters.
    """
    if not shares:
        told = "" if shares is None else " They take a few more complete trials."
        return [line((f" Importance is not known yet.{told}", "dim"))]
    wide = min(16, max((len(name) for name in names), default=1))
    room = max(4, width - wide - 9)
    out: list[Line] = []
    for name in sorted(names, key=lambda name: -shares.get(name, 0.0)):
        share = shares.get(name, 0.0)
        full, part = divmod(share * room * 8, 8)
        eighth = glyphs.eighths[int(part)] if glyphs.eighths else ""
        bar = (glyphs.blocks[-1] if glyphs.eighths else "#") * int(full) + eighth
        here = name == chosen
        out.append(
            (
                Span(glyphs.cursor if here else " ", "key"),
                Span(fit(name, wide, ellipsis=glyphs.ellipsis) + " ", "key" if here else "strong"),
                Span(bar.ljust(room) + " ", "accent"),
                Span(f"{share:4.0%}", ""),
            )
        )
    return out


def slice_of(scene: Scene, axis: Dimension, width: int, height: int, glyphs: Glyphs) -> Picture:
    """One parameter against the objective: a dot for each trial."""
    grid = Grid(width - GUTTER, height - 1, glyphs.braille)
    values = [v for t in scene.trials if (v := words.reached(t)) is not None]
    if grid.cells < 8 or grid.rows < 3 or not values:
        return lambda chosen: []
    up = value_axis(values, scene.objectives[0], log=scene.log)

    def at(trial: TrialView) -> tuple[int, int] | None:
        share, value = place(trial, axis), words.reached(trial)
        if share is None or value is None:
            return None
        return grid.x(0.02 + 0.96 * share), grid.y(up.share(value))

    low, high = axis.text(0.0), axis.text(1.0)
    gap = max(1, grid.cells - len(low) - len(high))
    below = line(" " * GUTTER, (low, "dim"), (axis.name.center(gap), "key"), (high, "dim"))

    def frame(drawn: list[Line]) -> list[Line]:
        return [*dots.framed(drawn, number(up.low), number(up.high), GUTTER, glyphs), below]

    return scattered(grid, scene.trials, scene.tone, at, [], frame, glyphs)
