"""The console as a person uses it: keys in, screens out, over a fake source and a fake clock."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from console import guest
from console.tui.screens.cluster import ClusterScreen
from console.tui.screens.job import JobScreen
from console.tui.screens.jobs import JobsScreen
from console.tui.screens.modals import Confirm, Goto, Page
from jobs.base.errors import Conflict
from tests.console.tui.fake_views import job, node
from tests.console.tui.fakes import FakeClock, FakeSource
from tests.console.tui.pilots import press, running, screen_text, settle, text, title

# Going places ----------------------------------------------------------------------------------------


async def test_number_keys_switch_and_escape_goes_back_one() -> None:
    async with running() as (pilot, app):
        assert isinstance(app.screen, ClusterScreen)
        await press(pilot, "2")
        assert isinstance(app.screen, JobsScreen)
        await press(pilot, "enter")
        assert isinstance(app.screen, JobScreen)
        assert app.screen.job_id == "j434"
        await press(pilot, "escape")
        assert isinstance(app.screen, JobsScreen)
        await press(pilot, "escape")
        assert isinstance(app.screen, ClusterScreen)
        await press(pilot, "escape")
        assert isinstance(app.screen, ClusterScreen)


async def test_one_returns_to_the_cluster_from_anywhere() -> None:
    async with running(start="j412") as (pilot, app):
        assert isinstance(app.screen, JobScreen)
        await press(pilot, "1")
        assert isinstance(app.screen, ClusterScreen)
        assert len(app.screen_stack) == 1


async def test_goto_completes_and_opens_jobs_and_nodes() -> None:
    async with running() as (pilot, app):
        await press(pilot, "colon")
        assert isinstance(app.screen, Goto)
        await press(pilot, *"41", "tab", "enter")
        assert isinstance(app.screen, JobScreen)
        assert app.screen.job_id == "j419"
        await press(pilot, "colon", *"n17", "enter")
        assert isinstance(app.screen, ClusterScreen)
        assert title(app, "node").startswith("n17")


async def test_goto_of_nothing_changes_nothing() -> None:
    async with running() as (pilot, app):
        await press(pilot, "colon", *"zzz", "enter")
        assert isinstance(app.screen, Goto)
        await press(pilot, "escape")
        assert isinstance(app.screen, ClusterScreen)


async def test_help_is_made_from_the_keys_that_work_here() -> None:
    async with running() as (pilot, app):
        await press(pilot, "question_mark")
        assert isinstance(app.screen, Page)
        told = text(app, "page")
        assert "Drain the node" in told
        assert "Cancel the job" not in told
        await press(pilot, "escape", "2", "question_mark")
        assert "Cancel the job" in text(app, "page")


async def test_the_palette_offers_actions_and_does_them() -> None:
    async with running() as (pilot, app):
        await press(pilot, "ctrl+p", *"all jobs")
        await pilot.pause(0.2)
        await press(pilot, "enter")
        assert isinstance(app.screen, JobsScreen)


async def test_tab_goes_through_panes_and_small_terminals_show_one() -> None:
    async with running(size=(80, 24)) as (pilot, app):
        assert app.screen.query_one("#node").display
        assert not app.screen.query_one("#queue").display
        await press(pilot, "tab", "tab", "tab")
        assert app.focused is app.screen.query_one("#queue")
        assert app.screen.query_one("#queue").display
        assert not app.screen.query_one("#node").display
        assert not app.screen.query_one("#right").display
        assert "needs 8 GPUs" in screen_text(app)
        await press(pilot, "enter")
        assert isinstance(app.screen, JobScreen)


async def test_vim_keys_and_arrows_move_alike() -> None:
    async with running(start="jobs") as (pilot, app):
        table = app.screen.query_one("#table")
        await press(pilot, "j", "down", "k")
        assert table.cursor_key == "j433"  # type: ignore[attr-defined]
        await press(pilot, "G")
        assert table.cursor_key == "j397"  # type: ignore[attr-defined]
        await press(pilot, "g", "g")
        assert table.cursor_key == "j434"  # type: ignore[attr-defined]
        await press(pilot, "ctrl+d", "ctrl+u")
        assert table.cursor_key == "j434"  # type: ignore[attr-defined]


async def test_the_heat_map_moves_by_node_and_shows_the_node() -> None:
    async with running() as (pilot, app):
        await press(pilot, "j", "j")
        assert title(app, "node").startswith("n03")
        assert "power cap" in text(app, "node")
        await press(pilot, "l")
        assert title(app, "node").startswith("n17")
        await press(pilot, "u")
        assert "(mem)" in title(app, "heat")


async def test_it_opens_a_job_that_is_not_there_and_says_so() -> None:
    async with running(start="j9999") as (_, app):
        assert "there is no job j9999" in text(app, "summary")
        assert "● live" in text(app, "header")


# Changing things -------------------------------------------------------------------------------------


async def test_cancel_asks_in_words_and_acts_on_yes_alone() -> None:
    source = FakeSource()
    async with running(source, start="j412") as (pilot, app):
        await press(pilot, "c")
        assert isinstance(app.screen, Confirm)
        assert "Cancel j412 (pretrain-7b) of mira?" in text(app, "question")
        assert "16 ranks on n02, n03 get SIGTERM" in text(app, "question")
        await press(pilot, "enter")
        assert isinstance(app.screen, Confirm)
        await press(pilot, "n")
        assert source.acts == []
        await press(pilot, "c", "y")
        assert source.acts == [("cancel", "j412")]
        assert isinstance(app.screen, JobScreen)


async def test_what_cannot_be_done_is_refused_with_the_reason() -> None:
    source = FakeSource()
    async with running(source, start="j412") as (pilot, app):
        await press(pilot, "r")
        assert isinstance(app.screen, JobScreen)
        assert "has not ended yet" in screen_text(app)
        assert source.acts == []


async def test_drain_and_undrain_work_on_the_node_under_the_cursor() -> None:
    source = FakeSource()
    async with running(source) as (pilot, _):
        await press(pilot, "D", "y")
        source.put("nodes", "n01", node(1, state="DRAINED"))
        await settle(pilot)
        await press(pilot, "D", "y")
        assert source.acts == [("drain", "n01"), ("undrain", "n01")]


async def test_a_refused_change_shows_message_and_hint() -> None:
    source = FakeSource()
    source.refuse = Conflict("j412 is already stopping", "Wait for it to end.")
    async with running(source, start="j412") as (pilot, app):
        await press(pilot, "c", "y")
        shown = screen_text(app)
        assert "already stopping" in shown
        assert "Wait for it" in shown


async def test_read_only_switches_changes_off_and_says_so() -> None:
    source = FakeSource()
    async with running(source, start="j412", read_only=True) as (pilot, app):
        assert "read-only" in text(app, "header")
        assert "cancel" not in text(app, "footer")
        await press(pilot, "c")
        assert isinstance(app.screen, JobScreen)
        assert "read-only" in screen_text(app)
        await press(pilot, "question_mark")
        assert "off: read-only" in text(app, "page")
        assert source.acts == []


async def test_a_guest_has_no_programs_and_files_of_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a pager, `!sh` would be a shell of the gateway's user."""
    monkeypatch.setenv(guest.FOLDER, str(tmp_path))
    monkeypatch.chdir(tmp_path)
    async with running(start="j412") as (pilot, app):
        await press(pilot, "e")
        assert "not offered through the gateway" in screen_text(app)
        await press(pilot, "w", "escape", "2", "n")
        assert isinstance(app.screen, JobsScreen)
    assert os.listdir(tmp_path) == []  # noqa: PTH208 - it is over, nothing waits for this


async def test_explain_and_stacks_open_pages() -> None:
    async with running(start="j412") as (pilot, app):
        await press(pilot, "x")
        assert "waits for 8 nodes" in text(app, "page")
        assert "qd submit --nodes 2" in text(app, "page")
        await press(pilot, "escape", "t")
        assert "7 ranks: 0-2, 4-7" in text(app, "page")
        assert "r9 could not be read" in text(app, "page")


async def test_copy_uses_osc_52_and_claims_no_more() -> None:
    async with running(start="j412") as (pilot, app):
        await press(pilot, "y")
        assert app.clipboard.startswith("step ")  # the line under the cursor of the log
        assert "OSC 52" in screen_text(app)


# Staying fresh ---------------------------------------------------------------------------------------


async def test_changes_are_shown_and_the_cursor_stays_on_its_row() -> None:
    source = FakeSource()
    async with running(source, start="jobs") as (pilot, app):
        await press(pilot, "j", "j")
        source.put("jobs", "j435", job(435, "QUEUED", reason="just came"))
        await settle(pilot)
        assert "just came" in text(app, "table")
        assert app.screen.query_one("#table").cursor_key == "j432"  # type: ignore[attr-defined]
        source.delete("jobs", "j432")
        await settle(pilot)
        assert "j432" not in text(app, "table").split()
        assert app.screen.query_one("#table").cursor_key == "j431"  # type: ignore[attr-defined]


async def test_the_badge_tells_delay_cut_and_return() -> None:
    source, clock = FakeSource(), FakeClock()
    async with running(source, clock=clock) as (pilot, app):
        assert "● live" in text(app, "header")
        clock.advance(7)
        await settle(pilot)
        assert "delayed · 7s old" in text(app, "header")
        source.cut()
        await settle(pilot)
        clock.advance(3)
        await settle(pilot)
        assert "reconnecting · 10s old" in text(app, "header")
        assert "n03" in text(app, "heat")  # what was known stays
        before = len(source.watches)
        source.restore()
        source.put("nodes", "n99", node(99))
        for _ in range(100):
            await pilot.pause(0.02)
            if len(source.watches) >= before + 2 and "live" in text(app, "header"):
                break
        await settle(pilot)
        assert "● live" in text(app, "header")
        resumes = [resume for _, resume in source.watches[-2:]]
        assert all(resume is not None for resume in resumes)


async def test_a_new_controller_gives_the_full_state_again() -> None:
    source = FakeSource()
    async with running(source, start="jobs") as (pilot, app):
        source.boot = "boot-2"
        source.tables["jobs"] = {"j1": job(1, "RUNNING")}
        source.cut(down=False)
        for _ in range(100):
            await pilot.pause(0.02)
            if len(app.world.jobs) == 1:
                break
        await settle(pilot)
        assert text(app, "table").split()[0] == "▸j1"


async def test_an_unreachable_control_plane_says_how_to_start_it() -> None:
    source = FakeSource()
    source.cut()
    async with running(source) as (pilot, app):
        assert "✗ unreachable" in text(app, "header")
        assert "qd up" in text(app, "heat")
        await press(pilot, "2")
        assert "qd up" in text(app, "table")


async def test_empty_screens_teach() -> None:
    async with running(FakeSource(empty=True)) as (pilot, app):
        assert "qd up" in text(app, "heat")
        assert "qd submit -- echo hi" in text(app, "queue")
        await press(pilot, "2")
        assert "qd submit -- echo hi" in text(app, "table")


async def test_hidden_screens_neither_subscribe_nor_fetch() -> None:
    source = FakeSource()
    async with running(source) as (pilot, app):
        await press(pilot, "2")
        assert {feed.topics for feed in app._feeds.values() if feed.running} == {
            ("jobs", "events"),
            ("sweeps",),
        }
        source.calls.clear()
        await settle(pilot)
        assert source.calls == []
        await press(pilot, "enter")
        running_now = {feed.topics for feed in app._feeds.values() if feed.running}
        assert running_now == {("jobs", "events"), ("job:j434",)}


async def test_simulated_gpus_are_marked() -> None:
    async with running(FakeSource(sim=True)) as (_, app):
        assert "sim" in text(app, "totals")
        assert "sim" in title(app, "node")
        assert text(app, "node").count("sim") == 8
