"""The Sweeps screens, driven by keys over a fake control plane."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from console.tui.app import QuarterdeckApp
from console.tui.memory import Memory
from console.tui.screens import sweeppictures
from console.tui.screens.job import JobScreen
from console.tui.screens.sweep import SweepScreen
from console.tui.screens.sweeps import SweepsScreen
from jobs.base.errors import Conflict
from tests.console.tui import fake_sweeps
from tests.console.tui.counting import counted
from tests.console.tui.fakes import FakeSource
from tests.console.tui.pilots import press, running, screen_text, settle, text, title


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Pictures follow the cursor and the news at once: nobody holds a key down here."""
    monkeypatch.setattr(sweeppictures, "PACE", 0.0)
    monkeypatch.setattr(sweeppictures, "SOON", 0.001)
    yield


def sweep(app: QuarterdeckApp) -> SweepScreen:
    assert isinstance(app.top, SweepScreen)
    return app.top


def chosen(app: QuarterdeckApp) -> int:
    number = sweep(app).chosen
    assert number is not None
    return number


# The list.


async def test_the_list_opens_by_its_number_and_a_sweep_by_enter() -> None:
    async with running() as (pilot, app):
        await press(pilot, "3")
        assert isinstance(app.screen, SweepsScreen)
        told = text(app, "table")
        assert told.splitlines()[0].startswith("▸s4")
        assert "36/60" in told and "failed" in told
        await press(pilot, "enter")
        assert app.place == "s4"
        await press(pilot, "escape")
        assert isinstance(app.screen, SweepsScreen)


async def test_goto_knows_sweeps_also_those_that_are_not_watched() -> None:
    async with running() as (pilot, app):
        await press(pilot, ":", "s", "4", "enter")
        assert sweep(app).sweep_id == "s4"


async def test_an_empty_list_teaches() -> None:
    async with running(FakeSource(empty=True), start="sweeps") as (_, app):
        assert "qd sweep sweep.yaml" in screen_text(app)
        assert text(app, "head").splitlines()[0].strip() == "0 sweeps"


async def test_marked_sweeps_are_stopped_with_one_question() -> None:
    source = FakeSource()
    async with running(source, start="sweeps") as (pilot, app):
        await press(pilot, "space", "space", "X")
        assert "Stop 2 sweeps?" in screen_text(app)
        await press(pilot, "y")
        assert source.acts == [("stop", "s4"), ("stop", "s2")]


# One sweep.


@pytest.mark.parametrize("size", [(80, 24), (120, 36), (200, 50)])
async def test_every_pane_is_reached_by_tab(size: tuple[int, int]) -> None:
    async with running(start="s3", size=size) as (pilot, app):
        seen = set()
        for _ in range(10):
            await press(pilot, "tab")
            seen |= {
                n for n in sweep(app).panes() if (p := sweep(app).pane(n)) and p.has_focus_within
            }
            focused = app.focused
            assert focused is not None and focused.size.height > 0
        assert seen == {
            "board",
            "trials",
            "race",
            "front",
            "history",
            "parallel",
            "importance",
            "rank",
            "edf",
            "contour",
        }


async def test_a_sweep_of_one_objective_has_no_front() -> None:
    async with running(start="s4") as (_, app):
        assert "front" not in sweep(app).panes()
        assert "Front" not in screen_text(app)


async def test_all_panes_show_the_chosen_trial() -> None:
    async with running(start="s4", size=(200, 50)) as (pilot, app):
        before = text(app, "race"), text(app, "history"), text(app, "parallel")
        await press(pilot, "G", "k", "k")
        assert f"#{chosen(app)}" in text(app, "race")
        after = text(app, "race"), text(app, "history"), text(app, "parallel")
        assert all(one != other for one, other in zip(before, after, strict=True))


async def test_pictures_step_through_trials() -> None:
    async with running(start="s4") as (pilot, app):
        await press(pilot, "tab")  # the race: through the table
        first = chosen(app)
        await press(pilot, "j")
        second = chosen(app)
        assert second != first
        await press(pilot, "tab", "l")  # the history: by number
        assert chosen(app) == second + 1


async def test_enter_opens_the_trials_job_and_escape_comes_back() -> None:
    source = FakeSource()
    async with running(source, start="s4") as (pilot, app):
        source.tables["job:j536"] = {"j536": {**source.tables["job:j412"]["j412"], "id": "j536"}}
        await press(pilot, "enter")
        assert isinstance(app.top, JobScreen) and app.top.job_id == "j536"
        await press(pilot, "escape")
        assert sweep(app).sweep_id == "s4"


async def test_enter_on_the_board_opens_who_is_on_that_gpu() -> None:
    source = FakeSource()
    source.tables["job:j538"] = {"j538": {**source.tables["job:j412"]["j412"], "id": "j538"}}
    async with running(source, start="s4") as (pilot, app):
        sweep(app).focus_pane("board")
        await press(pilot, "enter")  # trial 38 is on the first GPU, the cursor of the table on 36
        assert isinstance(app.top, JobScreen) and app.top.job_id == "j538"


async def test_a_curve_that_cannot_be_read_is_not_asked_for_again_and_again() -> None:
    source = FakeSource()
    async with running(source, start="s4") as (pilot, app):
        asked = source.calls.count("curves s4")
        trial = dict(source.tables["sweep:s4"]["36"])
        source.put("sweep:s4", "36", {**trial, "state": "PRUNED", "step": None, "last": None})
        source.put("sweep:s4", "37", {**source.tables["sweep:s4"]["37"], "state": "PRUNED"})
        for _ in range(5):
            app.clock.advance(3.0)  # type: ignore[attr-defined]
            await settle(pilot)
        assert source.calls.count("curves s4") == asked + 1


async def test_a_value_that_comes_moves_its_row_and_its_curve() -> None:
    source = FakeSource()
    async with running(source, start="s4") as (pilot, app):
        trial = dict(source.tables["sweep:s4"]["36"])
        source.put("sweep:s4", "36", {**trial, "step": 9, "last": 0.9999})
        await settle(pilot)
        assert "0.9999" in text(app, "table").splitlines()[0]
        assert sweep(app).curves[36][-1] == (9, 0.9999)


async def test_the_spec_stays_known_when_only_the_sweep_is_told_anew() -> None:
    source = FakeSource()
    async with running(source, start="s4") as (pilot, app):
        view = {k: v for k, v in source.tables["sweep:s4"]["s4"].items() if k != "spec"}
        source.put("sweep:s4", "s4", {**view, "state": "PAUSED", "reason": "paused by mira"})
        await settle(pilot)
        assert "PAUSED" in screen_text(app)
        assert [axis.name for axis in sweep(app).axes] == [*fake_sweeps.SPACE, ""]


async def test_filter_and_marks() -> None:
    source = FakeSource()
    async with running(source, start="s4") as (pilot, app):
        await press(pilot, "/", *"state:run", "enter")
        assert "3 of 40 trials" in title(app, "trials")
        await press(pilot, "space", "space", "c")
        assert "Prune 2 trials of s4?" in screen_text(app)
        await press(pilot, "y")
        assert source.acts == [("prune", "s4/36"), ("prune", "s4/37")]
        await press(pilot, "escape", "escape")
        assert "· 40 trials" in title(app, "trials")


async def test_the_orders_of_sweeps_and_of_trials_are_remembered(tmp_path: Path) -> None:
    file = tmp_path / "console.json"
    async with running(start="sweeps", memory=Memory(file)) as (pilot, app):
        await press(pilot, "s", "S")
        assert text(app, "table").splitlines()[0].startswith("▸s4")
        assert " id▾ " in text(app, "head")
    async with running(start="s4", memory=Memory(file), size=(200, 50)) as (pilot, app):
        await press(pilot, "s", "s")
        by = text(app, "trialhead").split("▴")[0].split()[-1]
    async with running(start="s3", memory=Memory(file), size=(200, 50)) as (_, app):
        assert text(app, "trialhead").split("▴")[0].split()[-1] == by
    async with running(start="sweeps", memory=Memory(file)) as (_, app):
        assert " id▾ " in text(app, "head")


async def test_sorting_by_a_parameter() -> None:
    async with running(start="s4", size=(200, 50)) as (pilot, app):
        await press(pilot, *"sssss")  # number, state, value, step, lr
        first = sweep(app)._by_number[sweep(app)._keys[0]]
        least = min(t["params"]["lr"] for t in sweep(app)._sorted)
        assert first["params"]["lr"] == least


async def test_a_brush_is_a_filter_of_everything() -> None:
    async with running(start="s4", size=(200, 50)) as (pilot, app):
        screen = sweep(app)
        screen.focus_pane("parallel")
        await press(pilot, "b")
        some = len(screen._keys)
        assert 0 < some < 40
        assert "lr" in title(app, "parallel") and "brush lr" in title(app, "trials")
        await press(pilot, "minus", "minus")
        fewer = len(screen._keys)
        assert fewer < some
        await press(pilot, "l", "b")  # a second axis
        assert len(screen._keys) <= fewer and len(screen.brush.ranges) == 2
        await press(pilot, "backspace")
        assert len(screen._keys) == 40


async def test_one_pane_takes_the_whole_screen_and_gives_it_back() -> None:
    async with running(start="s4") as (pilot, app):
        screen = sweep(app)
        screen.focus_pane("race")
        await settle(pilot)
        before = screen.query_one("#race").size
        await press(pilot, "z")
        assert screen.query_one("#race").size.width > before.width
        assert not screen.query_one("#trials").display
        await press(pilot, "escape")
        assert screen.query_one("#race").size == before
        assert screen.query_one("#trials").display


async def test_look_keys_change_what_they_say() -> None:
    async with running(start="s4", size=(200, 50)) as (pilot, app):
        await press(pilot, "L", "T")
        assert "log" in title(app, "race") and "by time" in title(app, "history")
        sweep(app).focus_pane("race")
        await press(pilot, "plus")
        assert "best x2" in title(app, "race")
        sweep(app).focus_pane("board")
        wide = title(app, "board")
        await press(pilot, "plus")
        assert title(app, "board") != wide


async def test_limits_are_typed_and_said_before_they_are_sent() -> None:
    source = FakeSource()
    async with running(source, start="s4") as (pilot, app):
        await press(pilot, "e")
        assert "nothing is changed" in screen_text(app)
        await press(pilot, "enter")  # which does nothing yet
        await press(pilot, "ctrl+u", *"trials=90")
        assert "90 trials in all (was 60)" in screen_text(app)
        await press(pilot, "enter")
        assert source.acts == [("extend", "s4")] and source.bodies == [{"trials": 90}]


async def test_a_point_is_added_from_the_chosen_trials() -> None:
    source = FakeSource()
    async with running(source, start="s4") as (pilot, app):
        await press(pilot, "a")
        assert "Try lr=" in screen_text(app)
        await press(pilot, "ctrl+u", *"width=100")
        assert "width is one of" in screen_text(app)
        await press(pilot, "ctrl+u", *"width=128", "enter")
        assert source.bodies == [{"points": [{"width": 128}]}]


@pytest.mark.parametrize(
    ("key", "verb", "target"),
    [
        ("P", "pause", "s4"),
        ("X", "stop", "s4"),
        ("r", "rerun", "s4/36"),
        ("i", "pin", "s4/36"),
        ("c", "prune", "s4/36"),
    ],
)
async def test_steering_asks_first(key: str, verb: str, target: str) -> None:
    source = FakeSource()
    async with running(source, start="s4") as (pilot, _):
        await press(pilot, key, "n")
        assert source.acts == []
        await press(pilot, key, "y")
        assert source.acts == [(verb, target)]


async def test_a_refusal_of_the_controller_is_told() -> None:
    source = FakeSource()
    source.refuse = Conflict("trial 36 of s4 is over: it is COMPLETE")
    async with running(source, start="s4") as (pilot, app):
        await press(pilot, "c", "y")
        assert "is over" in " ".join(str(n.message) for n in app._notifications)


async def test_a_read_only_console_steers_nothing() -> None:
    source = FakeSource()
    async with running(source, start="s4", read_only=True) as (pilot, app):
        await press(pilot, "c", "X", "P", "e", "a", "r", "i", "N")
        assert source.acts == [] and isinstance(app.screen, SweepScreen)


async def test_parameters_are_copied_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    copied: list[str] = []
    async with running(start="s4") as (pilot, app):
        monkeypatch.setattr(app, "copy", copied.append)
        await press(pilot, "j", "j", "j", "y")
        assert copied[0].startswith('{"lr": 0.00265')


async def test_trials_are_saved_as_csv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    async with running(start="s4") as (pilot, _):
        await press(pilot, "w")
    rows = saved(tmp_path)
    assert len(rows) == 40
    assert rows[12]["state"] == "COMPLETE" and float(rows[12]["value.val_acc"]) > 0.98
    assert rows[12]["param.width"] == "192"


def saved(folder: Path) -> list[dict[str, str]]:
    (path,) = folder.glob("*.csv")
    return list(csv.DictReader(path.read_text().splitlines()))


# Replay.


async def test_a_replay_goes_step_by_step_and_changes_nothing() -> None:
    source = FakeSource()
    async with running(source, start="s3") as (pilot, app):
        assert "60/60" in screen_text(app)
        await press(pilot, *"[" * 20)
        assert "replay of" in screen_text(app) and "60/60" not in screen_text(app)
        assert "RUNNING" in screen_text(app)
        await press(pilot, "c")
        assert "This is a replay" in " ".join(str(n.message) for n in app._notifications)
        await press(pilot, *"]" * 20, "]")
        assert "60/60" in screen_text(app) and sweep(app).at is None


async def test_a_replay_begins_at_the_beginning_and_ends_by_escape() -> None:
    async with running(start="s3") as (pilot, app):
        await press(pilot, "R")
        assert sweep(app).at is not None
        assert len(sweep(app)._keys) < 10
        await press(pilot, "escape")
        assert sweep(app).at is None and len(sweep(app)._keys) == 60


# What may go wrong.


async def test_a_replay_of_a_sweep_without_a_file_begins_where_nothing_was_tried() -> None:
    source = FakeSource()
    del source.tables["sweep:s4"]["s4"]["spec"]
    async with running(source, start="s4", size=(200, 50)) as (pilot, app):
        assert sweep(app).shares
        await press(pilot, "R")
        assert sweep(app).at is not None
        sweep(app).at = 0.0  # before the first trial
        sweep(app).look_again()
        await settle(pilot)
        assert not sweep(app)._keys and len(sweep(app).axes) > 1


async def test_a_sweep_that_does_not_exist_says_so() -> None:
    async with running(start="s99") as (_, app):
        assert "there is no sweep s99" in screen_text(app)


async def test_a_sweep_without_trials_is_said_to_begin() -> None:
    async with running(start="s1") as (_, app):
        told = screen_text(app)
        assert "FAILED" in told and "without logging acc" in told


async def test_what_is_shown_stays_while_the_control_plane_is_away() -> None:
    source = FakeSource()
    async with running(source, start="s4") as (pilot, app):
        source.cut()
        for _ in range(100):  # until the threads that read the streams have noticed
            await settle(pilot)
            if "live" not in text(app, "header"):
                break
            await pilot.pause(0.02)
        assert "live" not in text(app, "header")
        assert "0.9812" in screen_text(app)


async def test_unreachable_from_the_start_says_so() -> None:
    source = FakeSource()
    source.cut()
    async with running(source, start="s4") as (_, app):
        assert "the control plane is not running" in screen_text(app)


# Cost.


def large(many: int) -> FakeSource:
    source = FakeSource()
    trials = fake_sweeps.trials(many, parallel=8, open_=8)
    view = fake_sweeps.sweep(9, trials)
    rows = {str(t["number"]): t for t in trials}
    source.tables["sweep:s9"] = {"s9": fake_sweeps.detail(view), **rows}
    source.tables["sweeps"]["s9"] = view
    return source


async def test_a_thousand_trials_cost_a_few_lines_for_each_change() -> None:
    source = large(1000)
    async with counted(source, start="s9") as (pilot, _, driver, lag):
        driver.taken()
        for turn in range(1, 4):
            for number in range(992, 999):
                trial = dict(source.tables["sweep:s9"][str(number)])
                change = {"step": (trial["step"] or 0) + turn, "last": 0.9 + turn / 100}
                source.put("sweep:s9", str(number), {**trial, **change})
            await settle(pilot)
        assert 0 < driver.taken() / 3 < 40_000
        assert lag.worst < 2.0  # the machine may be busy


async def test_ten_thousand_trials_open() -> None:
    async with running(large(10_000), start="s9") as (pilot, app):
        assert "10000 trials" in title(app, "trials")
        assert "newest 2000 of" in title(app, "race")
        await press(pilot, "G")
        assert cast(Any, app.focused).cursor_key is not None
