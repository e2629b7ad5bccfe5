"""Drawing with dots, where a whole drawing is one number. Pure.

A canvas of braille dots has its dots in columns, the topmost of the leftmost column being bit 0. Laying
two drawings over each other is `|`, moving one to the right is `<<`, and a stroke from one column to
another is worked out once for all the places where it occurs. So a thousand learning curves are some
ten thousand operations on numbers, and not a million dots.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from console.tui.core.draw.glyphs import Glyphs
from console.tui.core.draw.lines import Line, Span

# Of a nibble of dots, the topmost in its lowest bit, as the left or right half of a braille cell
# (Unicode 4.0, block 2800: the fourth row was added later, and has the highest bits).
_LEFT = tuple((n & 7) | (n & 8) << 3 for n in range(16))
_RIGHT = tuple((n & 7) << 3 | (n & 8) << 4 for n in range(16))


@dataclass(frozen=True, slots=True)
class Grid:
    """A canvas of `cells` by `rows` characters, and how many dots that are."""

    cells: int
    rows: int
    braille: bool

    @property
    def width(self) -> int:
        """Dots beside each other."""
        return self.cells * 2 if self.braille else self.cells

    @property
    def height(self) -> int:
        """Dots above each other."""
        return self.rows * 4 if self.braille else self.rows

    def x(self, share: float) -> int:
        """The column of dots at a share of the width; 0 is the left edge, 1 the right one."""
        return max(0, min(self.width - 1, round(share * (self.width - 1))))

    def y(self, share: float) -> int:
        """The row of dots at a share of the height; 0 is the bottom, 1 the top."""
        return max(0, min(self.height - 1, round((1 - share) * (self.height - 1))))

    def cell(self, x: int, y: int) -> tuple[int, int]:
        """(row, column) of the character that a dot is in."""
        return (y // 4, x // 2) if self.braille else (y, x)

    def dot(self, x: int, y: int) -> int:
        return 1 << (x * self.height + y)

    def polyline(self, points: Sequence[tuple[int, int]]) -> int:
        """A line through dots whose columns never decrease; one point alone is a dot."""
        if len(points) == 1:
            return self.dot(*points[0])
        height, bits = self.height, 0
        for (x0, y0), (x1, y1) in pairwise(points):
            bits |= _stroke(x1 - x0, y0, y1, height) << (x0 * height)
        return bits

    def upright(self, x: int, top: int, bottom: int) -> int:
        """A vertical line, both ends included."""
        return _stroke(0, top, bottom, self.height) << (x * self.height)


@lru_cache(maxsize=1 << 15)
def _stroke(across: int, y0: int, y1: int, height: int) -> int:
    """A line from row `y0` in column 0 to row `y1` in column `across`, without a gap."""
    if across == 0:
        top, bottom = min(y0, y1), max(y0, y1)
        return ((1 << (bottom - top + 1)) - 1) << top
    bits = 0
    for x in range(across + 1):
        # A column's dots reach half-way to its neighbours, so that a steep line is a line.
        before = y0 + (y1 - y0) * max(0.0, x - 0.5) / across
        after = y0 + (y1 - y0) * min(float(across), x + 0.5) / across
        top, bottom = sorted((round(before), round(after)))
        bits |= (((1 << (bottom - top + 1)) - 1) << top) << (x * height)
    return bits


@dataclass(frozen=True, slots=True)
class Layer:
    """A drawing in one tone; `shape` is its character where there is no braille."""

    bits: int
    tone: str
    shape: str = "*"


Label = tuple[str, str]
"""Text and tone, to be written over a drawing."""


def render(
    grid: Grid,
    layers: Sequence[Layer],
    labels: Mapping[tuple[int, int], Label] | None = None,
) -> list[Line]:
    """The drawing as lines of text, top row first. A cell has one tone, so of the layers that have dots
    in it only the last is seen: what matters is not drowned in what lies below.

    Args:
        labels: (row, column) -> what is written there, over the dots; cut at the right edge.
    """
    chars = [[" "] * grid.cells for _ in range(grid.rows)]
    tones = [[""] * grid.cells for _ in range(grid.rows)]
    if grid.braille:
        _braille(grid, layers, chars, tones)
    else:
        _plain(grid, layers, chars, tones)
    for (row, column), (text, tone) in (labels or {}).items():
        for at, char in enumerate(text[: max(0, grid.cells - column)], column):
            chars[row][at], tones[row][at] = char, tone
    return [_spans(row, tone) for row, tone in zip(chars, tones, strict=True)]


def _braille(
    grid: Grid, layers: Sequence[Layer], chars: list[list[str]], tones: list[list[str]]
) -> None:
    dots = [[0] * grid.cells for _ in range(grid.rows)]
    whole = (1 << grid.height) - 1
    for layer in layers:
        bits, tone = layer.bits, layer.tone
        for cell in range(grid.cells):
            if not bits:
                break
            left, right = bits & whole, (bits >> grid.height) & whole
            bits >>= 2 * grid.height
            if not left and not right:
                continue
            for row in range(grid.rows):
                held = _LEFT[left & 15] | _RIGHT[right & 15]
                if held:
                    dots[row][cell] = held
                    tones[row][cell] = tone
                left, right = left >> 4, right >> 4
                if not left and not right:
                    break
    for row, cells in enumerate(dots):
        for cell, held in enumerate(cells):
            if held:
                chars[row][cell] = chr(0x2800 + held)


def _plain(
    grid: Grid, layers: Sequence[Layer], chars: list[list[str]], tones: list[list[str]]
) -> None:
    for layer in layers:
        bits = layer.bits
        for x in range(grid.width):
            column = (bits >> (x * grid.height)) & ((1 << grid.height) - 1)
            for y in range(grid.height):
                if column >> y & 1:
                    chars[y][x], tones[y][x] = layer.shape, layer.tone


def _spans(chars: Sequence[str], tones: Sequence[str]) -> Line:
    """Characters of one tone beside each other as one span; spaces go with what is before them."""
    out: list[Span] = []
    start, tone = 0, ""
    for at, char in enumerate(chars):
        if char != " " and tones[at] != tone:
            if at > start:
                out.append(Span("".join(chars[start:at]), tone))
            start, tone = at, tones[at]
    out.append(Span("".join(chars[start:]), tone))
    return tuple(out)


def framed(
    lines: Sequence[Line], low: str, high: str, gutter: int, glyphs: Glyphs, *, middle: str = ""
) -> list[Line]:
    """Lines with a y axis before them: `high` at the top, `low` at the bottom.

    Args:
        gutter: cells of the axis, labels included.
        middle: a label half-way up, where there is room.
    """
    out: list[Line] = []
    for row, parts in enumerate(lines):
        label = high if row == 0 else low if row == len(lines) - 1 else ""
        if middle and len(lines) >= 7 and row == len(lines) // 2:
            label = middle
        axis = ("┤" if label else "│") if glyphs.braille else "|"
        out.append((Span(label.rjust(gutter - 1)[-(gutter - 1) :] + axis, "dim"), *parts))
    return out
