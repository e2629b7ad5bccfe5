"""How tones look: the one place that knows colours.

Loads use five steps of the cividis scale, made to read alike with every kind of colour vision (Nuñez,
Anderton and Renslow, 2018), and in order of brightness, so that they are told apart in grey as well.
All other colours come from the Textual theme. Without colour, attributes tell what tones can.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from rich.color import Color as RichColor
from rich.color_triplet import ColorTriplet
from rich.style import Style
from textual.color import Color
from textual.scrollbar import ScrollBarRender

from console.tui.contrast import readable
from console.tui.core.draw.lines import TONES


class PlainBar(ScrollBarRender):
    """A scroll bar whose thumb ends at whole cells, for terminals that have no partial blocks."""

    VERTICAL_BARS: ClassVar[list[str]] = [" "] * 8
    HORIZONTAL_BARS: ClassVar[list[str]] = [" "] * 8


_LOADS_ON_DARK = ("#5b6d96", "#7c8294", "#a09a7c", "#c9b45c", "#fde337")
_LOADS_ON_LIGHT = ("#7e8aab", "#5f6b8a", "#4a5a78", "#2f4470", "#00224e")

LOAD_LEAST, LOAD_STEP = 3.0, 0.75
"""Contrast of the lowest load with the background at least, and how much more each further step has:
on any background the steps keep their order."""

FAINT = 3.2
"""Contrast of what recedes behind dim text: enough for its lines."""

_THEMED = {
    "dim": "text-muted",
    "key": "accent",
    "ok": "text-success",
    "info": "text-primary",
    "warn": "text-warning",
    "error": "text-error",
    "accent": "primary",
}

_ATTRIBUTES: dict[str, Style] = {
    "strong": Style(bold=True),
    "key": Style(bold=True),
    "warn": Style(bold=True),
    "error": Style(bold=True),
    "found": Style(reverse=True),
    "cursor": Style(reverse=True),
}


def styles(variables: Mapping[str, str], *, dark: bool, colour: bool) -> dict[str, Style]:
    """Tone -> style, from the variables of a Textual theme (`App.theme_variables`)."""
    out = {tone: _ATTRIBUTES.get(tone, Style.null()) for tone in TONES}
    if not colour:
        out["dim"] = out["faint"] = Style(dim=True)
        return out
    ground = _ground(variables, dark=dark)
    for tone, name in _THEMED.items():
        out[tone] += Style(color=_solid(variables.get(name, ""), ground))
    # What is there and not meant: it must recede behind text that is dim.
    out["faint"] = Style(
        color=_rich(readable(ground.rich_color.get_truecolor(), _triplet(ground), FAINT))
    )
    muted = variables.get("primary-muted", "")
    if muted and not muted.startswith("ansi"):
        # A muted background rather than reversed text: colours that mean something keep their meaning.
        out["cursor"] = Style(bgcolor=_solid(muted, ground))
    for step, name in enumerate(_LOADS_ON_DARK if dark else _LOADS_ON_LIGHT):
        least = LOAD_LEAST + step * LOAD_STEP
        load = Color.parse(name).rich_color.get_truecolor()
        out[f"load{step}"] = Style(color=_rich(readable(load, _triplet(ground), least)))
    return out


def _ground(variables: Mapping[str, str], *, dark: bool) -> Color:
    """What tones lie on; of a theme that leaves it to the terminal, black or white."""
    value = variables.get("background", "")
    if not value or value.startswith("ansi"):
        return Color.parse("#000000" if dark else "#ffffff")
    return Color.parse(value)


def _triplet(colour: Color) -> ColorTriplet:
    return ColorTriplet(*colour.rgb)


def _rich(colour: ColorTriplet) -> RichColor:
    return RichColor.from_triplet(colour)


def _solid(value: str, ground: Color) -> RichColor:
    """A theme variable as a colour of Rich. Textual writes some as "auto 60%": so much of black or
    white over what they lie on."""
    name, _, rest = value.partition(" ")
    share = float(rest.removesuffix("%")) / 100 if rest.endswith("%") else 1.0
    if name == "auto" or not name:
        return (ground + ground.get_contrast_text(share)).rich_color
    return Color.parse(name).rich_color
