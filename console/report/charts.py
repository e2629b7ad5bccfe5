"""Charts as SVG, for a page that is read on a screen, on paper and by a screen reader. Pure.

Every chart has a title and a sentence that says what it shows; lines differ by their dashes too, so that
none hangs on colour alone. Colours are classes (`c0` to `c7`): the page's style sheet knows dark from light.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

from markupsafe import Markup, escape

from console import axes
from console.cli.format import number, span

COLOURS = 8
"""Lines that get a colour of their own; where there are more, all but the first are drawn faint."""

_WIDTH, _HEIGHT = 640, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 12, 10, 40
_TICKS_X, _TICKS_Y = 8, 5
_LABEL = 28
"""Characters of a name beside a bar."""


class Curve(NamedTuple):
    """One line of a chart: its name, and its finite points in ascending x."""

    name: str
    points: Sequence[tuple[float, float]]


class Bar(NamedTuple):
    """One stretch of time of a chart of stretches; `state` chooses its colour."""

    name: str
    start: float  # seconds since the epoch
    end: float
    state: str


@dataclass(frozen=True, slots=True)
class _Plane:
    """Where values are on a drawing."""

    x0: float
    x1: float
    y0: float
    y1: float

    @classmethod
    def around(cls, points: Iterable[tuple[float, float]]) -> _Plane | None:
        known = [(x, y) for x, y in points if drawable(x) and drawable(y)]
        if not known:
            return None
        xs, ys = [x for x, _ in known], [y for _, y in known]
        x0, x1 = _apart(min(xs), max(xs))
        low, high = _apart(min(ys), max(ys))
        margin = (high - low) * 0.04
        return cls(x0, x1, low - margin, high + margin)

    def x(self, value: float) -> str:
        room = _WIDTH - _LEFT - _RIGHT
        return _short(_LEFT + (value - self.x0) / (self.x1 - self.x0) * room)

    def y(self, value: float) -> str:
        room = _HEIGHT - _TOP - _BOTTOM
        return _short(_TOP + (self.y1 - value) / (self.y1 - self.y0) * room)

    def path(self, points: Iterable[tuple[float, float]]) -> str:
        return " ".join(
            f"{self.x(x)},{self.y(y)}" for x, y in points if drawable(x) and drawable(y)
        )

    def grid(self, x_label: str) -> list[str]:
        bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
        out = []
        for at in axes.values(self.y0, self.y1, _TICKS_Y):
            y = self.y(at)
            out.append(f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{y}" y2="{y}"/>')
            out.append(f'<text class="y" x="{_LEFT - 6}" y="{y}">{escape(number(at))}</text>')
        for at in axes.values(self.x0, self.x1, _TICKS_X):
            out.append(
                f'<text class="x" x="{self.x(at)}" y="{bottom + 14}">{escape(axes.short(at))}</text>'
            )
        out.append(f'<line class="axis" x1="{_LEFT}" x2="{right}" y1="{bottom}" y2="{bottom}"/>')
        out.append(f'<text class="label" x="{right}" y="{_HEIGHT - 8}">{escape(x_label)}</text>')
        return out


def drawable(value: float) -> bool:
    """A finite number, and not one so large that a distance to it is none."""
    return abs(value) < 1e300


def _apart(low: float, high: float) -> tuple[float, float]:
    """Two ends that differ, also where there is one value, or as good as one."""
    largest = max(abs(low), abs(high))
    if high - low > largest * 1e-12 and high - low > 1e-290:
        return low, high
    margin = largest * 0.05 if largest > 1e-280 else 0.5
    return low - margin, high + margin


def _short(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _svg(title: str, told: str, inside: Iterable[str], height: int = _HEIGHT) -> Markup:
    return Markup(  # noqa: S704  # numbers, and texts that `escape` has been over
        f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{escape(f"{title}: {told}")}">'
        f"{''.join(inside)}</svg>"
    )


def lines(title: str, curves: Sequence[Curve], x_label: str = "step") -> Markup | None:
    """Curves over one another. None when there is no finite point."""
    plane = _Plane.around(point for curve in curves for point in curve.points)
    if plane is None:
        return None
    many = len(curves) > COLOURS
    drawn = []
    for index in reversed(range(len(curves))):  # the first lies on top
        curve = curves[index]
        style = "faint" if many and index else f"c{index % COLOURS}"
        hint = f"<title>{escape(curve.name)}</title>"
        points = [point for point in curve.points if all(map(drawable, point))]
        if len(points) == 1:
            ((x, y),) = points
            drawn.append(
                f'<circle class="{style}" cx="{plane.x(x)}" cy="{plane.y(y)}" r="3">{hint}</circle>'
            )
        elif points:
            drawn.append(
                f'<polyline class="{style}" points="{plane.path(points)}">{hint}</polyline>'
            )
    ends = [
        f"{curve.name} ends at {number(curve.points[-1][1])}"
        for curve in curves[:COLOURS]
        if curve.points
    ]
    return _svg(title, "; ".join(ends), [*plane.grid(x_label), *drawn])


def history(title: str, values: Sequence[tuple[int, float]], *, maximize: bool) -> Markup | None:
    """Values of trials as dots, and the best so far as a line of steps."""
    plane = _Plane.around((float(at), value) for at, value in values)
    if plane is None:
        return None
    values = [(at, value) for at, value in values if drawable(value)]
    better = max if maximize else min
    best: list[tuple[float, float]] = []
    for at, value in values:
        now = value if not best else better(best[-1][1], value)
        if best:
            best.append((float(at), best[-1][1]))
        best.append((float(at), now))
    dots = [
        f'<circle class="c0" cx="{plane.x(at)}" cy="{plane.y(value)}" r="3">'
        f"<title>trial {at}: {escape(number(value))}</title></circle>"
        for at, value in values
    ]
    line = f'<polyline class="c1" points="{plane.path(best)}"><title>best so far</title></polyline>'
    return _svg(
        title,
        f"{len(values)} values; the best is {number(best[-1][1])}",
        [*plane.grid("trial"), line, *dots],
    )


def parallel(
    title: str, names: Sequence[str], rows: Sequence[tuple[str, Sequence[float | str | None]]]
) -> Markup | None:
    """Parallel coordinates: an axis for each name, a line for each row; the first row is drawn on top.

    A row is its name and one value for each axis; an axis with words has a place for each of them.
    """
    if len(names) < 2 or not rows:
        return None
    top, bottom, left, right = 40, _HEIGHT - 24, 56, _WIDTH - 56
    gap = (right - left) / (len(names) - 1)
    places, out = [], []
    for index, name in enumerate(names):
        place, low, high = _axis([row[index] for _, row in rows])
        places.append(place)
        x = _short(left + index * gap)
        out.append(f'<line class="axis" x1="{x}" x2="{x}" y1="{top}" y2="{bottom}"/>')
        out.append(f'<text class="head" x="{x}" y="{top - 28}">{escape(cut(name))}</text>')
        out.append(f'<text class="head" x="{x}" y="{top - 10}">{escape(cut(high))}</text>')
        out.append(f'<text class="head" x="{x}" y="{bottom + 14}">{escape(cut(low))}</text>')
    for number_, (name, row) in reversed(list(enumerate(rows))):
        points = [
            f"{_short(left + index * gap)},{_short(bottom - places[index][value] * (bottom - top))}"
            for index, value in enumerate(row)
            if value in places[index]
        ]
        style = "c1" if number_ == 0 else "faint"
        out.append(
            f'<polyline class="{style}" points="{" ".join(points)}">'
            f"<title>{escape(name)}</title></polyline>"
        )
    return _svg(title, f"{len(rows)} rows over {', '.join(names)}; the first is {rows[0][0]}", out)


def _axis(
    values: Sequence[float | str | None],
) -> tuple[dict[float | str | None, float], str, str]:
    """The height of each value between 0 and 1, and what stands at the two ends."""
    known = [value for value in values if value is not None]
    plain = [value for value in known if isinstance(value, (int, float))]
    if len(plain) == len(known) and known:
        low, high = min(plain), max(plain)
        log = low > 0 and high / low >= 100
        ends = (math.log(low), math.log(high)) if log else (low, high)
        first, last = _apart(*ends)
        return (
            {v: ((math.log(v) if log else v) - first) / (last - first) for v in plain},
            number(low),
            number(high),
        )
    words = sorted({str(value) for value in known})
    heights: dict[float | str | None, float] = {
        value: words.index(str(value)) / max(1, len(words) - 1) for value in known
    }
    return heights, words[0] if words else "", words[-1] if words else ""


def cut(text: str, most: int = 14) -> str:
    """The text, or its beginning with an ellipsis."""
    return text if len(text) <= most else text[: most - 1] + "…"


def bars(title: str, values: Sequence[tuple[str, float]]) -> Markup | None:
    """Horizontal bars of shares between 0 and 1."""
    if not values:
        return None
    row, left = 22, 200
    room = _WIDTH - left - 70
    out = []
    for index, (name, value) in enumerate(values):
        y = index * row + 4
        width = _short(max(0.0, min(1.0, value)) * room)
        out.append(f'<text class="y" x="{left - 8}" y="{y + 9}">{escape(cut(name, _LABEL))}</text>')
        out.append(f'<rect class="c0" x="{left}" y="{y}" width="{width}" height="14"/>')
        out.append(
            f'<text class="end" x="{left + float(width) + 6}" y="{y + 9}">{value:.0%}</text>'
        )
    told = ", ".join(f"{name} {value:.0%}" for name, value in values)
    return _svg(title, told, out, height=len(values) * row + 8)


def stretches(title: str, found: Sequence[Bar]) -> Markup | None:
    """When each thing began and ended, one below the other."""
    if not found:
        return None
    row, left = 20, 180
    start = min(bar.start for bar in found)
    whole = max(max(bar.end for bar in found) - start, 1e-9)
    room = _WIDTH - left - 70
    out = []
    for index, bar in enumerate(found):
        y = index * row + 4
        x = left + (bar.start - start) / whole * room
        width = max(1.5, (bar.end - bar.start) / whole * room)
        lasted = span(bar.end - bar.start)
        out.append(f'<text class="y" x="{left - 8}" y="{y + 8}">{escape(cut(bar.name, 26))}</text>')
        out.append(
            f'<rect class="{_tone(bar.state)}" x="{_short(x)}" y="{y}" width="{_short(width)}" height="12">'
            f"<title>{escape(f'{bar.name}: {bar.state}, {lasted}')}</title></rect>"
        )
        out.append(f'<text class="end" x="{_short(x + width + 5)}" y="{y + 8}">{lasted}</text>')
    began = datetime.fromtimestamp(start, UTC).strftime("%Y-%m-%d %H:%M UTC")
    told = f"from {began}, {span(whole)} in all"
    return _svg(title, told, out, height=len(found) * row + 8)


def _tone(state: str) -> str:
    return {"SUCCEEDED": "good", "CACHED": "good", "FAILED": "bad"}.get(state, "faint")
