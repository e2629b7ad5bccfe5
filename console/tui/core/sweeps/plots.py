"""A sweep in pictures: learning curves racing, the history with its best so far, the Pareto front. Pure.

Colour says how good a trial is among those that are complete (the five steps of a load, the brightest
the best), and what state it is in; the best and the chosen one are named as well.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from console.tui.core.draw import dots
from console.tui.core.draw.dots import Grid, Label, Layer
from console.tui.core.draw.format import moment, number
from console.tui.core.draw.glyphs import Glyphs
from console.tui.core.draw.lines import Line, line, wrap
from console.tui.core.sweeps import words
from console.tui.core.sweeps.words import Quality
from jobs.wire.sweepviews import ObjectiveView, TrialView

Curve = Sequence[tuple[int, float]]
"""(step, value), ascending."""

Picture = Callable[[TrialView | None], list[Line]]
"""A picture that lacks only the trial that the cursor is on: all others are drawn once for many of them."""

GUTTER = 8
"""Cells of the y axis: the longest number, and the axis."""

FEW = 400
"""Trials whose spots are four dots large; of more, a spot is one dot."""

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
        brushed: the trials that pass the brush; None without one.
        log: logarithmic values.
        by_time: the history over time rather than over trials.
    """

    trials: Sequence[TrialView]
    objectives: Sequence[ObjectiveView]
    quality: Quality
    best: int | None = None
    brushed: frozenset[int] | None = None
    log: bool = False
    by_time: bool = False

    def tone(self, trial: TrialView) -> str:
        if self.brushed is not None and trial["number"] not in self.brushed:
            return "faint"
        if trial["state"] in words.OPEN:
            return "ok"
        value = words.reached(trial)
        return "dim" if trial["state"] != "COMPLETE" or value is None else self.quality.tone(value)

    def line_tone(self, trial: TrialView) -> str:
        """Of a whole line: there are many of them, and those that are out of the race must recede, unless
        the brush picks them out."""
        tone = self.tone(trial)
        return "faint" if tone == "dim" and self.brushed is None else tone


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
) -> Picture:
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
        return said("No trial has logged a value yet.", width)
    values = [value for t in trials for _, value in curves[t["number"]]]
    axis = value_axis(values, scene.objectives[0], log=scene.log, zoom=zoom)
    first, last = min(steps), max(max(steps), min(steps) + 1)
    strokes.begin((grid, axis, first, last))
    layers = dict.fromkeys(LAYERS, 0)

    def column(step: int) -> int:
        return grid.x((step - first) / (last - first))

    def stroke(trial: TrialView) -> int:
        curve = curves[trial["number"]]
        held = strokes.held.get(trial["number"])
        if held is None or held[0] != len(curve):
            at = [(column(step), axis.share(value)) for step, value in curve]
            held = strokes.held[trial["number"]] = (len(curve), _inside(grid, at))
        return held[1]

    def head(trial: TrialView) -> tuple[int, int]:
        step, value = curves[trial["number"]][-1]
        return grid.cell(column(step), grid.y(axis.share(value)))

    for trial in trials:
        layers[scene.line_tone(trial)] |= stroke(trial)
    known = {t["number"]: t for t in scene.trials}
    named = [t for t in trials if t["state"] in words.OPEN or t["number"] == scene.best]
    below = drawn_layers(layers)
    low, high, middle = number(axis.low), number(axis.high), number(axis.middle)

    def finish(chosen: TrialView | None) -> list[Line]:
        top, first_named = [], [t for t in named if t["number"] == scene.best]
        if chosen is not None and curves.get(chosen["number"]):
            bits = 0
            for trial in _line_of(chosen, known):
                bits |= stroke(trial) if curves.get(trial["number"]) else 0
            top = drawn_layers({"key": bits})
            first_named.insert(0, chosen)
        order = {t["number"]: t for t in (*first_named, *named)}
        labels = _named([(head(t), t) for t in order.values()], chosen, grid)
        drawn = dots.render(grid, [*below, *top], labels)
        return [
            *dots.framed(drawn, low, high, GUTTER, glyphs, middle=middle),
            _below(str(first), "step", str(last), grid.cells),
        ]

    return finish


def _line_of(trial: TrialView, known: Mapping[int, TrialView]) -> list[TrialView]:
    """A trial and those whose checkpoints it goes back to: in a population, its whole line."""
    out, seen = [trial], {trial["number"]}
    while trial["parent"] is not None and trial["origin"] in ("continued", "copied", "rerun"):
        before = known.get(trial["parent"])
        if before is None or before["number"] in seen:
            break
        seen.add(before["number"])
        if trial["origin"] != "rerun":  # which began where the one did that it runs again
            out.append(before)
        trial = before
    return out


def said(text: str, width: int) -> Picture:
    """Words where there is nothing to be drawn."""
    lines = [line((" " + part, "dim")) for part in wrap(text, width - 1)]
    return lambda chosen: lines


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
    heads: Sequence[tuple[tuple[int, int], TrialView]], chosen: TrialView | None, grid: Grid
) -> dict[tuple[int, int], Label]:
    """Numbers of trials at the ends of their curves, the first ones first, none over another."""
    out: dict[tuple[int, int], Label] = {}
    taken: set[tuple[int, int]] = set()
    for (row, column), trial in heads:
        text = f"#{trial['number']}"
        begin = min(column + 1, grid.cells - len(text))
        for place in (row, row - 1, row + 1):
            cells = {(place, begin + at) for at in range(-1, len(text) + 1)}
            if 0 <= place < grid.rows and not cells & taken:
                taken |= cells
                tone = "ok" if trial["state"] in words.OPEN else "strong"
                here = chosen is not None and trial["number"] == chosen["number"]
                out[place, begin] = (text, "found" if here else tone)
                break
    return out


def history(scene: Scene, width: int, height: int, glyphs: Glyphs, zoom: int = 0) -> Picture:
    """Each trial's value in the order in which they were asked for (or by the time of their end), and
    the best so far as a line."""
    objective = scene.objectives[0]
    known = [(t, v) for t in scene.trials if (v := words.reached(t)) is not None]
    grid = Grid(width - GUTTER, height - 1, glyphs.braille)
    if not known or grid.cells < 8 or grid.rows < 2:
        return said("No trial has logged a value yet.", width)
    axis = value_axis([v for _, v in known], objective, log=scene.log, zoom=zoom)

    def when(trial: TrialView) -> float:
        if not scene.by_time:
            return float(trial["number"])
        at = moment(trial["ended_at"]) or moment(trial["started_at"])
        return at if at is not None else moment(trial["asked_at"]) or 0.0

    if scene.by_time:
        known.sort(key=lambda one: when(one[0]))
    first = min(when(t) for t, _ in known) if scene.by_time else 0.0
    last = max(when(known[-1][0]) if scene.by_time else when(scene.trials[-1]), first + 1)

    def place(trial: TrialView) -> tuple[int, int] | None:
        value = words.reached(trial)
        if value is None:
            return None
        return grid.x((when(trial) - first) / (last - first)), grid.y(axis.share(value))

    best: float | None = None
    steps: list[tuple[int, int]] = []
    for trial, value in known:
        if trial["state"] == "COMPLETE" and trial["feasible"] is not False:
            if best is None or words.better(objective, value, best):
                best = value
            x = grid.x((when(trial) - first) / (last - first))
            steps.append((x, grid.y(axis.share(best))))
    line_of_best = Layer(_stairs(grid, steps), "accent", "_")
    low, high, middle = number(axis.low), number(axis.high), number(axis.middle)
    ends = ("begin", "time", "now") if scene.by_time else ("0", "trial", f"{last:g}")

    def frame(drawn: list[Line]) -> list[Line]:
        framed = dots.framed(drawn, low, high, GUTTER, glyphs, middle=middle)
        return [*framed, _below(*ends, grid.cells)]

    return scattered(grid, [t for t, _ in known], scene.tone, place, [line_of_best], frame, glyphs)


def scattered(
    grid: Grid,
    trials: Sequence[TrialView],
    tone: Callable[[TrialView], str],
    place: Callable[[TrialView], tuple[int, int] | None],
    below: Sequence[Layer],
    frame: Callable[[list[Line]], list[Line]],
    glyphs: Glyphs,
) -> Picture:
    """A spot for each trial that has a place.

    Args:
        tone: of a trial's spot; those that recede are small, and where there are many, all are.
        place: column and row of dots.
        below: what lies under the spots.
        frame: puts axes round the drawing.
    """
    layers = dict.fromkeys(LAYERS, 0)
    for trial in trials:
        if (at := place(trial)) is not None:
            its_tone = tone(trial)
            large = its_tone != "faint" and len(trials) <= FEW
            layers[its_tone] |= spot(grid, *at, large=large)
    ground = [*below, *drawn_layers(layers)]

    def finish(chosen: TrialView | None) -> list[Line]:
        at = None if chosen is None else place(chosen)
        labels = {} if at is None else {grid.cell(*at): (glyphs.live, "key")}
        return frame(dots.render(grid, ground, labels))

    return finish


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


def front_lines(scene: Scene, width: int, height: int, glyphs: Glyphs) -> Picture:
    """The first two objectives against each other; the front is a line through its trials."""
    done = [t for t in scene.trials if t["state"] == "COMPLETE" and t["values"]]
    grid = Grid(width - GUTTER, height - 1, glyphs.braille)
    if not done or len(scene.objectives) < 2 or grid.cells < 8 or grid.rows < 2:
        return said("The front begins with the first trial that is complete.", width)
    across, up = (
        value_axis([(t["values"] or [])[i] for t in done], scene.objectives[i], log=False)
        for i in (0, 1)
    )

    def place(trial: TrialView) -> tuple[int, int] | None:
        if not trial["values"]:
            return None
        first, second = trial["values"][:2]
        return grid.x(across.share(first)), grid.y(up.share(second))

    best = front(done, scene.objectives)
    leads = {t["number"] for t in best}
    stairs = _stairs(grid, sorted(at for t in best if (at := place(t))))

    def tone(trial: TrialView) -> str:
        if scene.brushed is not None and trial["number"] not in scene.brushed:
            return "faint"
        return "load4" if trial["number"] in leads else "load1"

    name = f"{scene.objectives[0]['metric']} {words.goal_glyph(scene.objectives[0], glyphs)}"
    low, high = number(up.low), number(up.high)

    def frame(drawn: list[Line]) -> list[Line]:
        framed = dots.framed(drawn, low, high, GUTTER, glyphs)
        return [*framed, _below(number(across.low), name, number(across.high), grid.cells)]

    return scattered(grid, done, tone, place, [Layer(stairs, "accent", "_")], frame, glyphs)
