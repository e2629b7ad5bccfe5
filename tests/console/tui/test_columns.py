"""Columns of the Jobs screen that are chosen, and where their values come from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from console.tui.core.base import table
from console.tui.core.base.order import Order
from console.tui.core.draw.glyphs import ASCII, UNICODE
from console.tui.core.draw.lines import plain, width
from console.tui.core.jobs import columns
from console.tui.memory import Memory
from console.tui.screens.columns import Columns
from console.tui.screens.jobs import JobsScreen
from jobs.base.errors import Unreachable
from tests.console.tui import fake_data
from tests.console.tui.fake_views import NOW, job
from tests.console.tui.fakes import FakeClock, FakeSource
from tests.console.tui.pilots import press, running, settle, text


def cells(name: str, view: Any, facts: columns.Facts) -> str:
    (column,) = columns.made([name], facts, NOW)[3:]
    return column.cell(view, NOW, UNICODE)[0]


def test_values_are_those_of_the_run_and_what_is_not_known_is_empty() -> None:
    view = job(403, tags={"team": "vision"})
    facts = {"j403": fake_data.run_of(view, 12)}
    assert cells("param.lr", view, facts) == "1.0e-04"
    assert cells("param.optimizer", view, facts) == "sgd"
    assert cells("metric.loss", view, facts) == "2.4"
    assert cells("tag.logged", view, facts) == "yes"
    assert cells("tag.team", view, {}) == "vision", "its row has it"
    assert cells("metric.loss", view, {}) == cells("metric.none", view, facts) == ""
    assert cells("gpu h", job(408, gpus=8.0), {}) == "1.27", "570 s of 8 GPUs"
    assert cells("gpu h", job(431, "QUEUED"), {}) == "-"


def test_equal_names_of_a_parameter_and_a_metric_are_told_apart() -> None:
    names = ["param.lr", "metric.lr", "tag.user", "metric.loss"]
    titles = [column.title for column in columns.made(names, {}, NOW)]
    assert titles[3:] == ["param.lr", "metric.lr", "tag.user", "loss"]


def test_what_was_chosen_last_is_left_out_first() -> None:
    made = columns.made(["reason", "user", "gpu h"], {}, NOW)
    assert [c.title for c, _ in table.arrange(made, 60)] == ["id", "state", "name", "reason"]


def test_numbers_are_sorted_before_words_and_what_is_missing_last() -> None:
    views = [job(number) for number in (1, 2, 3, 4)]
    facts = {view["id"]: fake_data.run_of(view, 0) for view in views[:3]}
    facts["j1"]["params"] = {"x": "auto"}
    facts["j2"]["params"] = {"x": 10}
    facts["j3"]["params"] = {"x": 9.5}
    made = columns.made(["param.x"], facts, NOW)
    assert [view["id"] for view in table.in_order(views, made, Order("x"))] == [
        "j3",
        "j2",
        "j1",
        "j4",
    ]


@pytest.mark.parametrize(
    ("values", "drawn"),
    [
        ([], ""),
        ([1.0], "▅"),
        ([0.0, 0.0], "▅▅"),
        ([0.0, 1.0, 0.5], "▁█▄"),
        (list(range(24)), "▁▂▂▃▄▄▅▆▆▇██"),
    ],
)
def test_a_trend_is_what_was_reached(values: list[float], drawn: str) -> None:
    assert columns.sparkline(values, UNICODE) == drawn


def test_any_value_fits_its_column() -> None:
    view = job(1)
    run = fake_data.run_of(view, 0)
    run["params"] = {"x": "\x1b[2J" + "長" * 40, "y": {"a": [1, 2, 3]}, "z": True}
    for glyphs in (UNICODE, ASCII):
        made = columns.made(["param.x", "param.y", "param.z"], {"j1": run}, NOW)
        layout = table.arrange(made, 100)
        row = table.row_line(view, layout, NOW, glyphs)
        assert width(row) == 1 + sum(cells + 1 for _, cells in layout)
        assert "\x1b" not in plain(row) and "true" in plain(row)


def test_what_is_asked_for() -> None:
    views = [job(5, "RUNNING"), job(4), job(3)]
    facts = {"j5": fake_data.run_of(job(5, "RUNNING"), 0), "j4": fake_data.run_of(job(4), 0)}
    assert columns.asked(views, facts, {"j5": 0.0, "j4": 0.0}, 1.0) == ["j3"]
    assert columns.asked(views, facts, {"j5": 0.0, "j4": 0.0, "j3": 0.0}, 11.0) == ["j5"]
    facts["j4"]["state"] = "RUNNING"  # it has ended since
    assert columns.asked(views, facts, {"j5": 9.0, "j4": 0.0, "j3": 0.0}, 11.0) == ["j4"]


async def test_columns_are_chosen_by_their_names_and_remembered(tmp_path: Path) -> None:
    file = tmp_path / "console.json"
    source = FakeSource()
    async with running(source, start="jobs", memory=Memory(file)) as (pilot, app):
        await press(pilot, "f")
        assert isinstance(app.screen, Columns)
        await press(pilot, *"optim", "enter")
        assert isinstance(app.screen, Columns), "more can be chosen"
        await press(pilot, "escape")
        assert text(app, "head").splitlines()[1].split()[:4] == ["id", "state", "name", "optimizer"]
        await press(pilot, "f", *"reason", "enter", "escape")
        assert "optimizer" in text(app, "head") and "reason" not in text(app, "head")
        assert "adam" in text(app, "table").splitlines()[0]
    async with running(source, start="jobs", memory=Memory(file)) as (pilot, app):
        assert "optimizer" in text(app, "head")
        await press(pilot, "f", "ctrl+r", "escape")
        assert "optimizer" not in text(app, "head") and "reason" in text(app, "head")
    assert Memory(file).session.columns == ""


def with_columns(*names: str) -> Memory:
    memory = Memory()
    memory.note(columns="\n".join(names))
    return memory


async def test_one_request_reads_the_rows_on_the_screen() -> None:
    source, clock = FakeSource(), FakeClock()
    memory = with_columns("metric.loss")
    async with running(source, clock=clock, start="jobs", memory=memory) as (pilot, _):
        asked = [call for call in source.calls if call.startswith("runs of")]
        assert asked == ["runs of 32 0"]
        clock.advance(11)
        await settle(pilot)
        asked = [call for call in source.calls if call.startswith("runs of")]
        assert asked[1:] == ["runs of 8 0"], "what has ended is not read again"


async def test_usual_columns_ask_for_nothing() -> None:
    source = FakeSource()
    async with running(source, start="jobs"):
        assert not any(call.startswith("runs of") for call in source.calls)


async def test_sorting_by_a_value_reads_it_of_all_jobs() -> None:
    source = FakeSource()
    source.tables["jobs"] |= {f"j{n}": job(n) for n in range(1, 250)}
    memory = with_columns("param.lr", "trend")
    async with running(source, start="jobs", memory=memory) as (pilot, app):
        assert isinstance(app.screen, JobsScreen)
        await press(pilot, *"ssss")
        for _ in range(4):
            await settle(pilot)
        assert len(app.screen._facts) == len(source.tables["jobs"])
        rows = text(app, "table").splitlines()
        assert "1.0e-04" in rows[0] and "0.1" in rows[-1]


async def test_an_answer_that_came_to_another_screen_is_asked_for_again() -> None:
    source, memory = FakeSource(), with_columns("metric.loss")
    async with running(source, start="jobs", memory=memory) as (pilot, app):
        screen = app.screen
        assert isinstance(screen, JobsScreen)
        screen._facts.clear()
        screen._asking = list(screen._read_at)  # the screen was left meanwhile
        await press(pilot, "enter", "escape")
        await settle(pilot)
        assert screen._facts and "2.3" in text(app, "table")


async def test_values_that_cannot_be_read_are_said_to_be_missing() -> None:
    source, clock = FakeSource(), FakeClock()
    memory = with_columns("metric.loss")
    async with running(source, clock=clock, start="jobs", memory=memory) as (pilot, app):
        source.down = Unreachable("the control plane is not running", "Start it with `qd up`.")
        clock.advance(11)
        await settle(pilot)
        assert "values not read: the control plane is not running" in text(app, "head")
        assert "2.3" in text(app, "table")


async def test_columns_that_do_not_fit_are_scrolled_to() -> None:
    async with running(start="jobs", size=(80, 24)) as (pilot, app):
        head = text(app, "head")
        assert "6 columns more: < >" in head and "objective" not in head
        await press(pilot, *[">"] * 5)
        head = text(app, "head")
        assert "objective" in head and "name" in head and "gpus" not in head
        await press(pilot, *["<"] * 9)
        assert "gpus" in text(app, "head")
