"""What the console costs a slow link: bytes for what happens each second, and for what a key does.

The limits are some twice of what was measured; they are there to notice a pane that repaints itself.
"""

from __future__ import annotations

from tests.console.tui.counting import counted
from tests.console.tui.fake_views import jobs, node
from tests.console.tui.fakes import FakeSource
from tests.console.tui.pilots import press, settle


async def test_a_second_in_which_nothing_changes_costs_almost_nothing() -> None:
    source = FakeSource()
    async with counted(source) as (pilot, app, driver, _):
        for _ in range(3):
            source.ping()
            app.clock.advance(0.05)  # type: ignore[attr-defined]
            await settle(pilot)
        assert driver.taken() < 3000


async def test_one_changed_gpu_is_one_changed_line() -> None:
    source = FakeSource()
    async with counted(source) as (pilot, _, driver, _):
        changed = node(17, job="j421")
        changed["gpus"][2]["util"] = 12.0
        source.put("nodes", "n17", changed)
        await settle(pilot)
        assert 0 < driver.taken() < 8000


async def test_a_thousand_gpus_stay_within_the_budget_and_the_loop_stays_free() -> None:
    source = FakeSource()
    for number in range(29, 126):
        view = node(number, job="j424")
        source.tables["nodes"][view["name"]] = view
    async with counted(source) as (pilot, _, driver, lag):
        for turn in range(3):
            for name, view in list(source.tables["nodes"].items()):
                gpus = [
                    {**gpu, "util": float((turn * 31 + i * 7) % 100)}
                    for i, gpu in enumerate(view["gpus"])
                ]
                source.put("nodes", name, {**view, "gpus": gpus})
            await settle(pilot)
        assert driver.taken() / 3 < 40_000
        assert lag.worst < 1.0  # the machine may be busy; the figure itself is in the benchmarks


async def test_moving_the_cursor_repaints_two_rows() -> None:
    async with counted(FakeSource(), start="jobs") as (pilot, _, driver, _):
        await press(pilot, "j")
        assert 0 < driver.taken() < 6000


async def test_a_row_that_changed_is_repainted_alone() -> None:
    source = FakeSource()
    async with counted(source, start="jobs") as (pilot, _, driver, _):
        source.put("jobs", "j432", {**jobs()[1], "reason": "placing now"})
        await settle(pilot)
        assert 0 < driver.taken() < 6000


async def test_a_screen_switch_costs_a_screen() -> None:
    async with counted(FakeSource()) as (pilot, _, driver, _):
        for key in ("2", "1", "2", "1"):
            await press(pilot, key)
        assert driver.taken() / 4 < 60_000
