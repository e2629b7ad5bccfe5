"""Metrics in words and charts: one job's, or several jobs' in one chart. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from console.axes import values
from console.tui.core.draw import ticks
from console.tui.core.draw.chart import Sample, Scale, auto_scale, axis_cells, overlay
from console.tui.core.draw.format import clock, number, span
from console.tui.core.draw.glyphs import Glyphs
from console.tui.core.draw.lines import BLANK, Line, Span, fit, line
from console.tui.core.draw.lines import width as cells
from console.tui.core.draw.look import SMOOTHINGS, Look, nearest, smoothed
from jobs.base.numbers import finite
from jobs.metrics.series import in_order
from jobs.wire.views import SeriesPoint

Series = Mapping[str, Sequence[SeriesPoint]]

TONES = ("accent", "warn", "ok", "info", "error", "strong")
"""Of the jobs in a comparison, which are told apart by their names in the legend as well."""


GUTTER = 8
"""Cells of the y axis: the longest number, and the axis."""


LEAST = 6
"""Lines of a chart at least, with its title and its axis."""


def names(series: Series, objective: str | None = None) -> list[str]:
    """The objective first, else the loss, then the rest by name."""
    return in_order(series, objective)


def opening(series: Series, objective: str | None) -> str | None:
    """The metric that is shown first: the objective, else the loss, else the first by name."""
    return next(iter(in_order(series, objective)), None)


def extent(series: Series) -> tuple[float, float] | None:
    """When the first and the last point of any metric were logged; None without points."""
    ends = [(points[0]["at"], points[-1]["at"]) for points in series.values() if points]
    return (min(a for a, _ in ends), max(b for _, b in ends)) if ends else None


@dataclass(frozen=True, slots=True)
class Curve:
    """A series as it is drawn: x by step or time, y on the scale that was asked for."""

    samples: list[Sample]
    left_out: int  # points that no chart can show: not finite, or not positive on a log scale


def curve(points: Sequence[SeriesPoint], look: Look, t0: float, t1: float) -> Curve:
    """What of a series lies in the window of time [t0, t1]."""
    # Smoothed before it is cut, so that zooming in does not change the line.
    values = smoothed([finite(p["value"]) for p in points], SMOOTHINGS[look.smooth])
    out: list[Sample] = []
    left_out = 0
    for point, value in zip(points, values, strict=True):
        if not t0 <= point["at"] <= t1:
            continue
        if value is None or (look.log and value <= 0):
            left_out += 1
            continue
        x = point["at"] if look.by_time else float(point["step"])
        y = math.log10(value) if look.log else value
        out.append(Sample(x, y, y))
    return Curve(out, left_out)


def lines(
    series: Series,
    chosen: str | None,
    look: Look,
    begin: float,
    end: float,
    width: int,
    height: int,
    glyphs: Glyphs,
    objective: str | None = None,
) -> list[Line]:
    """Charts of as many metrics as there is room for, from the chosen one on, in the order of `names`."""
    out: list[Line] = []
    for index, name in enumerate(shown(series, chosen, height, objective)):
        t0, t1 = look.window(begin, end)
        one = curve(series[name], look, t0, t1)
        each = _each(series, height)
        title = _title(name, series[name], one, look, (t0, t1), width, glyphs, strong=index == 0)
        drawn = _drawn([(one, "accent")], [series[name]], look, width, each - 1, glyphs)
        out += [title, *drawn, *[BLANK] * (each - 1 - len(drawn))]
    return out


def _each(series: Series, height: int) -> int:
    """Lines of one chart, where as many as have room are below each other."""
    return min(12, height // max(1, min(len(series), height // LEAST)))


def shown(series: Series, chosen: str | None, height: int, objective: str | None) -> list[str]:
    """The metrics that have room in `height` lines: from the chosen one on."""
    known = names(series, objective)
    if not known:
        return []
    first = known.index(chosen) if chosen in known else 0
    count = max(1, height // max(1, _each(series, height)))
    return [*known[first:], *known[:first]][:count]


def moment_at(
    series: Series,
    chosen: str | None,
    objective: str | None,
    look: Look,
    begin: float,
    end: float,
    width: int,
    height: int,
    x: int,
    y: int,
) -> float | None:
    """When the point was logged that is drawn nearest to column `x` in the chart at line `y`; None
    beside the charts."""
    known = shown(series, chosen, height, objective)
    each = max(1, _each(series, height))
    if y // each >= len(known):
        return None
    window = look.window(begin, end)
    return _pointed([series[known[y // each]]], look, window, width, each - 1, x)


def _pointed(
    held: Sequence[Sequence[SeriesPoint]],
    look: Look,
    window: tuple[float, float],
    width: int,
    rows: int,
    x: int,
) -> float | None:
    """When the point was logged that is drawn nearest to column `x` in a chart of these series."""
    axes = _axes([curve(points, look, *window) for points in held], look, width, rows)
    if axes is None or not axes.gutter <= x < width:
        return None
    wanted = axes.x0 + (x - axes.gutter + 0.5) / (width - axes.gutter) * (axes.x1 - axes.x0)
    inside = [
        point
        for points in held
        for point in points
        if window[0] <= point["at"] <= window[1] and finite(point["value"]) is not None
    ]
    return min(inside, key=lambda point: abs(_place(point, look) - wanted))["at"]


def _place(point: SeriesPoint, look: Look) -> float:
    """Where a point is on the x axis."""
    return point["at"] if look.by_time else float(point["step"])


def _title(
    name: str,
    points: Sequence[SeriesPoint],
    shown: Curve,
    look: Look,
    window: tuple[float, float],
    width: int,
    glyphs: Glyphs,
    *,
    strong: bool,
) -> Line:
    """Name and value: the one under the crosshair, else the newest; then the extremes of the window."""
    if look.cross is not None:
        at = nearest(points, look.cross)
        where = "" if at is None else f" at step {at['step']}, {clock(at['at'], seconds=True)}"
        value = at["value"] if at else None
    else:
        last = next((p for p in reversed(points) if p["value"] is not None), None)
        where = "" if last is None else f" at step {last['step']}"
        value = last["value"] if last else None
    lost = f" {glyphs.dot} {shown.left_out} not drawn" if shown.left_out else ""
    inside = [p["value"] for p in points if window[0] <= p["at"] <= window[1]]
    values = [v for v in inside if v is not None]
    ends = f"  min {number(min(values))} max {number(max(values))}" if values else ""
    parts = [
        (f" {name} ", "strong" if strong else ""),
        (number(value), "info"),
        (where, "dim"),
        (lost, "warn"),
    ]
    if cells(line(*parts)) + len(ends) <= width:
        parts.insert(3, (ends, "dim"))
    return line(*parts)


@dataclass(frozen=True, slots=True)
class _Axes:
    """Where a chart draws what.

    Attributes:
        gutter: cells left of its points.
        under: whether it has an axis below.
    """

    scale: Scale
    marks: Sequence[ticks.Tick]
    gutter: int
    x0: float
    x1: float
    under: bool


def _axes(curves: Sequence[Curve], look: Look, width: int, rows: int) -> _Axes | None:
    """None where there is no point to draw."""
    samples = [sample for one in curves for sample in one.samples]
    if not samples:
        return None
    scale = auto_scale(samples)
    if look.log:
        labels = (number(10**scale.low), number(10**scale.high))
        scale = Scale(scale.low, scale.high, labels)
    x0 = min(sample.x for sample in samples)
    x1 = max(max(sample.x for sample in samples), x0 + 1)
    under = rows >= LEAST - 1 and width >= GUTTER + 16  # an axis costs a line
    of_y = ticks.of_logs if look.log else ticks.of_values
    marks = of_y(scale.low, scale.high, max(3, rows // 2))
    gutter = max(GUTTER, axis_cells(scale, rows - under, marks))
    return _Axes(scale, marks, gutter, x0, x1, under)


def _drawn(
    curves: Sequence[tuple[Curve, str]],
    held: Sequence[Sequence[SeriesPoint]],
    look: Look,
    width: int,
    rows: int,
    glyphs: Glyphs,
) -> list[Line]:
    axes = _axes([one for one, _ in curves], look, width, rows)
    if axes is None:
        return [line(("  no value here", "dim"))]
    x0, x1, room = axes.x0, axes.x1, width - axes.gutter
    drawn = overlay(
        [(one.samples, tone) for one, tone in curves],
        width,
        rows - axes.under,
        axes.scale,
        glyphs,
        x0=x0,
        x1=x1,
        cross=cross_x(held, look),
        gutter=axes.gutter,
        marks=axes.marks,
    )
    if not (axes.under and drawn):
        return drawn
    of_x = ticks.of_steps if not look.by_time else ticks.of_times if x0 > 1e8 else _of_spans
    return [*drawn, ticks.axis(of_x(x0, x1, room // 12), x0, x1, axes.gutter, room, glyphs)]


def _of_spans(low: float, high: float, most: int) -> list[ticks.Tick]:
    """Times that are counted from a run's start."""
    return [(at, span(at)) for at in values(low, high, most)]


def cross_x(held: Sequence[Sequence[SeriesPoint]], look: Look) -> float | None:
    """Where the crosshair stands on the x axis."""
    if look.cross is None or look.by_time:
        return look.cross
    # By step, a moment is the step that was logged nearest to it.
    points = [p for p in (nearest(one, look.cross) for one in held) if p is not None]
    cross = look.cross
    best = min(points, key=lambda point: abs(point["at"] - cross), default=None)
    return None if best is None else float(best["step"])


def since_start(series: Series) -> dict[str, list[SeriesPoint]]:
    """Series with times counted from the first point, as runs are compared by time."""
    known = extent(series)
    if known is None:
        return {}
    return {
        name: [{"step": p["step"], "at": p["at"] - known[0], "value": p["value"]} for p in points]
        for name, points in series.items()
    }


def compare_lines(
    runs: Mapping[str, Series],
    labels: Mapping[str, str],
    chosen: str | None,
    look: Look,
    width: int,
    height: int,
    glyphs: Glyphs,
) -> list[Line]:
    """One metric of several jobs: a legend line for each, then all curves in one chart.

    Args:
        runs: job id -> its series, by `since_start`.
        labels: job id -> its name.
    """
    held = {run: series.get(chosen or "", []) for run, series in runs.items()}
    t0, t1 = look.window(0.0, _end(held))
    cross = cross_x(list(held.values()), look)
    out: list[Line] = []
    curves: list[tuple[Curve, str]] = []
    for index, (run, points) in enumerate(held.items()):
        tone = TONES[index % len(TONES)]
        one = curve(points, look, t0, t1)
        curves.append((one, tone))
        out.append(_legend(run, labels.get(run, ""), points, look, cross, tone, width, glyphs))
    rows = _rows(held, height)
    return [*out, *_drawn(curves, list(held.values()), look, width, rows, glyphs)]


def _end(held: Series) -> float:
    """Seconds of the longest of the runs."""
    return max((points[-1]["at"] for points in held.values() if points), default=0.0)


def _rows(held: Series, height: int) -> int:
    """Lines for the chart below a line for each run."""
    return max(4, height - len(held))


def compare_moment_at(
    runs: Mapping[str, Series],
    chosen: str | None,
    look: Look,
    width: int,
    height: int,
    x: int,
    y: int,
) -> float | None:
    """Seconds from the start of its run to the point that is drawn nearest to column `x`; None beside the
    chart. Arguments as those of `compare_lines`."""
    held = {run: series.get(chosen or "", []) for run, series in runs.items()}
    if y < len(held):
        return None
    window = look.window(0.0, _end(held))
    return _pointed(list(held.values()), look, window, width, _rows(held, height), x)


def _legend(
    run: str,
    name: str,
    points: Sequence[SeriesPoint],
    look: Look,
    cross: float | None,
    tone: str,
    width: int,
    glyphs: Glyphs,
) -> Line:
    """What a curve is of, and its value under the crosshair, which is where `cross` is on the x axis: by
    step, all values are those of one step."""
    found = None
    if cross is not None and points:
        found = min(points, key=lambda point: abs(_place(point, look) - cross))
    values = [p["value"] for p in points if p["value"] is not None]
    last = values[-1] if values else None
    best = f"min {number(min(values))} max {number(max(values))}" if values else "no value"
    at = "" if found is None else f"  at step {found['step']}: {number(found['value'])}"
    return (
        Span(f" {glyphs.blocks[-1]} ", tone),
        Span(fit(run, 7), "strong"),
        Span(fit(name, max(8, min(24, width - 60)), ellipsis=glyphs.ellipsis) + " "),
        Span(fit(number(last), 9), "info"),
        Span(best, "dim"),
        Span(at, "key"),
    )
