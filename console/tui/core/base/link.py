"""How fresh the screen is: the badge, and when to try again. Pure; clocks are arguments."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from console.tui.core.draw.format import coarse, span
from console.tui.core.draw.glyphs import Glyphs
from console.tui.core.draw.lines import Line, line

DELAYED_AFTER = 3.0
"""Seconds. The controller pings each second; three missed ones are no longer jitter."""

FIRST_RETRY = 0.25
LONGEST_RETRY = 5.0
"""Seconds. A controller restarts in a second or two, and a person watches: keep it short."""

Phase = Literal["connecting", "open", "cut", "refused"]


@dataclass(frozen=True, slots=True)
class Link:
    """The state of one stream, or the worst of several.

    `heard` is when anything last came, on the monotonic clock; None before the first.
    """

    phase: Phase = "connecting"
    heard: float | None = None
    tries: int = 0  # failed ones since it was last open
    error: str = ""
    hint: str = ""

    def on_data(self, now: float) -> Link:
        return Link("open", now)

    def on_cut(self, error: str, hint: str) -> Link:
        phase: Phase = "cut" if self.heard is not None else "connecting"
        return replace(self, phase=phase, tries=self.tries + 1, error=error, hint=hint)

    def on_refusal(self, error: str, hint: str) -> Link:
        """It was answered, and the answer is no: trying again would not help."""
        return replace(self, phase="refused", error=error, hint=hint)

    def age(self, now: float) -> float | None:
        """Seconds since what is shown was confirmed; None when nothing is shown."""
        return None if self.heard is None else max(0.0, now - self.heard)


CONNECTING = Link()


def retry_delay(tries: int) -> float:
    """Seconds to wait before try number `tries + 1`: doubling, at most `LONGEST_RETRY`."""
    return min(LONGEST_RETRY, FIRST_RETRY * 2.0 ** min(tries - 1, 16)) if tries > 0 else 0.0


def worst(links: Iterable[Link]) -> Link:
    """The one to tell the user about: refused before cut before connecting before open, then the oldest."""
    order = {"refused": 0, "cut": 1, "connecting": 2, "open": 3}
    return min(
        links,
        key=lambda link: (order[link.phase], link.heard if link.heard is not None else -1.0),
        default=CONNECTING,
    )


def badge(link: Link, now: float, glyphs: Glyphs) -> Line:
    """`● live · 0.6s`, `◌ delayed · 4s`, `✗ reconnecting · 12s old`, `✗ unreachable`."""
    age = link.age(now)
    if link.phase == "open" and age is not None:
        if age < DELAYED_AFTER:
            return line((f"{glyphs.live} live", "ok"), (f" {glyphs.dot} {span(age)}", "dim"))
        return line((f"{glyphs.waiting} delayed {glyphs.dot} {coarse(age)} old", "warn"))
    if link.phase == "refused":
        return line((f"{glyphs.failed} refused", "error"))
    if link.phase == "cut" and age is not None:
        return line((f"{glyphs.failed} reconnecting {glyphs.dot} {coarse(age)} old", "error"))
    if link.tries:
        return line((f"{glyphs.failed} unreachable", "error"))
    return line((f"{glyphs.waiting} connecting", "warn"))
