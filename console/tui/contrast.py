"""Whatever is painted can be read: the last look at colours before they reach the terminal.

Themes, dialogs of Textual and our own tones choose colours without knowing what they will lie on, and a
terminal of 256 or 16 colours rounds them. Where a text comes too near to its background, or a line or
block does, it is moved towards white or black until it does not. The contrast is that of WCAG 2.1,
"contrast ratio": 1 for equal colours, 21 for black on white.
"""

from __future__ import annotations

import re
from colorsys import rgb_to_hsv
from functools import lru_cache

from rich.color import Color as RichColor
from rich.color import ColorSystem, ColorType
from rich.color_triplet import ColorTriplet
from rich.segment import Segment
from rich.style import Style
from rich.terminal_theme import TerminalTheme
from textual.color import Color
from textual.filter import LineFilter

TEXT = 4.5
"""Contrast of text with its background at least (WCAG 2.1, 1.4.3)."""

SHAPE = 3.0
"""Contrast of lines, blocks and dots with theirs at least (WCAG 2.1, 1.4.11)."""

STEPS = 16
"""Steps from a colour to white or black."""

REDS, YELLOWS = (1, 9), (11, 3)
"""Numbers among the sixteen colours; of yellows, the bright one first."""

ORANGE = (18.0, 70.0)
"""Hues in degrees: further from red than what people call red, up to yellow."""

_SHAPES = re.compile(r"[\s─-◿⠀-⣿]*")
"""Box drawing, blocks, geometric shapes, braille."""

_NORMAL = [(0, 0, 0), (170, 0, 0), (0, 170, 0), (170, 85, 0)]
_NORMAL += [(0, 0, 170), (170, 0, 170), (0, 170, 170), (170, 170, 170)]
_BRIGHT = [(85, 85, 85), (255, 85, 85), (85, 255, 85), (255, 255, 85)]
_BRIGHT += [(85, 85, 255), (255, 85, 255), (85, 255, 255), (255, 255, 255)]
ON_DARK = TerminalTheme((0, 0, 0), (255, 255, 255), _NORMAL, _BRIGHT)
ON_LIGHT = TerminalTheme((255, 255, 255), (0, 0, 0), _NORMAL, _BRIGHT)
"""The sixteen colours as VGA has them. A terminal does not say which ones it has."""

SYSTEMS = {
    "standard": ColorSystem.STANDARD,
    "256": ColorSystem.EIGHT_BIT,
    "truecolor": ColorSystem.TRUECOLOR,
}


@lru_cache(4096)
def _luminance(colour: ColorTriplet) -> float:
    parts = []
    for part in colour.normalized:
        parts.append(part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4)
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


def contrast(one: ColorTriplet, other: ColorTriplet) -> float:
    """The contrast ratio of two colours, from 1 to 21."""
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


def least(text: str) -> float:
    """The contrast that a text needs, which may consist of lines and blocks alone."""
    return SHAPE if _SHAPES.fullmatch(text) else TEXT


def towards(colour: ColorTriplet, ground: ColorTriplet) -> list[ColorTriplet]:
    """Colours from `colour` to white or black, whichever `ground` is farther from."""
    white, black = ColorTriplet(255, 255, 255), ColorTriplet(0, 0, 0)
    end = max(white, black, key=lambda far: contrast(far, ground))
    return [
        ColorTriplet(*(round(a + (b - a) * step / STEPS) for a, b in zip(colour, end, strict=True)))
        for step in range(STEPS + 1)
    ]


def readable(colour: ColorTriplet, ground: ColorTriplet, wanted: float) -> ColorTriplet:
    """The colour nearest to `colour` that has the contrast `wanted` on `ground`, if any has."""
    found = towards(colour, ground)
    return next((one for one in found if contrast(one, ground) >= wanted), found[-1])


class Readable(LineFilter):
    """Moves colours that cannot be read on what they lie on.

    Args:
        system: the colours that the terminal has.
        dark: whether its own background is dark, for colours that are the terminal's own.
    """

    def __init__(self, system: ColorSystem, *, dark: bool) -> None:
        super().__init__()
        self._system = system
        self._theme = ON_DARK if dark else ON_LIGHT
        self._known: dict[tuple[Style, Color, float], Style | None] = {}

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        """The same segments; those in a colour that cannot be read in another."""
        out, known = segments, self._known
        for index, (text, style, control) in enumerate(segments):
            if style is None or control:
                continue
            key = (style, background, TEXT)
            if key not in known:
                known[key] = self._mended(style, background, TEXT)
            found = known[key]
            if found is not None and _SHAPES.fullmatch(text):
                key = (style, background, SHAPE)
                if key not in known:
                    known[key] = self._mended(style, background, SHAPE)
                found = known[key]
            if found is not None:
                out = list(segments) if out is segments else out
                out[index] = Segment(text, found)
        return out

    def shown(self, colour: RichColor, *, foreground: bool) -> ColorTriplet:
        """A colour as the terminal shows it."""
        return colour.downgrade(self._system).get_truecolor(self._theme, foreground)

    def pair(self, style: Style, background: Color) -> tuple[RichColor, RichColor]:
        """What is in front and what lies behind in a style."""
        front, back = style.color, style.bgcolor
        if back is None:
            own = background.ansi is not None or background.a == 0
            back = RichColor.default() if own else background.rich_color
        front = front or RichColor.default()
        return (back, front) if style.reverse else (front, back)

    def _not_red(self, colour: RichColor, ground: ColorTriplet, wanted: float) -> RichColor | None:
        """Of sixteen colours red is the nearest to orange, but red means that something is wrong: a
        yellow that can be read. None where nothing is rounded to red, or it is red."""
        if self._system is not ColorSystem.STANDARD or colour.triplet is None:
            return None
        if colour.downgrade(self._system).number not in REDS:
            return None
        hue, _, _ = rgb_to_hsv(*colour.triplet.normalized)
        if not ORANGE[0] <= 360 * hue <= ORANGE[1]:
            return None
        shades = ((n, self._theme.ansi_colors[n]) for n in YELLOWS)
        return next(
            (RichColor.from_ansi(n) for n, at in shades if contrast(at, ground) >= wanted), None
        )

    def _mended(self, style: Style, background: Color, wanted: float) -> Style | None:
        """The style with a colour that can be read; None when it has one."""
        front, back = self.pair(style, background)
        if front.is_default and back.is_default:
            return None  # the terminal's own two
        ground = self.shown(back, foreground=bool(style.reverse and style.bgcolor is None))
        if (yellow := self._not_red(front, ground, wanted)) is not None:
            return style + (Style(bgcolor=yellow) if style.reverse else Style(color=yellow))
        now = self.shown(front, foreground=not style.reverse)
        if contrast(now, ground) >= wanted:
            return None
        found = RichColor.default()
        if front.type in (ColorType.DEFAULT, ColorType.STANDARD) and front.triplet is None:
            far = max((0, 15), key=lambda n: contrast(self._theme.ansi_colors[n], ground))
            found = found if back.is_default else RichColor.from_ansi(far)
        else:
            for colour in towards(front.get_truecolor(self._theme), ground):
                found = RichColor.from_triplet(colour)
                if contrast(self.shown(found, foreground=True), ground) >= wanted:
                    break
        if style.reverse:
            return style + Style(bgcolor=found)
        return style + Style(color=found)
