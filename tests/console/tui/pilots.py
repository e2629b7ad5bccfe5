"""Running the app in tests: a fixed size, a fake source, a fake clock, and waiting for quiet."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from textual import events
from textual.keys import _character_to_key
from textual.pilot import Pilot

from console.tui.app import QuarterdeckApp
from console.tui.core.draw.lines import plain
from console.tui.widgets.lines import LineView
from tests.console.tui.fakes import FakeClock, FakeSource


async def settle(pilot: Pilot[Any]) -> None:
    """Wait until threads have delivered and the screen shows it, and a second's tick was taken."""
    app = pilot.app
    assert isinstance(app, QuarterdeckApp)
    await _quiet(pilot, app)
    app._take()
    app._tick()
    if (poll := getattr(app.top, "poll_logs", None)) is not None:
        poll()
    await _quiet(pilot, app)


async def _quiet(pilot: Pilot[Any], app: QuarterdeckApp) -> None:
    source = app.source
    assert isinstance(source, FakeSource)
    calm = 0
    for _ in range(1000):
        await pilot.pause(0)
        if app._frame_due is not None:
            app._take()
        calm = calm + 1 if app.settled and source.quiet else 0
        if calm >= 2:
            return
        if not calm:
            await asyncio.sleep(0.002)
    raise AssertionError("the console does not come to rest")


@asynccontextmanager
async def running(
    source: FakeSource | None = None,
    *,
    size: tuple[int, int] = (120, 36),
    clock: FakeClock | None = None,
    **options: Any,
) -> AsyncIterator[tuple[Pilot[None], QuarterdeckApp]]:
    app = QuarterdeckApp(source or FakeSource(), clock=clock or FakeClock(), **options)
    async with app.run_test(size=size, notifications=True) as pilot:
        await settle(pilot)
        yield pilot, app


async def send(pilot: Pilot[Any], key: str) -> None:
    """Press one key, and let it have its effect. (Textual's own `press` waits for an idle processor,
    some 40 ms a key.)"""
    app = pilot.app
    driver = app._driver
    assert driver is not None
    character = " " if key == "space" else key if len(key) == 1 else None
    name = _character_to_key(key) if len(key) == 1 and not key.isalnum() else key
    event = events.Key(name, character)
    event.set_sender(app)
    driver.send_message(event)
    await pilot.pause(0)
    await pilot.pause(0)


async def press(pilot: Pilot[Any], *keys: str) -> None:
    """Press keys one after another, and wait for quiet."""
    for key in keys:
        await send(pilot, key)
    await settle(pilot)


def text(app: QuarterdeckApp, pane: str) -> str:
    """What a pane says, all its lines, scrolled out of view or not."""
    view = app.screen.query_one(f"#{pane}", LineView)
    return "\n".join(plain(view.line_at(index)) for index in range(view.count()))


def title(app: QuarterdeckApp, pane: str) -> str:
    return str(app.screen.query_one(f"#{pane}").border_title)


def screen_text(app: QuarterdeckApp) -> str:
    """Everything that is painted, as a terminal would show it."""
    width, height = app.size
    rows = app.screen._compositor.render_strips(app.size)
    return "\n".join("".join(s.text for s in row)[:width] for row in rows[:height])
