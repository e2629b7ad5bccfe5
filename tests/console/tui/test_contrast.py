"""Everything on screen can be read: each visible cell against its own background, in every theme and
colour depth, toasts and prompts included."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from rich.color import Color, ColorSystem
from rich.terminal_theme import TerminalTheme
from textual import constants
from textual.theme import BUILTIN_THEMES

from console.tui import contrast
from console.tui.app import QuarterdeckApp
from tests.console.tui.fakes import FakeClock, FakeSource
from tests.console.tui.pilots import press, settle

DEPTHS = {
    "truecolor": ColorSystem.TRUECOLOR,
    "256": ColorSystem.EIGHT_BIT,
    "standard": ColorSystem.STANDARD,
}


@asynccontextmanager
async def opened(
    monkeypatch: pytest.MonkeyPatch, depth: str, start: str
) -> AsyncIterator[tuple[Any, QuarterdeckApp]]:
    monkeypatch.setattr(constants, "COLOR_SYSTEM", depth)
    app = QuarterdeckApp(FakeSource(), clock=FakeClock(), start=start)
    async with app.run_test(size=(120, 36), notifications=True) as pilot:
        await settle(pilot)
        yield pilot, app


def painted(app: QuarterdeckApp) -> list[list[tuple[str, Any]]]:
    rows = app.screen._compositor.render_strips(app.size)
    return [[(segment.text, segment.style) for segment in row] for row in rows]


def unreadable(app: QuarterdeckApp, depth: str) -> set[str]:
    """What is painted in colours too near to what it lies on."""
    theme = contrast.ON_DARK if app.current_theme.dark else contrast.ON_LIGHT
    out = set()
    for row in painted(app):
        for text, style in row:
            if not text.strip() or text.strip("⠀ ") == "" or style is None:
                continue
            front, back = ends(style)
            if front.is_default and back.is_default:
                continue
            one, other = (shown(colour, depth, theme, colour is front) for colour in (front, back))
            ratio = contrast.contrast(one, other)
            if ratio < contrast.least(text) - 0.005:
                out.add(f"{text.strip()[:30]!r}: {one.hex} on {other.hex} is {ratio:.2f}")
    return out


def ends(style: Any) -> tuple[Color, Color]:
    front, back = style.color or Color.default(), style.bgcolor or Color.default()
    return (back, front) if style.reverse else (front, back)


def shown(colour: Color, depth: str, theme: TerminalTheme, front: bool) -> Any:
    return colour.downgrade(DEPTHS[depth]).get_truecolor(theme, front)


@pytest.mark.parametrize(
    ("start", "depth"),
    [
        *(("cluster", depth) for depth in DEPTHS),
        ("j412", "256"),
        ("s4", "standard"),
        ("models", "256"),
        ("deployments", "standard"),
    ],
)
async def test_every_cell_can_be_read(
    monkeypatch: pytest.MonkeyPatch, start: str, depth: str
) -> None:
    wrong: dict[str, set[str]] = {}
    async with opened(monkeypatch, depth, start) as (pilot, app):
        for theme in BUILTIN_THEMES:
            app.theme = theme
            app.clear_notifications()
            app.tell("It was stopped.")
            app.tell("It runs already.", severity="warning")
            app.tell("No such job: j9. List them with qd ls.", severity="error")
            await press(pilot, "/")
            text = "\n".join("".join(t for t, _ in row) for row in painted(app))
            assert "No such job" in text
            if found := unreadable(app, depth):
                wrong[theme] = found
            await press(pilot, "escape")
    assert not wrong, "\n".join(f"{theme}: {sorted(found)[:8]}" for theme, found in wrong.items())


@pytest.mark.parametrize("start", ["cluster", "j412"])
async def test_of_sixteen_colours_red_is_for_what_is_wrong(
    monkeypatch: pytest.MonkeyPatch, start: str
) -> None:
    async with opened(monkeypatch, "standard", start) as (_, app):
        keys = [
            ends(style)[0].downgrade(ColorSystem.STANDARD).number
            for row in painted(app)
            for text, style in row
            if style is not None and text.strip() in ("space", "tab", "r", "1", "2")
        ]
        assert keys and not set(keys) & set(contrast.REDS)


async def test_a_theme_that_is_chosen_later_looks_as_one_that_was_there_from_the_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with opened(monkeypatch, "truecolor", "cluster") as (pilot, app):
        app.theme = "textual-light"
        await settle(pilot)
        chosen = painted(app)
        app.theme = "nord"
        await settle(pilot)
        app.theme = "textual-light"
        await settle(pilot)
        assert painted(app) == chosen
        app._restyle()
        await settle(pilot)
        assert painted(app) == chosen
