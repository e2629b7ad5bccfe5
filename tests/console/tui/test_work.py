"""What people do all day: mark and cancel many, sort, compare, search whole logs, look at one moment."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from console.tui import clipboard, outside
from console.tui.keymap import parse
from console.tui.memory import Memory
from console.tui.screens.compare import CompareScreen
from console.tui.screens.events import EventsScreen
from console.tui.screens.job import JobScreen
from console.tui.screens.jobs import JobsScreen
from console.tui.screens.modals import Page
from console.tui.screens.submit import Submit
from tests.console.tui.fake_views import job
from tests.console.tui.fakes import FakeSource
from tests.console.tui.pilots import press, running, screen_text, settle, text, title

# Marks and order -------------------------------------------------------------------------------------


async def test_marked_jobs_are_cancelled_together_after_one_question() -> None:
    source = FakeSource()
    async with running(source, start="jobs") as (pilot, app):
        await press(pilot, "space", "space", "j", "space")
        assert "3 marked" in text(app, "head")
        await press(pilot, "c")
        assert "Cancel 3 jobs?" in text(app, "question")
        await press(pilot, "y")
        assert [target for _, target in source.acts] == ["j434", "j433", "j431"]
        await press(pilot, "escape")
        assert "marked" not in text(app, "head")
        assert isinstance(app.screen, JobsScreen)


async def test_a_range_grows_with_the_cursor_and_a_mark_can_be_taken_away() -> None:
    async with running(start="jobs") as (pilot, app):
        await press(pilot, "v", "j", "j", "v", "k", "space")
        assert "2 marked" in text(app, "head")
        assert [line[0] for line in text(app, "table").splitlines()[:4]] == ["•", " ", "▸", " "]


async def test_marks_of_ended_jobs_cannot_be_cancelled_but_retried() -> None:
    source = FakeSource()
    async with running(source, start="jobs") as (pilot, app):
        await press(pilot, "slash", *"state:failed", "enter", "v", "G", "c")
        assert "already ended" in screen_text(app)
        await press(pilot, "r", "y")
        assert {verb for verb, _ in source.acts} == {"retry"}
        assert len(source.acts) == 3


async def test_sorting_cycles_through_columns_turns_round_and_is_remembered(
    tmp_path: Path,
) -> None:
    file = tmp_path / "console.json"
    async with running(start="jobs", memory=Memory(file)) as (pilot, app):
        await press(pilot, "s", "s", "s")
        names = [line[21:35].strip() for line in text(app, "table").splitlines()]
        assert names[0] == "digits-ddp"
        assert "name" in text(app, "head")
        assert "▴" in text(app, "head")
        await press(pilot, "S")
        assert "▾" in text(app, "head")
        assert "评估" in text(app, "table").splitlines()[0]
    async with running(memory=Memory(file)) as (_, app):
        assert isinstance(app.screen, JobsScreen)  # where the session ended
        assert "▾" in text(app, "head")


async def test_the_head_sorts_when_it_is_clicked() -> None:
    async with running(start="jobs") as (pilot, app):
        await pilot.click("#head", offset=(3, 1))
        await settle(pilot)
        assert text(app, "table").split()[0] == "j397"
        assert app.screen.query_one("#table").cursor_key == "j434"  # type: ignore[attr-defined]


async def test_a_theme_that_was_chosen_is_kept_and_the_default_is_not() -> None:
    memory = Memory()
    async with running(memory=memory):
        pass
    assert memory.session.theme == ""
    async with running(memory=memory) as (_, app):
        app.theme = "nord"
    async with running(memory=memory) as (_, app):
        assert app.theme == "nord"


async def test_the_session_of_a_broken_file_is_a_new_one(tmp_path: Path) -> None:
    file = tmp_path / "console.json"
    file.write_text('{"screen": 4, "sort": "nonsense", "metrics": [1], "more": {}}')
    async with running(memory=Memory(file)) as (_, app):
        assert app.place == "cluster"
    file.write_bytes(b"\xff\xfe")
    assert Memory(file).session.screen == ""


async def test_older_jobs_are_read_at_the_end_of_the_table() -> None:
    source = FakeSource()
    source.older = [job(number) for number in range(396, 0, -1)]
    async with running(source, start="jobs") as (pilot, app):
        await press(pilot, "G")
        assert "238 jobs" in text(app, "head")
        await press(pilot, "G")
        assert "434 jobs" in text(app, "head")
        assert "that is all" in text(app, "head")
        await press(pilot, "slash", *"zzz")
        assert "0 of 434" in text(app, "head")


# Keys of one's own -----------------------------------------------------------------------------------


async def test_a_key_can_be_moved_and_clashes_are_told() -> None:
    config = parse(
        {"theme": "nord", "keys": {"jobs.compare": "ctrl+o", "job.cancel": "x", "job.fly": "f"}},
        "config.toml",
    )
    assert "no action 'job.fly'" in config.problems[0]
    assert "x of job.cancel is already job.explain" in config.problems[1]
    async with running(start="jobs", config=config) as (pilot, app):
        assert app.theme == "nord"
        assert "^o compare" in text(app, "footer")
        assert "c cancel" in text(app, "footer")
        assert any("not moved" in note.message for note in app._notifications)
        await press(pilot, "space", "space", "ctrl+o")
        assert isinstance(app.screen, CompareScreen)


@pytest.mark.parametrize(
    ("held", "said"),
    [
        ("x", "not a table"),
        ({"theme": 3}, "theme is not a name"),
        ({"keys": {"job.cancel": ["x"]}}, "is not a name such as"),
    ],
)
def test_what_is_wrong_in_the_config_is_said(held: object, said: str) -> None:
    assert said in parse(held, "c").problems[0]


async def test_the_footer_can_be_clicked() -> None:
    async with running(start="jobs") as (pilot, app):
        at = text(app, "footer").index("x explain")
        await pilot.click("#footer", offset=(at, 0))
        await settle(pilot)
        assert isinstance(app.screen, Page)


# Events, freezing, submitting, copying ---------------------------------------------------------------


async def test_events_tell_what_is_wrong_and_open_it() -> None:
    async with running() as (pilot, app):
        await press(pilot, "8")
        assert isinstance(app.screen, EventsScreen)
        assert "lost" in text(app, "alerts")
        assert "drained: ECC errors on GPU 2" in text(app, "alerts")
        await press(pilot, "u", "u")
        assert "error and worse" in title(app, "happenings")
        assert "submitted" not in text(app, "happenings")
        await press(pilot, "u", "slash", *"node:n28", "enter")
        assert "Events 1 of 8" in title(app, "happenings")
        await press(pilot, "enter")
        assert title(app, "node").startswith("n28")


async def test_a_frozen_picture_stays_and_says_so() -> None:
    source = FakeSource()
    async with running(source, start="jobs") as (pilot, app):
        await press(pilot, "p")
        source.put("jobs", "j435", job(435, "QUEUED"))
        await settle(pilot)
        assert "frozen" in text(app, "header")
        assert "j435" not in text(app, "table")
        await press(pilot, "p")
        assert "j435" in text(app, "table")


async def test_a_job_is_written_checked_and_submitted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = [(2, "", '{"error": {"message": "job.yaml:1: bad", "hint": "fix it"}}')]
    runs: list[bool] = []

    def submit(file: Path, *, dry_run: bool) -> tuple[int, str, str]:
        runs.append(dry_run)
        return said[-1]

    monkeypatch.setattr(outside, "submit", submit)
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "job.yaml"
    file.write_text("nam: x\n")
    async with running(start="jobs") as (pilot, app):
        await press(pilot, "n")
        dialog = app.screen
        assert isinstance(dialog, Submit)
        await dialog.workers.wait_for_complete()
        await settle(pilot)
        assert "job.yaml:1: bad" in text(app, "verdict")
        await press(pilot, "y")
        assert runs == [True]  # what is wrong cannot be submitted
        said.append((0, '{"id": "j412"}', ""))
        file.write_text("name: x\ncommand: echo\n")
        dialog._look()
        await dialog.workers.wait_for_complete()
        await press(pilot, "y")
        await dialog.workers.wait_for_complete()
        await settle(pilot)
        assert runs == [True, True, False]
        assert isinstance(app.screen, JobScreen)


@pytest.mark.parametrize(
    ("environ", "way"),
    [
        ({"TERM": "xterm-256color"}, "osc52"),
        ({"TERM": "tmux-256color", "TMUX": "/tmp/x,1,0"}, "tmux"),
        ({"TERM": "linux"}, "show"),
        ({"TERM": "screen", "STY": "1.pts"}, "show"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "Apple_Terminal"}, "show"),
    ],
)
def test_the_way_to_copy_depends_on_the_terminal(environ: dict[str, str], way: str) -> None:
    assert clipboard.way("j12", environ) == way
    if way == "osc52":
        assert clipboard.way("x" * 80_000, environ) == "show"


async def test_where_nothing_can_copy_the_text_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "linux")
    monkeypatch.delenv("TMUX", raising=False)
    async with running(start="j412") as (pilot, app):
        await press(pilot, "Y")
        assert isinstance(app.screen, Page)
        assert "step 9011 loss 2.05" in text(app, "page")


def test_pager_and_editor_come_from_the_environment() -> None:
    assert outside.pager({"PAGER": "most -s"}) == ["most", "-s"]
    assert outside.pager({})[0] in ("less", "more")
    assert outside.editor({"EDITOR": "nano", "VISUAL": "code -w"}) == ["code", "-w"]
    assert outside.editor({}) == ["vi"]
    assert os.sep not in outside.editor({})[0]
