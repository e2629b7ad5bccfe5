"""Pictures of the screens. When one differs on purpose: `pytest tests/console/tui --snapshot-update`,
and look at the new picture before it is kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from fakes import FakeClock, FakeSource
from pilots import settle

from console.tui.app import QuarterdeckApp

SMALL, USUAL = (80, 24), (120, 36)
Compare = Callable[..., bool]


def picture(
    snap_compare: Compare, source: FakeSource, size: tuple[int, int], *keys: str, **options: Any
) -> bool:
    async def ready(pilot: Any) -> None:
        await settle(pilot)
        for key in keys:
            await pilot.press(key)
            await settle(pilot)

    app = QuarterdeckApp(source, clock=FakeClock(), **options)
    return snap_compare(app, terminal_size=size, run_before=ready)


@pytest.mark.parametrize("size", [SMALL, USUAL], ids=["80x24", "120x36"])
@pytest.mark.parametrize("start", ["cluster", "jobs", "j412"])
def test_busy(snap_compare: Compare, start: str, size: tuple[int, int]) -> None:
    assert picture(snap_compare, FakeSource(), size, start=start)


@pytest.mark.parametrize("start", ["cluster", "jobs"])
def test_empty(snap_compare: Compare, start: str) -> None:
    assert picture(snap_compare, FakeSource(empty=True), USUAL, start=start)


def test_unreachable(snap_compare: Compare) -> None:
    source = FakeSource()
    source.cut()
    assert picture(snap_compare, source, SMALL)


def test_a_question(snap_compare: Compare) -> None:
    assert picture(snap_compare, FakeSource(), USUAL, "D")


def test_ascii_and_simulated(snap_compare: Compare) -> None:
    assert picture(snap_compare, FakeSource(sim=True), USUAL, ascii_only=True)
