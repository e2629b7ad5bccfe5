"""Braille charts from decimated series: pure, and a spike never disappears.

A series becomes one (low, high) pair per dot column, so however many points fall into a column, its
extremes are drawn. A cell is two dot columns by four dot rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from console.tui.core.draw.format import number
from console.tui.core.draw.glyphs import Glyphs, block, load_tone
from console.tui.core.draw.lines import Line, Span
from console.tui.core.draw.ticks import Tick

Extremes = tuple[float, float]
Column = Extremes | None

# Dots of a braille cell, by column and by row from the top (Unicode 4.0, block 2800).
_DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))


@dataclass(frozen=True, slots=True)
class Sample:
    """A point of a series, or a bucket of several with its extremes."""

    x: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Scale:
    """The range of the y axis and the labels at its ends."""

    low: float
    high: float
    names: tuple[str, str] | None = None  # what the ends are called, when not by their own numbers

    @property
    def labels(self) -> tuple[str, str]:
        return self.names or (number(self.low), number(self.high))


PERCENT = Scale(0.0, 100.0)


def columns(samples: Sequence[Sample], count: int, x0: float, x1: float) -> list[Column]:
    """One (low, high) per column over [x0, x1]; None where there is nothing.

    A gap of one or two columns between neighbours is bridged (sampling is never perfectly even);
    a longer one stays open, because a line over missing telemetry would be an invention. When there
    are fewer samples than columns everything is bridged: then the gaps are the sampling itself.
    """
    out: list[Column] = [None] * count
    if count <= 0 or x1 <= x0:
        return out
    inside = 0
    for sample in samples:
        if not (x0 <= sample.x <= x1) or math.isnan(sample.low) or math.isnan(sample.high):
            continue
        inside += 1
        index = min(count - 1, int((sample.x - x0) / (x1 - x0) * count))
        held = out[index]
        out[index] = (
            (sample.low, sample.high)
            if held is None
            else (min(held[0], sample.low), max(held[1], sample.high))
        )
    return _bridge(out, max(2, math.ceil(2.5 * count / inside)) if inside else 2)


def _bridge(held: list[Column], longest: int) -> list[Column]:
    out = list(held)
    last: int | None = None
    for index, column in enumerate(held):
        if column is None:
            continue
        if last is not None and 1 < index - last <= longest + 1:
            start, end = _middle(held[last]), _middle(column)
            for step in range(1, index - last):
                value = start + (end - start) * step / (index - last)
                out[last + step] = (value, value)
        last = index
    return out


def _middle(column: Column) -> float:
    assert column is not None
    return (column[0] + column[1]) / 2


def auto_scale(samples: Sequence[Sample]) -> Scale:
    """The range of the data; widened around a flat line, and percent-like data keeps its own."""
    values = [v for s in samples for v in (s.low, s.high) if math.isfinite(v)]
    if not values:
        return Scale(0.0, 1.0)
    low, high = min(values), max(values)
    if high == low:
        pad = abs(high) * 0.1 or 1.0
        return Scale(low - pad, high + pad)
    return Scale(low, high)


def plot(held: Sequence[Column], rows: int, scale: Scale, glyphs: Glyphs) -> list[str]:
    """`rows` strings of half as many cells as there are columns, top row first."""
    cells = (len(held) + 1) // 2
    if glyphs.braille:
        return _braille(held, cells, rows, scale)
    return _ascii(held, cells, rows, scale)


def _dot_row(value: float, rows: int, scale: Scale) -> int:
    """Dot row from the top, clamped into the chart."""
    share = (value - scale.low) / (scale.high - scale.low)
    return max(0, min(rows - 1, round((1 - share) * (rows - 1))))


def _spans(held: Sequence[Column], rows: int, scale: Scale) -> list[tuple[int, int] | None]:
    """Dot rows (top, bottom) of each column, stretched to meet the column before, so that a steep
    edge is a line and not two unconnected dots."""
    out: list[tuple[int, int] | None] = []
    before: tuple[int, int] | None = None
    for column in held:
        if column is None:
            before = None
            out.append(None)
            continue
        top, bottom = _dot_row(column[1], rows, scale), _dot_row(column[0], rows, scale)
        own = (top, bottom)
        if before is not None:
            if before[0] > bottom + 1:
                bottom = before[0] - 1
            elif before[1] < top - 1:
                top = before[1] + 1
        before = own
        out.append((top, bottom))
    return out


def _braille(held: Sequence[Column], cells: int, rows: int, scale: Scale) -> list[str]:
    grid = [[0] * cells for _ in range(rows)]
    for index, reach in enumerate(_spans(held, rows * 4, scale)):
        if reach is not None:
            for dot in range(reach[0], reach[1] + 1):
                grid[dot // 4][index // 2] |= _DOTS[index % 2][dot % 4]
    return ["".join(chr(0x2800 + bits) if bits else " " for bits in row) for row in grid]


def _ascii(held: Sequence[Column], cells: int, rows: int, scale: Scale) -> list[str]:
    merged: list[Column] = []
    for index in range(cells):
        pair = [column for column in held[index * 2 : index * 2 + 2] if column is not None]
        merged.append((min(c[0] for c in pair), max(c[1] for c in pair)) if pair else None)
    grid = [[" "] * cells for _ in range(rows)]
    for index, reach in enumerate(_spans(merged, rows, scale)):
        if reach is not None:
            for row in range(reach[0], reach[1] + 1):
                grid[row][index] = "*" if reach[0] == reach[1] else "|"
    return ["".join(row) for row in grid]


def chart(
    samples: Sequence[Sample],
    width: int,
    rows: int,
    scale: Scale,
    glyphs: Glyphs,
    *,
    x0: float,
    x1: float,
    tone: str = "accent",
) -> list[Line]:
    """A chart with its y axis: `rows` lines of at most `width` cells."""
    return overlay([(samples, tone)], width, rows, scale, glyphs, x0=x0, x1=x1)


def overlay(
    series: Sequence[tuple[Sequence[Sample], str]],
    width: int,
    rows: int,
    scale: Scale,
    glyphs: Glyphs,
    *,
    x0: float,
    x1: float,
    cross: float | None = None,
    gutter: int = 0,
    marks: Sequence[Tick] = (),
) -> list[Line]:
    """Several series in one chart, each in its tone; where they meet, the later one's tone counts.

    Args:
        cross: x of a vertical line through the chart; it stays behind the curves.
        gutter: cells of the y axis at least, so that charts above each other share their x axis.
        marks: values with labels at the y axis; without any, its ends are labelled.
    """
    gutter = max(gutter, axis_cells(scale, rows, marks))
    cells = width - gutter
    if cells < 4 or rows < 1:
        return []
    drawn = [
        (plot(columns(samples, cells * 2, x0, x1), rows, scale, glyphs), tone)
        for samples, tone in series
    ]
    hair = None
    if cross is not None and x0 <= cross <= x1:
        hair = min(cells - 1, int((cross - x0) / (x1 - x0) * cells))
    out: list[Line] = []
    labels = _labels(scale, rows, marks)
    for row in range(rows):
        label = labels.get(row, "")
        axis = ("┤" if label else "│") if glyphs.braille else "|"
        merged = _merge([(plotted[row], tone) for plotted, tone in drawn], cells)
        if hair is not None:
            text, _ = merged[hair]
            merged[hair] = (glyphs.cross if text == " " else text, "key")
        out.append((Span(label.rjust(gutter - 1) + axis, "dim"), *_runs(merged)))
    return out


def axis_cells(scale: Scale, rows: int, marks: Sequence[Tick] = ()) -> int:
    """Cells that the y axis of a chart takes at least."""
    return max(map(len, _labels(scale, rows, marks).values())) + 1


def _labels(scale: Scale, rows: int, marks: Sequence[Tick]) -> dict[int, str]:
    """Row -> its label: of round values where two have rows of their own, else of the ends."""
    low, high = scale.labels
    found = {_dot_row(value, rows, scale): label for value, label in marks} if rows > 1 else {}
    return found if len(found) > 1 else {rows - 1: low, 0: high}


def _merge(rows: Sequence[tuple[str, str]], cells: int) -> list[tuple[str, str]]:
    """Rows of characters laid over each other: dots of braille cells are joined."""
    out = [(" ", "")] * cells
    for text, tone in rows:
        for index, char in enumerate(text[:cells]):
            if char == " ":
                continue
            below = ord(out[index][0]) - 0x2800
            dots = ord(char) - 0x2800
            both = 0 <= below < 256 and 0 <= dots < 256
            out[index] = (chr(0x2800 + (below | dots)) if both else char, tone)
    return out


def _runs(cells: Sequence[tuple[str, str]]) -> list[Span]:
    """Cells of one tone beside each other as one span; spaces take the tone before them."""
    out: list[Span] = []
    for char, tone in cells:
        if out and (out[-1].tone == tone or (char == " " and out[-1].tone != "key")):
            out[-1] = Span(out[-1].text + char, out[-1].tone)
        else:
            out.append(Span(char, tone))
    return out


def strip(values: Sequence[float | None], glyphs: Glyphs) -> list[Span]:
    """Percentages over time as one row of blocks, coloured by load; a gap is a space."""
    return [
        Span(" ") if value is None else Span(block(value / 100, glyphs), load_tone(value))
        for value in values
    ]
