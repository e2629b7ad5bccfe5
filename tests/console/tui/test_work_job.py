"""Working in one job: find in whole logs, keep, save, side by side, and one moment in all panes."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from textual import events
from textual.pilot import Pilot

from console.tui import outside
from console.tui.app import QuarterdeckApp
from console.tui.core.draw.look import nearest
from console.tui.joblogs import JobLogs
from console.tui.memory import Memory
from console.tui.screens.compare import CompareScreen
from console.tui.screens.job import JobScreen
from console.tui.screens.jobs import JobsScreen
from jobs.metrics.series import between, standing_out
from jobs.wire.views import SeriesPoint
from tests.console.tui.fake_views import NOW
from tests.console.tui.fakes import FakeSource
from tests.console.tui.pilots import press, running, screen_text, settle, text, title

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
        assert ", G follows" in title(app, "logs")
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


async def test_a_place_typed_in_one_breath_is_gone_to() -> None:
    async with running() as (pilot, app):
        driver = app._driver
        assert driver is not None
        for key in ("colon", *"j412", "enter"):
            event = events.Key(key, ":" if key == "colon" else key if len(key) == 1 else None)
            event.set_sender(app)
            driver.send_message(event)
        await settle(pilot)
        assert isinstance(app.screen, JobScreen)
        assert app.screen.job_id == "j412"


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


async def test_the_mouse_puts_the_crosshair_on_gpus_and_in_a_comparison() -> None:
    async with running(start="j412") as (pilot, app):
        gpus = app.screen.query_one("#gpus")
        await pilot.click("#gpus", offset=(gpus.size.width - 15, 2))
        await settle(pilot)
        screen = app.screen
        assert isinstance(screen, JobScreen) and screen.look.cross is not None
        assert "┊" in text(app, "metrics")
    async with running(start="jobs") as (pilot, app):
        await press(pilot, "space", "space", "C")
        compare = app.screen.query_one("#compare")
        await pilot.click("#compare", offset=(60, compare.size.height // 2))
        await settle(pilot)
        assert "┊" in text(app, "compare") and "at step" in text(app, "compare")
        await press(pilot, "escape")
        assert isinstance(app.screen, CompareScreen) and "┊" not in text(app, "compare")


async def test_marked_jobs_are_compared_in_one_chart() -> None:
    async with running(start="jobs") as (pilot, app):
        await press(pilot, "C")
        assert "Mark two or more" in screen_text(app)
        await press(pilot, "space", "space", "C")
        assert isinstance(app.screen, CompareScreen)
        assert "j434" in text(app, "compare")
        assert "min 2.0" in text(app, "compare")
        await press(pilot, "m")
        assert "lr" in title(app, "compare")
        await press(pilot, "h", "h")
        assert "at step" in text(app, "compare")
        await press(pilot, "escape", "escape")
        assert isinstance(app.screen, JobsScreen)


async def test_back_takes_one_thing_back_at_a_time() -> None:
    """A find, a filter and the crosshair go before the screen does."""
    async with running(big(300), start="j412") as (pilot, app):
        await press(pilot, "greater_than_sign", "ampersand", *"needle", "enter")
        await settle(pilot)
        await press(pilot, "slash", *"line", "enter")
        await settle(pilot)
        screen = app.screen
        assert isinstance(screen, JobScreen)
        screen.focus_pane("metrics")
        await press(pilot, "h")
        desk = screen.desks["logs"]
        assert desk.view.needle and desk.logs.keep and screen.look.cross is not None
        await press(pilot, "escape")
        assert not desk.view.needle and desk.logs.keep
        await press(pilot, "escape")
        assert not desk.logs.keep and screen.look.cross is not None
        await press(pilot, "escape")
        assert screen.look.cross is None and app.screen is screen
        await press(pilot, "escape")
        assert app.screen is not screen


@pytest.mark.parametrize("size", [(80, 24), (120, 36), (200, 50)])
@pytest.mark.parametrize("start", ["cluster", "jobs", "sweeps", "events", "j412"])
async def test_tab_goes_only_where_something_is_to_be_seen(
    start: str, size: tuple[int, int]
) -> None:
    async with running(size=size, start=start) as (pilot, app):
        for key in [*["tab"] * 8, *["shift+tab"] * 8]:
            await press(pilot, key)
            focused = app.screen.focused
            assert focused is not None
            assert focused.size.area > 0, (focused.id, key)
            assert app.screen.region.overlaps(focused.region), focused.id


class Waves(FakeSource):
    """60,000 steps of a sine of period 126, thinned as the controller does."""

    def series(
        self, job: str, points: int, since: float | None = None, until: float | None = None
    ) -> dict[str, list[SeriesPoint]]:
        self._check(f"series {job}")
        line: list[SeriesPoint] = [
            {"step": n, "at": NOW - 9000 + n * 0.15, "value": math.sin(2 * math.pi * n / 126)}
            for n in range(60_000)
        ]
        wanted = between(line, since, until)
        pairs = [(float(point["step"]), point["value"] or 0.0) for point in wanted]
        return {"loss": [wanted[n] for n in standing_out(pairs, points // 4)]}


async def test_zooming_in_shows_what_was_logged_and_nothing_else() -> None:
    """Of 400 points of the whole run a window showed waves that nobody had logged, then no value at all."""
    async with running(Waves(), start="j412") as (pilot, app):
        screen = app.screen
        assert isinstance(screen, JobScreen)
        await press(pilot, "greater_than_sign")
        screen.focus_pane("metrics")
        await press(pilot, "h", *["plus"] * 6)
        await settle(pilot)
        t0, t1 = screen.look.window(*screen.extent())
        shown = [p for p in screen.in_window()["loss"] if t0 <= p["at"] <= t1]
        crossings = sum((a["value"] or 0) < 0 <= (b["value"] or 0) for a, b in pairwise(shown))
        steps = shown[-1]["step"] - shown[0]["step"]
        assert steps < 1200
        assert crossings == pytest.approx(steps / 126, abs=1)
        assert "no value here" not in text(app, "metrics")
        cross = screen.look.cross
        assert cross is not None
        under = nearest(screen.in_window()["loss"], cross)
        assert under is not None and abs(under["at"] - cross) <= 2 * (t1 - t0) / 80
        closer = screen.closer
        await press(pilot, "h", "h")
        assert screen.closer is closer  # a small move stays within what is held


async def test_a_job_is_described_and_leads_to_what_it_belongs_to() -> None:
    source = FakeSource()
    for key in ("jobs", "job:j412"):
        view = source.tables[key]["j412"]
        view["tags"] = {"sweep": "s3", "trial": "213", "team": "vision"}
    source.tables["job:j412"]["j412"]["spec"] = {
        "command": ["python", "train.py"],
        "params": {"lr": 0.003},
        "env": {"NCCL_DEBUG": "WARN", "BAD": "\x1b]0;x\x07"},
        "data": {"digits": "digits@3"},
    }
    async with running(source, start="j412") as (pilot, app):
        await press(pilot, "d")
        page = text(app, "page")
        for told in ("trial 213 of s3", "python train.py", "lr", "0.003", "NCCL_DEBUG", "digits@3",
                     "team=vision"):  # fmt: skip
            assert told in page, told
        assert "\x1b" not in page
        await press(pilot, "o")
        assert app.place == "s3"
        await press(pilot, "escape")
        assert app.place == "j412"
        await press(pilot, "2", "o")
        assert app.place == "jobs" and "belongs to no sweep" in screen_text(app)


async def test_the_log_of_a_failed_gang_opens_at_the_rank_that_failed_first() -> None:
    source = FakeSource()
    async with running(source, start="j418") as (pilot, app):
        assert source.tables["job:j418"]["j418"]["state"] == "FAILED"
        assert "Logs r9" in title(app, "logs")
        await press(pilot, "a")
        assert "Logs all ranks" in title(app, "logs")


def test_new_files_are_new_also_when_many_ask_at_once(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: outside.new_file(tmp_path, "log", ".txt"), range(40)))
    assert len(set(found)) == 40 and tmp_path / "log.txt" in found
