"""How tones look: the one place that knows colours.

Loads use five steps of the cividis scale, made to read alike with every kind of colour vision (Nuñez,
Anderton and Renslow, 2018), and in order of brightness, so that they are told apart in grey as well.
All other colours come from the Textual theme. Without colour, attributes tell what tones can.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from rich.color import Color as RichColor
from rich.style import Style
from textual.color import Color
from textual.scrollbar import ScrollBarRender

from console.tui.core.lines import TONES


class PlainBar(ScrollBarRender):
    """A scroll bar whose thumb ends at whole cells, for terminals that have no partial blocks."""

    VERTICAL_BARS: ClassVar[list[str]] = [" "] * 8
    HORIZONTAL_BARS: ClassVar[list[str]] = [" "] * 8


_LOADS_ON_DARK = ("#5b6d96", "#7c8294", "#a09a7c", "#c9b45c", "#fde337")
_LOADS_ON_LIGHT = ("#7e8aab", "#5f6b8a", "#4a5a78", "#2f4470", "#00224e")

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
    for tone, name in _THEMED.items():
        out[tone] += Style(color=_solid(variables, name, dark=dark))
    # What is there and not meant: it must recede behind text that is dim.
    out["faint"] = Style(color="#585858" if dark else "#b4b4b4")
    # A muted background rather than reversed text: colours that mean something keep their meaning.
    out["cursor"] = Style(bgcolor=_solid(variables, "primary-muted", dark=dark))
    for step, colour_name in enumerate(_LOADS_ON_DARK if dark else _LOADS_ON_LIGHT):
        out[f"load{step}"] = Style(color=colour_name)
    return out


def _solid(variables: Mapping[str, str], name: str, *, dark: bool) -> RichColor:
    """A theme variable as a colour of Rich. Textual writes the muted ones as "auto 60%",
    relative to a background that a line does not know."""
    value = variables.get(name, "")
    if value.startswith("auto") or not value:
        return Color.parse("#9a9a9a" if dark else "#5a5a5a").rich_color
    return Color.parse(value.split()[0]).rich_color
