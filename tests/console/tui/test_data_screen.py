"""The Data screen: data sets, their versions, what is in one, and what differs between two."""

from __future__ import annotations

from typing import Any

import pytest

from console.tui.core.base.order import Order
from console.tui.core.data import detail
from console.tui.core.data import list as data
from console.tui.core.draw.glyphs import ASCII, UNICODE
from console.tui.core.draw.lines import plain, width
from console.tui.widgets.rows import Rows
from jobs.base.errors import Unreachable
from tests.console.tui import fake_data
from tests.console.tui.fakes import FakeClock, FakeSource
from tests.console.tui.pilots import press, running, screen_text, settle, text


def known(*unfolded: str) -> dict[str, data.Row]:
    source = FakeSource()
    older = {name: source.data_versions(name) for name in unfolded}
    return {row.id: row for row in data.in_rows(source.data(), older)}


def test_older_versions_stay_below_their_newest_in_every_order() -> None:
    held = known("people")
    assert data.rows(held, data.data_filter("")) == ["digits@1", "people@3", "people@2", "people@1"]
    largest = Order("size", descending=True)
    assert data.rows(held, data.data_filter(""), largest)[0] == "digits@1"
    smallest = data.rows(held, data.data_filter(""), Order("size"))
    assert smallest == ["people@3", "people@2", "people@1", "digits@1"]


@pytest.mark.parametrize(
    ("typed", "found"),
    [
        ("name:dig", {"digits@1"}),
        ("rows>1000", {"people@3"}),
        ("versions>1", {"people@3"}),
        ("!june", {"digits@1"}),
        ("duplicates", set()),  # said of a version that is folded
        ("user:nobody", set()),
    ],
)
def test_the_filter(typed: str, found: set[str]) -> None:
    assert set(data.rows(known(), data.data_filter(typed))) == found


def test_an_older_version_that_matches_is_found_where_it_is_unfolded() -> None:
    assert "people@2" in data.rows(known("people"), data.data_filter("duplicates"))


def test_which_two_are_compared() -> None:
    held = known("people")
    assert data.before([held["people@3"], held["people@1"]], held) == ("people@1", "people@3")
    assert data.before([held["people@3"]], held) == ("people@2", "people@3")
    assert "first version" in data.before([held["digits@1"]], held)
    assert "Mark two" in data.before(list(held.values()), held)
    assert "Mark two" in data.before([], held)


@pytest.mark.parametrize("cells", [60, 68, 104])
@pytest.mark.parametrize("glyphs", [UNICODE, ASCII], ids=["unicode", "ascii"])
def test_pages_fit_whatever_columns_are_named(cells: int, glyphs: Any) -> None:
    newest, older = fake_data.versions()[:2]
    assert newest["profile"] is not None
    hostile = {**newest["profile"]["tables"][0], "file": "\x1b[2J長" * 40}
    hostile["columns"] = [
        fake_data.number("\x1b]0;x\x07" + "長" * 60, [0] * 9 + [1], -1e300, 1e300),
        fake_data.words("w", "\x1b[31m" * 30, "\u202e"),
        {"name": "bare", "type": "number", "missing": 0, "distinct": 0},
    ]
    one: Any = {**newest, "note": "\x1b[2J" * 90, "profile": {"tables": [hostile], "more": 3}}
    files = [{"path": "\x1b[2J" + "長" * 99, "bytes": 1, "sha256": "1" * 64, "link": None}]
    pages = [
        detail.detail_lines(one, fake_data.runs(), 3, True, cells, glyphs),
        detail.diff_lines((older, one), ([], files), cells, glyphs),  # type: ignore[arg-type]
    ]
    for row in (row for page in pages for row in page):
        assert "\x1b" not in plain(row) and "\u202e" not in plain(row)
    assert [plain(row) for row in pages[0] if width(row) > cells] == []


def test_a_histogram_shows_what_is_there_and_nothing_else() -> None:
    view = fake_data.number("x", [0, 1, 50, 100, 0], 0, 1)
    assert detail.histogram(view, UNICODE) == " ▁▄█ "
    assert detail.histogram({"name": "x", "type": "text", "top": ["a", "b"]}, UNICODE) == "a, b"
    assert detail.histogram({"name": "x", "type": "number"}, UNICODE) == ""


def test_equal_versions_are_said_to_be_equal() -> None:
    newest = fake_data.versions()[0]
    files = fake_data.files("people@3")
    told = [plain(row) for row in detail.diff_lines((newest, newest), (files, files), 80, UNICODE)]
    assert told[-1] == "They have the same content."


async def test_versions_unfold_below_and_fold_again() -> None:
    source = FakeSource()
    async with running(source, start="data") as (pilot, app):
        assert "2 data sets" in text(app, "head") and "people@1" not in text(app, "table")
        await press(pilot, "j", "l")
        rows = app.screen.query_one(Rows)
        assert list(rows.keys) == ["digits@1", "people@3", "people@2", "people@1"]
        assert "2 data sets" in text(app, "head"), "versions are no data sets"
        await press(pilot, "j", "j", "h", "h")
        assert list(rows.keys) == ["digits@1", "people@3"] and rows.cursor_key == "people@3"


async def test_enter_shows_a_version_and_o_opens_a_run_that_read_it() -> None:
    async with running(start="data") as (pilot, app):
        await press(pilot, "j", "enter")
        page = text(app, "page")
        assert "train-census as train" in page and "1,500 rows, 4 columns" in page
        assert "broken.csv: line 12" in page
        await press(pilot, "o")
        assert app.place == "j431"


async def test_where_runs_were_looked_for_is_said() -> None:
    source = FakeSource()
    source.more_runs = "j1"
    async with running(source, start="data") as (pilot, app):
        await press(pilot, "enter")
        assert "None of the newest 3." in text(app, "page")
        assert "No table in it was profiled." in text(app, "page")


async def test_marked_versions_are_compared() -> None:
    async with running(start="data") as (pilot, app):
        await press(pilot, "j", "l", "space", "j", "space", "C")
        page = text(app, "page")
        assert page.startswith("people@1") and "- old.csv" in page
        await press(pilot, "escape", "escape", "g", "C")
        assert "first version" in screen_text(app)


async def test_a_failed_answer_keeps_the_list_and_says_so() -> None:
    source, clock = FakeSource(), FakeClock()
    async with running(source, clock=clock, start="data") as (pilot, app):
        source.down = Unreachable("the control plane is not running", "Start it with `qd up`.")
        clock.advance(6)
        await settle(pilot)
        assert "people@3" in text(app, "table") and "not read again" in text(app, "head")
        await press(pilot, "j", "enter")
        assert "people@3: the control plane is not running" in screen_text(app)


async def test_an_empty_list_teaches() -> None:
    async with running(FakeSource(empty=True), start="data") as (_, app):
        assert "qd data add NAME PATH" in text(app, "table")
