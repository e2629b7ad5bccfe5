"""A driver that counts: what a terminal would have been sent, frame by frame, and how late the loop ran.

Textual's own test driver paints nothing, so a test over it cannot tell ten bytes from a megabyte.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from textual.drivers.headless_driver import HeadlessDriver
from textual.pilot import Pilot

from console.tui.app import QuarterdeckApp
from tests.console.tui.fakes import FakeClock, FakeSource
from tests.console.tui.pilots import settle


class CountingDriver(HeadlessDriver):
    """Takes all that is written, as a terminal does, and keeps only how much each write was."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.writes: list[int] = []

    @property
    def is_headless(self) -> bool:
        return False  # or nothing would be painted

    def write(self, data: str) -> None:
        self.writes.append(len(data.encode()))

    def taken(self) -> int:
        """Bytes since the last time this was asked."""
        total = sum(self.writes)
        self.writes.clear()
        return total


class Lag:
    """The longest time in seconds that the event loop was late."""

    def __init__(self) -> None:
        self.worst = 0.0

    async def watch(self) -> None:
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.005)
            self.worst = max(self.worst, time.monotonic() - before - 0.005)


@asynccontextmanager
async def counted(
    source: FakeSource, *, size: tuple[int, int] = (120, 36), **options: Any
) -> AsyncIterator[tuple[Pilot[None], QuarterdeckApp, CountingDriver, Lag]]:
    """The console over a fake source and a counting driver, at rest."""
    app = QuarterdeckApp(source, clock=FakeClock(), **options)

    def build(headless: bool, inline: bool, mouse: bool, size: tuple[int, int] | None) -> Any:
        return CountingDriver(app, debug=False, mouse=mouse, size=size)

    app._build_driver = build  # type: ignore[method-assign]
    async with app.run_test(size=size) as pilot:
        await settle(pilot)
        driver = app._driver
        assert isinstance(driver, CountingDriver)
        while driver.taken():  # what was asked for at the start may come late on a busy machine
            await settle(pilot)
        lag = Lag()
        watch = asyncio.create_task(lag.watch())
        try:
            yield pilot, app, driver, lag
        finally:
            watch.cancel()
            with suppress(asyncio.CancelledError):
                await watch
