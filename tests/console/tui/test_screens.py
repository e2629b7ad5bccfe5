"""The Jobs and Job screens over a fake source, and how everything looks without colour, room or glyphs."""

from __future__ import annotations

from typing import Any

import pytest
from textual.strip import Strip

from console.tui.screens.jobs import JobsScreen
from tests.console.tui.fake_views import job, jobs
from tests.console.tui.fakes import FakeSource
from tests.console.tui.pilots import press, running, screen_text, settle, text, title

# Jobs ------------------------------------------------------------------------------------------------


async def test_the_filter_narrows_while_typing_and_escape_clears() -> None:
    async with running(start="jobs") as (pilot, app):
        await press(pilot, "slash", *"user:mira state:running")
        assert text(app, "table").split()[0] == "▸j424"
        assert "2 of 38 jobs" in text(app, "head")
        await press(pilot, "enter")
        assert app.focused is app.screen.query_one("#table")
        await press(pilot, "escape")
        assert "38 jobs" in text(app, "head")
        assert isinstance(app.screen, JobsScreen)
        await press(pilot, "slash", *"zzz", "enter")
        assert "No job matches" in text(app, "table")


async def test_ten_thousand_jobs_draw_only_what_is_seen() -> None:
    source = FakeSource()
    source.tables["jobs"] = {f"j{n}": job(n) for n in range(1, 10_001)}
    async with running(source, start="jobs") as (pilot, app):
        table = app.screen.query_one("#table")
        drawn: list[str] = []
        row = table._row  # type: ignore[attr-defined]

        def draw(key: str, width: int) -> Any:
            drawn.append(key)
            return row(key, width)

        table._row = draw  # type: ignore[attr-defined]
        await press(pilot, "G")
        assert table.cursor_key == "j1"  # type: ignore[attr-defined]
        assert len(drawn) < 500
        assert "j1 " in screen_text(app)


async def test_only_rows_that_changed_are_painted_again() -> None:
    source = FakeSource()
    async with running(source, start="jobs") as (pilot, app):
        table = app.screen.query_one("#table")
        painted: list[int] = []
        paint = table.render_line

        def paint_line(y: int) -> Strip:
            painted.append(y)
            return paint(y)

        table.render_line = paint_line  # type: ignore[method-assign]
        source.put("jobs", "j432", {**jobs()[1], "reason": "placing now"})
        await settle(pilot)
        assert painted == [2]


# Job -------------------------------------------------------------------------------------------------


async def test_a_job_shows_ranks_logs_metrics_gpus_and_attempts() -> None:
    async with running(start="j412") as (_, app):
        assert "pretrain-7b" in text(app, "summary")
        assert "r15" in text(app, "ranks")
        assert "step 9011 loss 2.05" in text(app, "logs")
        assert "follow" in title(app, "logs")
        assert "loss" in text(app, "metrics")
        assert "r0 n02" in text(app, "gpus")
        assert "SIGKILL" in text(app, "attempts")


async def test_a_rank_is_chosen_by_bracket_or_from_the_strip() -> None:
    async with running(start="j412") as (pilot, app):
        await press(pilot, "greater_than_sign")
        assert "Logs r0" in title(app, "logs")
        assert "ok  done" in " ".join(text(app, "logs").split(" ")).replace("      ", "  ")
        assert "\x1b" not in text(app, "logs")
        await press(pilot, "less_than_sign")
        assert "Logs r15" in title(app, "logs")
        await press(pilot, "shift+tab", "3")
        assert "Logs r3" in title(app, "logs")
        assert "tok/s 31003" in text(app, "logs")
        await press(pilot, "right", "enter")
        assert "Logs r4" in title(app, "logs")
        assert app.focused is app.screen.query_one("#logs")
        await press(pilot, "a")
        assert "all ranks" in title(app, "logs")


async def test_logs_follow_until_scrolled_and_then_count_what_waits() -> None:
    source = FakeSource()
    async with running(source, start="j412") as (pilot, app):
        await press(pilot, "greater_than_sign")
        logs = app.screen.query_one("#logs")
        assert logs.scroll_offset.y == logs.max_scroll_y
        await press(pilot, "ctrl+u")
        held = logs.scroll_offset.y
        source.logs[0] += b"new line 1\nnew line 2\n"
        await settle(pilot)
        assert "2 lines wait, G follows" in title(app, "logs")
        assert logs.scroll_offset.y == held
        await press(pilot, "G")
        assert "follow" in title(app, "logs")
        assert "new line 2" in screen_text(app)


async def test_a_large_log_is_read_from_its_end_and_backwards_on_demand() -> None:
    source = FakeSource()
    source.logs[0] = b"".join(b"line %06d\n" % i for i in range(40_000))
    async with running(source, start="j412") as (pilot, app):
        await press(pilot, "greater_than_sign")
        assert text(app, "logs").endswith("line 039999")
        known = app.screen.query_one("#logs").count()  # type: ignore[attr-defined]
        assert known < 6000
        await press(pilot, "g")
        assert app.screen.query_one("#logs").count() > known  # type: ignore[attr-defined]


async def test_find_marks_and_steps_through_matches() -> None:
    async with running(start="j412") as (pilot, app):
        await press(pilot, "greater_than_sign", "slash", *"step 700 ", "enter")
        assert "step 700 " in screen_text(app)
        assert "/step 700" in title(app, "logs")
        await press(pilot, "n")
        assert "step 700 " in screen_text(app)
        await press(pilot, "slash", *"absent", "enter")
        assert "'absent' is not in this log" in screen_text(app)


async def test_metrics_are_chosen_one_by_one() -> None:
    async with running(start="j412", size=(80, 24)) as (pilot, app):
        await press(pilot, "m")
        assert "lr" in title(app, "metrics")
        await press(pilot, "M", "M")
        assert "val_acc" in title(app, "metrics")


async def test_a_new_attempt_starts_its_logs_anew() -> None:
    source = FakeSource()
    async with running(source, start="j412") as (pilot, app):
        assert "attempt 2" in title(app, "logs")
        full = source.tables["job:j412"]["j412"]
        third = {**full["attempts"][-1], "id": "j412.3", "number": 3}
        source.put("job:j412", "j412", {**full, "attempts": [*full["attempts"], third]})
        await settle(pilot)
        assert "attempt 3" in title(app, "logs")


# How it looks without ---------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(80, 24), (120, 36)])
@pytest.mark.parametrize(
    "keys", [(), ("tab", "tab", "h"), ("2",), ("6",), ("7",), ("8",), ("ctrl+p",)]
)
async def test_ascii_draws_nothing_beyond_ascii(
    size: tuple[int, int], keys: tuple[str, ...]
) -> None:
    source = FakeSource()
    del source.tables["jobs"]["j434"]  # its name is Chinese
    async with running(source, ascii_only=True, size=size) as (pilot, app):
        await press(pilot, *keys)
        assert [char for char in screen_text(app) if not char.isascii()] == []


async def test_no_color_writes_no_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    async with running() as (_, app):
        rows = app.screen._compositor.render_strips(app.size)
        styles = [segment.style for row in rows for segment in row if segment.style]
        assert styles
        for style in styles:
            assert style.color is None or style.color.is_default
            assert style.bgcolor is None or style.bgcolor.is_default


@pytest.mark.parametrize("size", [(80, 24), (120, 36), (200, 50), (40, 10)])
async def test_every_size_draws_every_screen(size: tuple[int, int]) -> None:
    async with running(size=size) as (pilot, app):
        for keys in (("2",), ("enter",), ("1",)):
            await press(pilot, *keys)
            assert app.size == size
            assert "qd" in screen_text(app)
