"""The two sets of characters the console draws with: Unicode, and plain ASCII (`--ascii`)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Glyphs:
    """Everything that is drawn and is not text. All are one cell wide."""

    blocks: str  # rising heights; a fraction of 1 is the last
    empty: str  # an idle GPU's block
    crossed: str  # a GPU that takes no work
    cursor: str
    live: str
    running: str
    waiting: str
    ok: str
    failed: str
    cancelled: str
    cached: str  # taken from before
    warn: str
    crumb: str
    dot: str  # separates facts on one line
    ellipsis: str
    more: str  # at the edge of a pane: the line goes on there
    less: str
    bar: str  # a vertical rule
    mark: str  # a row that the next action will be done to
    up: str  # sorted from the least
    down: str
    cross: str  # the crosshair through a chart
    rail: str  # a length of time, between `start` and `stop`
    start: str
    stop: str
    thick: str  # a range on an axis
    eighths: str  # parts of a full block from the left, none first; empty where there are none
    braille: bool
    frame: str  # Textual border type


UNICODE = Glyphs(
    blocks="▁▂▃▄▅▆▇█",
    empty="░",
    crossed="╳",
    cursor="▸",
    live="●",
    running="●",
    waiting="◌",
    ok="✓",
    failed="✗",
    cancelled="⊘",
    cached="↺",
    warn="!",
    crumb="▸",
    dot="·",
    ellipsis="…",
    more="›",
    less="‹",
    bar="│",
    mark="•",
    up="▴",
    down="▾",
    cross="┊",
    rail="━",
    start="┣",
    stop="┫",
    thick="┃",
    eighths=" ▏▎▍▌▋▊▉",
    braille=True,
    frame="solid",
)

ASCII = Glyphs(
    blocks="_.-:=+*#",
    empty=".",
    crossed="x",
    cursor=">",
    live="*",
    running="*",
    waiting="o",
    ok="+",
    failed="x",
    cancelled="-",
    cached="=",
    warn="!",
    crumb=">",
    dot="-",
    ellipsis="~",
    more=">",
    less="<",
    bar="|",
    mark="+",
    up="^",
    down="v",
    cross="!",
    rail="=",
    start="[",
    stop="]",
    thick="H",
    eighths="",
    braille=False,
    frame="ascii",
)


def block(fraction: float, glyphs: Glyphs) -> str:
    """The block whose height shows a fraction from 0 to 1 (values outside are clamped)."""
    last = len(glyphs.blocks) - 1
    return glyphs.blocks[max(0, min(last, int(fraction * len(glyphs.blocks))))]


def load_tone(percent: float) -> str:
    """One of five steps, so that colour says the same as number and height."""
    return f"load{max(0, min(4, int(percent // 20)))}"
