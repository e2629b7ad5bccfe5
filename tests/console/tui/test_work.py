"""What people do all day: mark and cancel many, sort, compare, search whole logs, look at one moment."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fakes import NOW, FakeSource, job
from pilots import press, running, screen_text, settle, text, title
from textual import events
from textual.pilot import Pilot

from console.tui import clipboard, outside
from console.tui.app import QuarterdeckApp
from console.tui.joblogs import JobLogs
from console.tui.keymap import parse
from console.tui.memory import Memory
from console.tui.screens.compare import CompareScreen
from console.tui.screens.events import EventsScreen
from console.tui.screens.job import JobScreen
from console.tui.screens.jobs import JobsScreen
from console.tui.screens.modals import Page
from console.tui.screens.submit import Submit

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


# Logs ------------------------------------------------------------------------------------------------


def big(lines: int = 60_000) -> FakeSource:
    source = FakeSource()
    source.logs[0] = b"".join(
        b"line %06d%s\n" % (i, b" needle" if i in (100, 30_000) else b"") for i in range(lines)
    )
    return source


async def found(pilot: Pilot[None], app: QuarterdeckApp, what: str) -> None:
    for _ in range(3):
        await settle(pilot)
    assert what in screen_text(app)


async def test_finding_goes_through_the_whole_log_both_ways() -> None:
    async with running(big(), start="j412") as (pilot, app):
        await press(pilot, "greater_than_sign", "slash", *"needle", "enter")
        await found(pilot, app, "line 030000 needle")
        assert "of the log, G follows" in title(app, "logs")
        await press(pilot, "N")
        await found(pilot, app, "line 000100 needle")
        await press(pilot, "n")
        await found(pilot, app, "line 030000 needle")
        await press(pilot, "G")
        await found(pilot, app, "line 059999")
        assert "follow" in title(app, "logs")
        await press(pilot, "slash", *"absent", "enter")
        await found(pilot, app, "'absent' is nowhere in the")


def test_scrolling_up_without_end_keeps_memory_bounded() -> None:
    source = FakeSource()
    source.logs[0] = b"".join(b"%07d %s\n" % (i, b"x" * 100) for i in range(160_000))

    def fetch(key: str, call: Callable[[], Any]) -> None:
        logs.arrived(call(), NOW)

    logs = JobLogs(source, "j412", "logs", fetch, lambda: None)
    logs.attend(2)
    logs.select(0)
    logs.poll(live=True)
    for _ in range(250):
        logs.earlier()
    window = logs.window
    assert window is not None
    assert window.start < 3_000_000
    assert window.held <= 6 << 20
    assert window.text(window.first).startswith(f"{window.start // 109:07d}")
    assert not logs.complete
    held = window.tail
    logs.later()
    assert window.tail > held
    logs.to_end()
    assert logs.complete
    assert window.text(window.end - 1).startswith("0159999")


async def test_only_matching_lines_are_kept_and_an_empty_text_shows_all() -> None:
    async with running(start="j412") as (pilot, app):
        await press(pilot, "ampersand", *"9003", "enter")
        assert set(text(app, "logs").split()) == {"r0", "r1", "r9", "step", "9003", "loss", "2.09"}
        assert "&9003" in title(app, "logs")
        await press(pilot, "ampersand", *["backspace"] * 4, "enter")
        assert "9011" in text(app, "logs")


async def test_keys_typed_in_one_breath_go_into_the_prompt_and_are_no_commands() -> None:
    source = FakeSource()
    async with running(source, start="jobs") as (pilot, app):
        driver = app._driver
        assert driver is not None
        for key in ("slash", *"vc", "enter"):
            event = events.Key(key, "/" if key == "slash" else key if len(key) == 1 else None)
            event.set_sender(app)
            driver.send_message(event)
        await settle(pilot)
        assert "filter vc" in text(app, "head")
        assert "marked" not in text(app, "head")
        assert isinstance(app.screen, JobsScreen)


async def test_a_minute_back_by_the_lines_own_times() -> None:
    async with running(start="j412") as (pilot, app):
        await press(pilot, "greater_than_sign", "greater_than_sign", "left_square_bracket")
        await found(pilot, app, "step 739 ")
        await press(pilot, "left_square_bracket")
        await found(pilot, app, "step 679 ")
        await press(pilot, "right_square_bracket", "right_square_bracket")
        await found(pilot, app, "step 799 ")
        await press(pilot, "right_square_bracket")
        await found(pilot, app, "Nothing was written after that")


async def test_two_logs_side_by_side_move_on_their_own() -> None:
    async with running(start="j412") as (pilot, app):
        await press(pilot, "b")
        assert "Logs r0" in title(app, "beside")
        assert "tok/s 31000" in text(app, "beside")
        await press(pilot, "tab", "greater_than_sign")
        assert "Logs r1" in title(app, "beside")
        assert "all ranks" in title(app, "logs")
        await press(pilot, "b")
        assert not app.screen.query_one("#beside").display


async def test_the_whole_log_is_saved_to_a_new_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    source = FakeSource()
    async with running(source, start="j412") as (pilot, _):
        await press(pilot, "greater_than_sign", "w", "w", "a", "w")
    assert (tmp_path / "j412.2-r0.log").read_bytes() == source.logs[0]
    assert (tmp_path / "j412.2-r0-2.log").read_bytes() == source.logs[0]
    assert "r15 step 799" in (tmp_path / "j412.2-all.log").read_text()


async def test_a_terminal_that_cannot_be_lent_says_so_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    async with running(start="j412") as (pilot, app):
        await press(pilot, "e")
        await found(pilot, app, "cannot be lent to a pager")
    assert os.listdir(tmp_path) == []  # noqa: PTH208 - it is over, nothing waits for this


async def test_the_outlier_is_named_and_its_lines_are_marked() -> None:
    source = FakeSource()
    view = source.tables["nodes"]["n03"]
    view["gpus"][3].update(power=310.0)
    view["gpus"][1].update(power=300.0)
    source.tables["job:j412"]["j412"]["placed_on"] = ["n02", "n03"]
    view["gpus"][3].update(power=690.0, throttle=[])
    async with running(source, start="j412") as (pilot, app):
        await settle(pilot)
        assert "r9 (n03 GPU 1) draws 300 W" in text(app, "summary")
        assert "r9!" in text(app, "logs")
        assert "odd one" in text(app, "ranks")


# Charts ----------------------------------------------------------------------------------------------


async def test_the_crosshair_joins_metrics_gpus_and_logs() -> None:
    async with running(start="j412") as (pilot, app):
        await press(pilot, "greater_than_sign", "tab", "tab")
        await press(pilot, "h", "h", "h")
        assert "┊" in text(app, "metrics")
        assert "GPU util · 1" in title(app, "gpus")
        screen = app.screen
        assert isinstance(screen, JobScreen)
        assert screen.look.cross is not None
        step = int(screen.look.cross - (NOW - 800)) + 1
        await found(pilot, app, f"step {step} " if step < 800 else "Nothing was written")
        await press(pilot, "backspace")
        assert "┊" not in text(app, "metrics")


async def test_zoom_log_smooth_and_axis_stand_in_the_title() -> None:
    async with running(start="j412") as (pilot, app):
        await press(pilot, "plus", "plus", "minus", "L", "s", "T")
        assert title(app, "metrics").endswith("x2 · log · smooth 0.6 · by time")


async def test_the_metric_of_a_job_name_is_remembered() -> None:
    memory = Memory()
    async with running(start="j412", memory=memory) as (pilot, app):
        await press(pilot, "m", "m")
        assert "val_acc" in title(app, "metrics")
    assert memory.session.metrics == {"pretrain-7b": "val_acc"}
    async with running(start="j412", memory=memory) as (_, app):
        assert "val_acc" in title(app, "metrics")


async def test_marked_jobs_are_compared_in_one_chart() -> None:
    async with running(start="jobs") as (pilot, app):
        await press(pilot, "C")
        assert "Mark two or more" in screen_text(app)
        await press(pilot, "space", "space", "C")
        assert isinstance(app.screen, CompareScreen)
        assert "j434" in text(app, "compare")
        assert "least 2.0" in text(app, "compare")
        await press(pilot, "m")
        assert "lr" in title(app, "compare")
        await press(pilot, "h", "h")
        assert "at step" in text(app, "compare")
        await press(pilot, "escape")
        assert isinstance(app.screen, JobsScreen)


# Events, freezing, submitting, copying ---------------------------------------------------------------


async def test_events_tell_what_is_wrong_and_open_it() -> None:
    async with running() as (pilot, app):
        await press(pilot, "7")
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
