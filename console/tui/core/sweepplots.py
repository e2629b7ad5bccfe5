"""A sweep in pictures: learning curves racing, the history with its best so far, the Pareto front. Pure.

Colour says how good a trial is among those that are complete (the five steps of a load, the brightest
the best), and what state it is in; the best and the chosen one are named as well.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from console.tui.core import dots
from console.tui.core import sweepwords as words
from console.tui.core.dots import Grid, Label, Layer
from console.tui.core.format import moment, number
from console.tui.core.glyphs import Glyphs
from console.tui.core.lines import Line, line
from console.tui.core.sweepwords import Quality
from jobs.sweepviews import ObjectiveView, TrialView

Curve = Sequence[tuple[int, float]]
"""(step, value), ascending."""

GUTTER = 8
"""Cells of the y axis: the longest number, and the axis."""

MOST_CURVES = 2000
"""Curves in one chart, the newest: beyond, a terminal has no dots for them."""

LAYERS = ("faint", "dim", "load0", "load1", "load2", "load3", "load4", "ok", "key")
"""Tones of trials, those on top last: what is over, the complete ones, what runs, the chosen one."""

_SHAPES = dict(zip(LAYERS, "..-:=+#o@", strict=True))


@dataclass(frozen=True, slots=True)
class Scene:
    """What all pictures of a sweep show.

    Attributes:
        trials: in the order of their numbers.
        quality: of the first objective, over the complete trials.
        chosen: the trial that the cursor is on.
        brushed: the trials that pass the brush; None without one.
        log: logarithmic values.
        by_time: the history over time rather than over trials.
    """

    trials: Sequence[TrialView]
    objectives: Sequence[ObjectiveView]
    quality: Quality
    best: int | None = None
    chosen: int | None = None
    brushed: frozenset[int] | None = None
    log: bool = False
    by_time: bool = False

    def tone(self, trial: TrialView) -> str:
        if trial["number"] == self.chosen:
            return "key"
        if self.brushed is not None and trial["number"] not in self.brushed:
            return "faint"
        if trial["state"] in words.OPEN:
            return "ok"
        value = words.reached(trial)
        return "dim" if trial["state"] != "COMPLETE" or value is None else self.quality.tone(value)

    def line_tone(self, trial: TrialView) -> str:
        """Of a whole line: there are many of them, and those that are out of the race must recede."""
        tone = self.tone(trial)
        return "faint" if tone == "dim" else tone


@dataclass(frozen=True, slots=True)
class Axis:
    """A range of values that fills an axis, on a logarithmic scale if it is `log`."""

    low: float
    high: float
    log: bool = False

    def share(self, value: float) -> float:
        """Where a value is, from 0 to 1; outside it is at the end."""
        low, high, at = (_log(v) if self.log else v for v in (self.low, self.high, value))
        return max(0.0, min(1.0, (at - low) / (high - low))) if high > low else 0.5

    @property
    def middle(self) -> float:
        return math.sqrt(self.low * self.high) if self.log else (self.low + self.high) / 2


def _log(value: float) -> float:
    return math.log10(value) if value > 0 else -math.inf


def value_axis(
    values: Sequence[float], objective: ObjectiveView, *, log: bool, zoom: int = 0
) -> Axis:
    """The range of an objective. Hopeless trials may be off by orders of magnitude: when the worst
    twentieth takes most of the range, the axis ends before it, and those are drawn at its edge."""
    held = sorted(v for v in values if math.isfinite(v) and (not log or v > 0))
    if not held:
        return Axis(0.0, 1.0)
    low, high = held[0], held[-1]
    if len(held) >= 20:
        cut = len(held) // 20
        if objective["goal"] == "maximize" and high - held[cut] < (high - low) / 3:
            low = held[cut]
        elif objective["goal"] == "minimize" and held[-1 - cut] - low < (high - low) / 3:
            high = held[-1 - cut]
    if zoom:
        # On a logarithmic axis it is the ratio that is cut down.
        if objective["goal"] == "maximize":
            low = high * (low / high) ** (0.5**zoom) if log else high - (high - low) / 2**zoom
        else:
            high = low * (high / low) ** (0.5**zoom) if log else low + (high - low) / 2**zoom
    if low == high:
        pad = abs(low) * 0.1 or 1.0
        low, high = (low * 0.9, high * 1.1) if log else (low - pad, high + pad)
    return Axis(low, high, log)


@dataclass(slots=True)
class Strokes:
    """Curves that were drawn once: they are drawn anew only when they grow, or the scale changes."""

    key: object = None
    held: dict[int, tuple[int, int]] = field(default_factory=dict)  # trial -> (points, drawing)

    def begin(self, key: object) -> None:
        if key != self.key:
            self.key, self.held = key, {}


def race(
    scene: Scene,
    curves: Mapping[int, Curve],
    width: int,
    height: int,
    glyphs: Glyphs,
    strokes: Strokes,
    zoom: int = 0,
) -> list[Line]:
    """Every trial's objective by its step, in one chart with a line of labels below.

    Args:
        strokes: what was drawn the last time.
        zoom: powers of two by which the range of values is cut down to the best ones.
    """
    trials = [t for t in scene.trials if curves.get(t["number"])][-MOST_CURVES:]
    steps = [
        step for t in trials for step in (curves[t["number"]][0][0], curves[t["number"]][-1][0])
    ]
    grid = Grid(width - GUTTER, height - 1, glyphs.braille)
    if not steps or grid.cells < 8 or grid.rows < 2:
        return [line((" No trial has logged a value yet.", "dim"))]
    values = [value for t in trials for _, value in curves[t["number"]]]
    axis = value_axis(values, scene.objectives[0], log=scene.log, zoom=zoom)
    first, last = min(steps), max(max(steps), min(steps) + 1)
    strokes.begin((grid, axis, first, last))
    layers = dict.fromkeys(LAYERS, 0)
    heads: list[tuple[tuple[int, int], TrialView]] = []
    for trial in trials:
        curve = curves[trial["number"]]
        held = strokes.held.get(trial["number"])
        if held is None or held[0] != len(curve):
            at = [(grid.x((s - first) / (last - first)), axis.share(v)) for s, v in curve]
            held = strokes.held[trial["number"]] = (len(curve), _inside(grid, at))
        layers[scene.line_tone(trial)] |= held[1]
        if trial["state"] in words.OPEN or trial["number"] in (scene.best, scene.chosen):
            step, value = curve[-1]
            x, y = grid.x((step - first) / (last - first)), grid.y(axis.share(value))
            heads.append((grid.cell(x, y), trial))
    drawn = dots.render(grid, drawn_layers(layers), _named(heads, scene, grid))
    low, high, middle = number(axis.low), number(axis.high), number(axis.middle)
    return [
        *dots.framed(drawn, low, high, GUTTER, glyphs, middle=middle),
        _below(str(first), "step", str(last), grid.cells),
    ]


def _inside(grid: Grid, points: Sequence[tuple[int, float]]) -> int:
    """A line through columns and shares of the height, without what runs along the bottom or the top
    because it lies beyond."""
    held = [(x, grid.y(share)) for x, share in points]
    bits = grid.polyline(held[:1])
    for (_, before), (_, after), pair in zip(points, points[1:], pairwise(held), strict=False):
        if before != after or before not in (0.0, 1.0):
            bits |= grid.polyline(pair)
    return bits


def drawn_layers(layers: Mapping[str, int]) -> list[Layer]:
    return [Layer(bits, tone, _SHAPES[tone]) for tone, bits in layers.items() if bits]


def _below(left: str, middle: str, right: str, cells: int) -> Line:
    gap = max(1, cells - len(left) - len(right))
    return line(" " * GUTTER, (left + middle.center(gap) + right, "dim"))


def _named(
    heads: Sequence[tuple[tuple[int, int], TrialView]], scene: Scene, grid: Grid
) -> dict[tuple[int, int], Label]:
    """Numbers of trials at the ends of their curves, the most telling first, none over another."""
    out: dict[tuple[int, int], Label] = {}
    taken: set[tuple[int, int]] = set()

    def weight(trial: TrialView) -> int:
        return 2 if trial["number"] == scene.chosen else 1 if trial["number"] == scene.best else 0

    for (row, column), trial in sorted(heads, key=lambda head: -weight(head[1])):
        text = f"#{trial['number']}"
        begin = min(column + 1, grid.cells - len(text))
        for place in (row, row - 1, row + 1):
            cells = {(place, begin + at) for at in range(-1, len(text) + 1)}
            if 0 <= place < grid.rows and not cells & taken:
                taken |= cells
                out[place, begin] = (text, _label_tone(trial, scene))
                break
    return out


def _label_tone(trial: TrialView, scene: Scene) -> str:
    if trial["number"] == scene.chosen:
        return "found"
    return "ok" if trial["state"] in words.OPEN else "strong"


def history(scene: Scene, width: int, height: int, glyphs: Glyphs, zoom: int = 0) -> list[Line]:
    """Each trial's value in the order in which they were asked for (or by the time of their end), and
    the best so far as a line."""
    objective = scene.objectives[0]
    known = [(t, v) for t in scene.trials if (v := words.reached(t)) is not None]
    grid = Grid(width - GUTTER, height - 1, glyphs.braille)
    if not known or grid.cells < 8 or grid.rows < 2:
        return [line((" No trial has logged a value yet.", "dim"))]
    axis = value_axis([v for _, v in known], objective, log=scene.log, zoom=zoom)

    def place(trial: TrialView) -> float:
        if not scene.by_time:
            return float(trial["number"])
        at = moment(trial["ended_at"]) or moment(trial["started_at"])
        return at if at is not None else moment(trial["asked_at"]) or 0.0

    if scene.by_time:
        known.sort(key=lambda one: place(one[0]))
    first = min(place(t) for t, _ in known) if scene.by_time else 0.0
    last = max(max(place(t) for t, _ in known), first + 1)
    layers = dict.fromkeys(LAYERS, 0)
    labels: dict[tuple[int, int], Label] = {}
    best: float | None = None
    steps: list[tuple[int, int]] = []
    for trial, value in known:
        x, y = grid.x((place(trial) - first) / (last - first)), grid.y(axis.share(value))
        tone = scene.tone(trial)
        layers[tone] |= spot(grid, x, y, large=tone not in ("dim", "faint") and len(known) <= 400)
        if trial["number"] == scene.chosen:
            labels[grid.cell(x, y)] = (glyphs.live, "key")
        if trial["state"] == "COMPLETE" and trial["feasible"] is not False:
            if best is None or words.better(objective, value, best):
                best = value
            steps.append((x, grid.y(axis.share(best))))
    line_of_best = Layer(_stairs(grid, steps), "accent", "_")
    drawn = dots.render(grid, [line_of_best, *drawn_layers(layers)], labels)
    low, high, middle = number(axis.low), number(axis.high), number(axis.middle)
    ends = ("begin", "time", "now") if scene.by_time else ("0", "trial", f"{last:g}")
    return [
        *dots.framed(drawn, low, high, GUTTER, glyphs, middle=middle),
        _below(*ends, grid.cells),
    ]


def spot(grid: Grid, x: int, y: int, *, large: bool) -> int:
    if not large or not grid.braille:
        return grid.dot(x, y)
    top, right = max(0, y - 1), min(grid.width - 1, x + 1)
    return grid.upright(x, top, y) | grid.upright(right, top, y)


def _stairs(grid: Grid, steps: Sequence[tuple[int, int]]) -> int:
    """A line that goes level to each point and then up or down to it, on to the right edge."""
    if not steps:
        return 0
    at: list[tuple[int, int]] = [steps[0]]
    for x, y in steps[1:]:
        at += [(x, at[-1][1]), (x, y)]
    return grid.polyline([*at, (grid.width - 1, at[-1][1])])


def front(trials: Sequence[TrialView], objectives: Sequence[ObjectiveView]) -> list[TrialView]:
    """Complete trials that no other one beats in one of the first two objectives without losing in the
    other, in order of the first."""
    signs = [-1.0 if o["goal"] == "maximize" else 1.0 for o in objectives[:2]]
    held = [
        (signs[0] * t["values"][0], signs[1] * t["values"][1], t)
        for t in trials
        if t["state"] == "COMPLETE" and t["values"] and t["feasible"] is not False
    ]
    held.sort(key=lambda one: one[:2])
    out: list[TrialView] = []
    lowest = math.inf
    for _, second, trial in held:
        if second < lowest:
            lowest = second
            out.append(trial)
    return out


def front_lines(scene: Scene, width: int, height: int, glyphs: Glyphs) -> list[Line]:
    """The first two objectives against each other; the front is a line through its trials."""
    done = [t for t in scene.trials if t["state"] == "COMPLETE" and t["values"]]
    grid = Grid(width - GUTTER, height - 1, glyphs.braille)
    if not done or len(scene.objectives) < 2 or grid.cells < 8 or grid.rows < 2:
        return [line((" The front begins with the first trial that is complete.", "dim"))]
    across, up = (
        value_axis([(t["values"] or [])[i] for t in done], scene.objectives[i], log=False)
        for i in (0, 1)
    )

    def place(trial: TrialView) -> tuple[int, int]:
        values = trial["values"] or [0.0, 0.0]
        return grid.x(across.share(values[0])), grid.y(up.share(values[1]))

    best = front(done, scene.objectives)
    edge = Layer(_stairs(grid, sorted(place(t) for t in best)), "accent", "_")
    layers = dict.fromkeys(LAYERS, 0)
    labels: dict[tuple[int, int], Label] = {}
    leads = {t["number"] for t in best}
    for trial in done:
        x, y = place(trial)
        inside = scene.brushed is None or trial["number"] in scene.brushed
        tone = "load4" if trial["number"] in leads and inside else "load1" if inside else "faint"
        layers[tone] |= spot(grid, x, y, large=tone == "load4" or len(done) <= 400)
        if trial["number"] == scene.chosen:
            labels[grid.cell(x, y)] = (glyphs.live, "key")
    drawn = dots.render(grid, [edge, *drawn_layers(layers)], labels)
    name = f"{scene.objectives[0]['metric']} {words.goal_glyph(scene.objectives[0], glyphs)}"
    return [
        *dots.framed(drawn, number(up.low), number(up.high), GUTTER, glyphs),
        _below(number(across.low), name, number(across.high), grid.cells),
    ]
