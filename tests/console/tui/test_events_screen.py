"""Events: folded where they repeat, and searched in all that is recorded."""

from __future__ import annotations

from typing import Any

from console.tui.core.cluster.happenings import fold, folded_row, needle
from console.tui.core.draw.glyphs import UNICODE
from console.tui.core.draw.lines import plain, width
from jobs.wire.views import EventView
from tests.console.tui.fake_views import NOW, at, job
from tests.console.tui.fakes import FakeSource
from tests.console.tui.pilots import press, running, settle, text, title


def event(
    number: int, ago: float, kind: str, about: str | None, message: str, severity: Any = "info"
) -> EventView:
    return EventView(
        id=number, at=at(ago), kind=kind, severity=severity, job=about, node=None, user=None,
        message=message,
    )  # fmt: skip


def test_what_the_trials_of_a_sweep_repeat_is_one_line_and_what_differs_is_not() -> None:
    jobs = {f"j{n}": job(n, tags={"sweep": "s1", "trial": str(n)}) for n in range(1, 9)}
    told = [event(n, 500 - n, "job.ended", f"j{n}", f"j{n} SUCCEEDED") for n in range(1, 9)]
    told.append(event(20, 400, "job.failed", "j3", "j3 failed: rank 0", "error"))
    told += [event(30 + n, 60, "node.drained", None, f"n{n} drained") for n in range(2)]
    newest = sorted(told, key=lambda one: -one["id"])
    found = fold(newest, jobs)
    assert [(one.event["id"], one.more) for one in found] == [(31, 0), (30, 0), (20, 0), (8, 7)]
    row = folded_row(found[-1], NOW, 100, UNICODE)
    assert "7 more since" in plain(row) and width(row) <= 100
    apart = [event(n, 9000 * (5 - n), "job.ended", "j1", "again") for n in range(5)]
    assert len(fold(apart[::-1], {})) == 5, "far apart is not a storm"


def test_the_longest_bare_word_is_what_the_control_plane_looks_for() -> None:
    assert needle("job:j1 ecc !placed uncorrected level:error") == "uncorrected"
    assert needle("!placed job:j1") == ""


async def test_a_search_and_the_end_of_the_list_reach_what_the_watch_does_not_have() -> None:
    source = FakeSource()
    first = min(int(key) for key in source.tables["events"])
    past = [event(n, 9_000_000 - n, "x.y", f"j{n}", f"old thing {n}") for n in range(-1200, first)]
    past[5]["message"] = "a rare needle was here"
    source.past = past
    async with running(source, start="events") as (pilot, app):
        assert "rare needle" not in text(app, "happenings")
        await press(pilot, "slash", *"needle", "enter")
        assert "a rare needle was here" in text(app, "happenings")
        assert "that is all" in title(app, "happenings")
        await press(pilot, "escape", "G")
        await settle(pilot)
        assert "old thing" in text(app, "happenings")
        assert "that is all" not in title(app, "happenings")
        before = len(text(app, "happenings").split("\n"))
        await press(pilot, "G")
        assert len(text(app, "happenings").split("\n")) > before


async def test_the_level_looks_back_too_and_folding_is_switched_off() -> None:
    source = FakeSource()
    for number in range(100, 105):
        source.tables["events"][str(number)] = event(number, 5, "job.state", "j1", "j1 again")
    source.past = [event(-3, 9_000_000, "x", None, "an old failure", "error")]
    async with running(source, start="events") as (pilot, app):
        assert "4 more since" in text(app, "happenings")
        await press(pilot, "z")
        assert text(app, "happenings").count("j1 again") == 5
        await press(pilot, "u", "u")
        assert "an old failure" in text(app, "happenings")
