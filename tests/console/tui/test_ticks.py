"""Axes: round places, in their window, on the cell that they name; and which charts are shown."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from textual.geometry import Offset

from console import axes
from console.tui.core.draw import ticks
from console.tui.core.draw.glyphs import ASCII, UNICODE
from console.tui.core.draw.lines import plain, width
from console.tui.core.draw.look import Look
from console.tui.core.jobs import metrics
from jobs.wire.views import SeriesPoint
from tests.console.tui.fake_views import NOW
from tests.console.tui.pilots import running, settle, text


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e9), st.integers(1, 12))
def test_values_are_round_in_the_range_and_not_too_many(low: float, size: float, most: int) -> None:
    high = low + size
    found = axes.values(low, high, most)
    slack = 1e-9 * max(abs(low), abs(high), size)
    assert len(found) <= most + 1
    assert all(low - slack <= value <= high + slack for value in found)
    assert found == sorted(set(found))


@pytest.mark.parametrize(
    ("low", "high", "most", "told"),
    [(0, 9000, 4, ["0", "5000"]), (0, 100_000, 4, ["0", "50k", "100k"]), (3, 3, 4, [])],
)
def test_steps_are_whole_and_short(low: float, high: float, most: int, told: list[str]) -> None:
    assert [label for _, label in ticks.of_steps(low, high, most)] == told


def test_a_log_axis_has_powers_of_ten_and_round_values_within_one() -> None:
    assert [label for _, label in ticks.of_logs(-3.2, 0.4, 4)] == ["0.001", "0.01", "0.1", "1"]
    within = ticks.of_logs(math.log10(2), math.log10(8), 4)
    assert [label for _, label in within] == ["2", "4", "6", "8"]


def test_moments_are_round_by_the_clock() -> None:
    begin = 1_789_999_980.0  # 14:13 in UTC
    assert [label for _, label in ticks.of_times(begin, begin + 3600, 4)] == [
        "14:15", "14:30", "14:45", "15:00",
    ]  # fmt: skip
    assert [label for _, label in ticks.of_times(begin, begin + 12, 3)] == [
        "14:13:00", "14:13:05", "14:13:10",
    ]  # fmt: skip


@pytest.mark.parametrize("glyphs", [UNICODE, ASCII], ids=["unicode", "ascii"])
def test_a_mark_stands_on_its_cell_and_labels_never_overlap(glyphs: object) -> None:
    signs = UNICODE if glyphs is UNICODE else ASCII
    row = plain(ticks.axis(ticks.of_steps(0, 9000, 5), 0, 9000, 8, 40, signs))
    assert len(row) == 48
    mark = "┴" if signs is UNICODE else "+"
    assert row[8 + int(4000 / 9000 * 40)] == mark and f"{mark}4000" in row


def series(name: str, count: int = 100) -> dict[str, list[SeriesPoint]]:
    return {name: [{"step": n, "at": NOW + n, "value": float(n)} for n in range(count)]}


def test_charts_are_the_objective_first_then_by_name_with_axes_and_extremes() -> None:
    held = series("acc") | series("loss") | series("zeta")
    found = metrics.lines(held, None, Look(), NOW, NOW + 99, 60, 18, UNICODE, "zeta")
    told = [plain(row) for row in found]
    assert [row.split()[0] for row in told[::6]] == ["zeta", "acc", "loss"]
    assert "99 at step 99" in told[0] and "min 0 max 99" in told[0]
    assert "┴50" in told[5] and max(map(width, found)) <= 60
    assert metrics.names(held) == ["loss", "acc", "zeta"]


@pytest.mark.parametrize("by_time", [False, True])
def test_a_click_means_the_point_that_is_drawn_there(by_time: bool) -> None:
    held, look = series("loss") | series("acc", 50), Look(by_time=by_time)
    for x in (8, 30, 59):
        at = metrics.moment_at(held, None, None, look, NOW, NOW + 99, 60, 12, x, 2)
        assert at is not None and abs((at - NOW) - (x - 8) / 52 * 99) <= 2
    second = metrics.moment_at(held, None, None, look, NOW, NOW + 99, 60, 12, 59, 8)
    assert second == NOW + 49, "the chart below has points of its own"
    assert metrics.moment_at(held, None, None, look, NOW, NOW + 99, 60, 12, 3, 2) is None
    assert metrics.moment_at({}, None, None, look, NOW, NOW + 99, 60, 12, 30, 2) is None


async def test_the_mouse_puts_the_crosshair_on_a_point() -> None:
    async with running(start="j412") as (pilot, app):
        pane = app.screen.query_one("#metrics")
        await pilot.click("#metrics", offset=Offset(pane.size.width // 2, 3))
        await settle(pilot)
        assert "at step 3555" in text(app, "metrics").split("\n")[0]
        await pilot.press("backspace")
        await settle(pilot)
        assert "at step 8955" in text(app, "metrics").split("\n")[0]
