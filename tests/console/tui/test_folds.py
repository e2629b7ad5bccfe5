"""Trials folded under their sweep in the Jobs screen, and found by it."""

from __future__ import annotations

from pathlib import Path

import pytest

from console.tui.core.base.order import Order
from console.tui.core.draw.glyphs import ASCII, UNICODE
from console.tui.core.draw.lines import plain
from console.tui.core.jobs import folds, jobs
from console.tui.memory import Memory
from console.tui.screens.jobs import PAGES, JobTable
from console.tui.screens.sweep import SweepScreen
from jobs.wire.views import JobView
from tests.console.tui import fake_sweeps
from tests.console.tui.fake_views import job
from tests.console.tui.fakes import FakeSource
from tests.console.tui.pilots import press, running, screen_text, settle, text

SWEEPS = fake_sweeps.tables()["sweeps"]


def trial(number: int, sweep: str, state: str = "SUCCEEDED", **over: object) -> JobView:
    return job(
        number, state, name=f"find-{number}", tags={"sweep": sweep, "trial": str(number)}, **over
    )


def known(*views: JobView) -> dict[str, JobView]:
    return {view["id"]: view for view in views}


MIXED = known(
    job(90, "RUNNING"),
    trial(80, "s1", "RUNNING"),
    trial(79, "s1", "FAILED"),
    trial(60, "s10"),
    trial(59, "s10"),
    job(50),
    job(40, tags={"pipeline": "p1", "step": "train"}),
    job(39, tags={"pipeline": "p12", "step": "train"}),
)


def listed(text: str = "", **options: object) -> list[str]:
    return list(folds.listing(MIXED, jobs.job_filter(text), **options).keys)  # type: ignore[arg-type]


def test_a_sweep_is_one_row_at_the_place_of_its_newest_trial() -> None:
    assert listed() == ["j90", "s1", "s10", "j50", "j40", "j39"]
    assert listed(unfolded={"s1"})[1:4] == ["s1", "j80", "j79"]


def test_a_sweep_that_runs_stays_among_what_lives_between_two_trials() -> None:
    over = known(job(9), trial(8, "s4"), trial(7, "s1"))
    keys = folds.listing(over, jobs.job_filter(""), sweeps=SWEEPS).keys
    assert list(keys) == ["s4", "j9", "s1"]


@pytest.mark.parametrize(
    ("typed", "found"),
    [
        ("sweep:s1", ["s1"]),
        ("sweep:s10", ["s10"]),
        ("!sweep:s1", ["j90", "s10", "j50", "j40", "j39"]),
        ("sweep:s", []),
        ("pipeline:p1", ["j40"]),
        ("id:j5", []),
        ("id:j50", ["j50"]),
        ("state:fail", ["s1", "j79"]),  # a part of it is shown at once
        ("find-5", ["s10", "j59"]),
    ],
)
def test_the_filter_finds_inside_of_what_is_folded(typed: str, found: list[str]) -> None:
    assert listed(typed) == found


def test_what_the_filter_has_unfolded_can_be_folded() -> None:
    assert listed("state:fail", folded={"s1"}) == ["s1"]


def test_a_number_is_found_whole() -> None:
    held = known(job(3, gpus=8.0), job(2, gpus=80.0))
    assert list(folds.listing(held, jobs.job_filter("gpus:8")).keys) == ["j3"]


def test_trials_stay_below_their_sweep_in_every_order() -> None:
    held = known(trial(5, "s1", gpus=1.0), trial(4, "s1", gpus=64.0), job(3, gpus=8.0))
    most = folds.listing(held, jobs.job_filter(""), Order("gpus", descending=True), unfolded={"s1"})
    assert list(most.keys) == ["s1", "j4", "j5", "j3"]
    least = folds.listing(held, jobs.job_filter(""), Order("gpus"), unfolded={"s1"})
    assert list(least.keys) == ["s1", "j5", "j4", "j3"]


def test_pruned_trials_are_no_failures() -> None:
    view = SWEEPS["s4"]
    held = fake_sweeps.jobs(view, fake_sweeps.trials())
    group = folds.listing(held, jobs.job_filter(""), sweeps=SWEEPS).groups["s4"]
    said = plain(group.words(UNICODE))
    counts = view["counts"]
    assert f"{counts['pruned']} pruned" in said and "1 failed" in said
    assert said.startswith("digits-sweep · 40 trials · best 0.9812 · 3 running")
    assert "3 running" in said and "3 GPUs" in said


def test_a_sweep_that_is_not_known_is_named_after_its_trials() -> None:
    group = folds.listing(MIXED, jobs.job_filter("")).groups["s10"]
    assert plain(group.words(ASCII)).startswith("find - 2 trials")


def with_trials() -> FakeSource:
    source = FakeSource()
    source.tables["jobs"] |= fake_sweeps.jobs(SWEEPS["s4"], fake_sweeps.trials())
    return source


async def test_trials_unfold_with_right_and_enter_and_fold_with_left(tmp_path: Path) -> None:
    memory = tmp_path / "console.json"
    async with running(with_trials(), start="jobs", memory=Memory(memory)) as (pilot, app):
        rows = app.screen.query_one(JobTable)
        assert rows.keys[0] == "s4" and "j539" not in rows.keys
        assert "78 jobs" in text(app, "head")
        await press(pilot, "l")
        assert rows.keys[:3] == ["s4", "j539", "j538"]
        await press(pilot, "j", "j", "left")
        assert rows.cursor_key == "s4"
        await press(pilot, "left")
        assert "j539" not in rows.keys and rows.cursor_key == "s4"
        await press(pilot, "enter")
        assert "j539" in rows.keys
    async with running(with_trials(), start="jobs", memory=Memory(memory)) as (pilot, app):
        assert "j539" in app.screen.query_one(JobTable).keys, "remembered"
        await press(pilot, "enter")
    assert Memory(memory).session.unfolded == ""


async def test_a_filter_can_be_folded_and_is_forgotten_with_the_filter() -> None:
    async with running(with_trials(), start="jobs") as (pilot, app):
        rows = app.screen.query_one(JobTable)
        await press(pilot, "slash", *"digits-sweep-1", "enter")
        assert "11 of 78 jobs" in text(app, "head")
        assert rows.keys[1] == "j519" and "11 of 40 trials" in text(app, "table")
        await press(pilot, "g", "h")
        assert list(rows.keys) == ["s4"]
        await press(pilot, "slash", *"2", "enter")
        assert "j512" in rows.keys


async def test_what_is_done_to_a_sweep_is_done_to_its_trials() -> None:
    source = with_trials()
    async with running(source, start="jobs") as (pilot, app):
        await press(pilot, "c")
        asked = text(app, "question")
        assert "Cancel 4 jobs?" in asked and "s4 may start other trials" in asked
        await press(pilot, "y")
        assert {target for _, target in source.acts} == {"j536", "j537", "j538", "j539"}


async def test_a_marked_sweep_and_its_marked_trial_are_taken_once() -> None:
    source = with_trials()
    async with running(source, start="jobs") as (pilot, app):
        await press(pilot, "l", "space", "space", "c")
        assert "Cancel 4 jobs?" in text(app, "question")


async def test_what_needs_one_job_says_so_on_a_sweep_and_o_opens_it() -> None:
    async with running(with_trials(), start="jobs") as (pilot, app):
        for key in ("d", "x"):
            await press(pilot, key)
            assert "s4 is a sweep: enter lists its trials" in screen_text(app)
        await press(pilot, "o")
        assert isinstance(app.screen, SweepScreen)


async def test_older_jobs_are_read_until_one_makes_a_row() -> None:
    source = FakeSource()
    sweep = SWEEPS["s4"]
    source.tables["jobs"] = fake_sweeps.jobs(sweep, fake_sweeps.trials())
    source.older = [trial(number, "s4") for number in range(499, 70, -1)] + [job(70), job(69)]
    async with running(source, start="jobs") as (pilot, app):
        rows = app.screen.query_one(JobTable)
        assert list(rows.keys) == ["s4"]
        await press(pilot, "j")
        await settle(pilot)
        assert list(rows.keys) == ["s4", "j70", "j69"]


async def test_one_key_reads_only_so_much() -> None:
    source = FakeSource()
    source.older = [job(number) for number in range(4000, 0, -1)]
    source.tables["jobs"] = {"j4001": job(4001)}
    async with running(source, start="jobs") as (pilot, _):
        await press(pilot, "slash", *"id:j4001", "enter", "G")
        assert sum(call.startswith("page") for call in source.calls) == PAGES
        await press(pilot, "G")
        assert sum(call.startswith("page") for call in source.calls) == 2 * PAGES
