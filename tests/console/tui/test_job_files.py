"""The Files pane of the Job screen: what the job wrote, its beginning, and copies of it."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path

import pytest
from textual.geometry import Offset

from console.client import Client
from console.tui.core.draw.glyphs import UNICODE
from console.tui.core.draw.lines import plain, width
from console.tui.core.jobs import files
from console.tui.source import LiveSource
from console.tui.widgets.rows import Rows
from jobs.base.errors import Unreachable
from tests.console.fake_controller import FakeController, Reply
from tests.console.tui.fake_files import file, written
from tests.console.tui.fake_views import NOW, at
from tests.console.tui.fakes import FakeClock, FakeSource
from tests.console.tui.pilots import press, running, screen_text, settle, text, title

ROOTS = {"output:/", "checkpoint:/", "work:/"}


def names(turned: set[str]) -> list[str]:
    return [entry.key for entry in files.entries(written(), turned)]


def test_folders_begin_folded_and_each_unfolds_alone() -> None:
    assert names(set()) == [
        "output:/", "output:/out/",
        "checkpoint:/", "checkpoint:/step-003000/", "checkpoint:/step-006000/",
        "work:/", "work:/plots/", "work:/config.yaml:n01",
    ]  # fmt: skip
    assert names(ROOTS) == ["output:/", "checkpoint:/", "work:/"]
    inside = names({"work:/plots/"})
    assert inside[-3:] == ["work:/plots/grad/", "work:/plots/loss.png:n01", "work:/config.yaml:n01"]


def test_what_is_in_a_folder_is_meant_by_it_and_each_path_once() -> None:
    known = {entry.key: entry for entry in files.entries(written(), {"work:/plots/"})}
    chosen = [known["work:/plots/"], known["work:/plots/loss.png:n01"]]
    assert [one["path"] for one in files.meant(chosen)] == ["plots/grad/norm.png", "plots/loss.png"]
    twice = [file("log.txt", 3, node="n01"), file("log.txt", 3, node="n02")]
    both = files.entries(twice, set())
    assert len(both) == 3, "of each node one"
    assert [one["node"] for one in files.meant(both)] == ["n01"]


@pytest.mark.parametrize("key", ["work:/plots/grad/norm.png:n01", "work:/plots/grad/", "work:/"])
def test_the_parent_of_an_entry_is_there(key: str) -> None:
    known = names({"work:/plots/", "work:/plots/grad/"})
    assert key in known and files.parent(key) in known


@pytest.mark.parametrize("cells", [24, 40, 72, 140])
@pytest.mark.parametrize("nodes", [False, True])
def test_a_line_fits_whatever_a_file_is_named(cells: int, nodes: bool) -> None:
    hostile = [file(f"a\x1b[2J/{'長' * 90}\u202e.txt", 10**15, name="x" * 99)]
    for entry in files.entries([*hostile, *written()], {"work:/a\x1b[2J/"}):
        drawn = files.entry_line(entry, NOW, cells, UNICODE, nodes=nodes)
        assert "\x1b" not in plain(drawn) and "\u202e" not in plain(drawn)
        assert width(drawn) <= max(cells, 47)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"one\ntwo\n", ["one", "two"]),
        (b"", ["The file is empty."]),
        (b"tab\there\r\n", ["tab here"]),
        ("ü".encode() * 3 + "ü".encode()[:1], ["üüü"]),
        (b"\x1b[31mred\n", ["\u241b[31mred"]),
    ],
)
def test_the_beginning_of_a_text(data: bytes, said: list[str]) -> None:
    one = file("x", len(data))
    assert [plain(row) for row in files.head_lines(one, data, 40, UNICODE)] == said


def test_a_long_text_is_cut_in_words_and_wrapped() -> None:
    rows = files.head_lines(file("x", 10**9), b"x" * 100, 40, UNICODE)
    assert [len(plain(row)) for row in rows[:3]] == [40, 40, 20]
    assert plain(rows[-1]) == "… the first 100B of 954M"


def test_what_is_no_text_is_shown_byte_by_byte() -> None:
    rows = [plain(row) for row in files.head_lines(file("x", 9000), b"PK\0\1" * 99, 80, UNICODE)]
    assert rows[0] == "Not text: 8.8K, of which the first 256 bytes"
    assert rows[2].startswith("0000  50 4b 00 01") and rows[2].endswith("PK..PK..PK..PK..")
    assert len(rows) == 2 + 16


async def test_the_pane_lists_unfolds_and_shows_a_file() -> None:
    source = FakeSource()
    async with running(source, start="j412") as (pilot, app):
        assert not [call for call in source.calls if call.startswith("files")], "nobody looked"
        await press(pilot, "F")
        assert "outputs  2 files" in text(app, "files")
        assert title(app, "files").endswith("[b]Files 9 · 13G[/b]")
        await press(pilot, "j", "l", "j", "j", "enter")
        shown = screen_text(app)
        assert "# Run 412" in shown and "␛]0;own title" in shown
        await press(pilot, "escape", "h", "h")
        assert app.screen.query_one("#files", Rows).cursor_key == "output:/out/"
        assert "report.md" not in text(app, "files")


async def test_a_click_picks_the_row_that_is_under_it_and_a_tab_by_its_name() -> None:
    async with running(start="j412") as (pilot, app):
        await press(pilot, "F")
        pane = app.screen.query_one("#files", Rows)
        await pilot.click(offset=Offset(5, pane.region.y + 3))
        assert pane.cursor_key == pane.keys[2]
        await pilot.click(offset=Offset(2, pane.region.y))
        await settle(pilot)
        assert pane.cursor_key == pane.keys[2] and not pane.display
        logs = app.screen.query_one("#logs")
        assert logs.has_focus
        at = screen_text(app).split("\n")[logs.region.y].index("Files")
        await pilot.click(offset=Offset(at, logs.region.y))
        await settle(pilot)
        assert pane.has_focus


async def test_tab_goes_past_the_files_where_they_would_take_the_place_of_the_logs() -> None:
    async with running(start="j412") as (pilot, app):
        await press(pilot, "tab")
        assert app.screen.query_one("#metrics").has_focus and app.screen.query_one("#logs").display
        await press(pilot, "F", "F")
        assert app.screen.query_one("#logs").has_focus
        await press(pilot, "F", "tab", "shift+tab")
        assert app.screen.query_one("#files").has_focus


async def test_the_list_is_read_again_while_the_job_runs_and_once_after_it() -> None:
    source, clock = FakeSource(), FakeClock()

    def asked() -> int:
        return source.calls.count("files j412")

    async with running(source, clock=clock, start="j412") as (pilot, app):
        await press(pilot, "F")
        assert asked() == 1
        clock.advance(11)
        await settle(pilot)
        assert asked() == 2
        ended = {**source.tables["job:j412"]["j412"], "state": "SUCCEEDED"}
        source.put("job:j412", "j412", ended)
        for _ in range(3):
            clock.advance(11)
            await settle(pilot)
        assert asked() == 3
        await press(pilot, "full_stop")
        assert source.calls[-1] == "files j412 everything" and "train.py" in text(app, "files")


async def test_empty_gone_and_unreadable_are_said() -> None:
    source = FakeSource()
    source.written = []
    async with running(source, start="j412") as (pilot, app):
        await press(pilot, "F")
        assert "Nothing has been written so far." in text(app, "files")
        source.refuse = Unreachable("the control plane is not running", "Start it with `qd up`.")
        await press(pilot, "R")
        assert "not running" in text(app, "files") and "qd up" in text(app, "files")
        source.refuse, source.written = None, [file("lost.txt", 9)]
        await press(pilot, "R", "j", "enter")
        assert "lost.txt is gone" in screen_text(app)


async def test_what_could_not_be_listed_stands_below() -> None:
    source = FakeSource()
    said = "n03 did not answer: its files are missing"
    listed = source.files
    source.files = lambda job, *, everything: {  # type: ignore[method-assign]
        **listed(job, everything=everything), "missing": [said]
    }  # fmt: skip
    async with running(source, start="j412") as (pilot, app):
        await press(pilot, "F")
        assert text(app, "files").split("\n")[-1].strip() == said
        await press(pilot, "G", "enter", "w")
        assert not source.pulled
        source.written = []
        await press(pilot, "R")
        assert said in " ".join(text(app, "files").split())


async def test_how_long_nodes_keep_files_stands_below_them() -> None:
    source = FakeSource()
    listed = source.files
    source.files = lambda job, *, everything: {  # type: ignore[method-assign]
        **listed(job, everything=everything), "until": at(-86_400 * 5)
    }  # fmt: skip
    async with running(source, start="j412") as (pilot, app):
        await press(pilot, "F")
        assert text(app, "files").split("\n")[-1].startswith(" Files on nodes are deleted after")
        assert "deleted" not in title(app, "files")


async def test_a_pull_copies_what_is_marked_with_progress_and_a_toast(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    source = FakeSource()
    source.hold = threading.Event()
    async with running(source, start="j412") as (pilot, app):
        await press(pilot, "F", "j", "space", "G", "space")
        assert "2 marked" in title(app, "files")
        await pilot.press("w")
        await pilot.pause(0.05)
        await pilot.press("w")  # once is enough
        await pilot.pause(0.05)
        app._tick()
        assert "copying 50% of 1.1K" in title(app, "files")
        source.hold.set()
        await settle(pilot)
        assert source.pulled == [
            (tmp_path / "j412", ["out/model.onnx", "out/report.md", "config.yaml"])
        ]
        assert "copying" not in title(app, "files") and "marked" not in title(app, "files")
        assert any(f"copied to {tmp_path}/j412/" in n.message for n in app._notifications)


async def test_a_copy_that_fails_says_why() -> None:
    source = FakeSource()
    async with running(source, start="j412") as (pilot, app):
        await press(pilot, "F")
        source.refuse = Unreachable("the control plane went away", "Pull again: it is resumed.")
        await press(pilot, "w")
        assert any("went away" in n.message for n in app._notifications)
        assert "copying" not in title(app, "files")


def test_the_live_source_reads_the_beginning_and_copies_without_a_word(
    home: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data, digest = b"x" * 50, hashlib.sha256(b"x" * 50).hexdigest()
    on_node, stored = file("a/b.txt", 50), {**file("c.txt", 50, node=None), "sha256": digest}
    moved: list[tuple[int, str]] = []
    with FakeController(home / "qd" / "run" / "api.sock") as fake:
        fake.on("GET /v1/jobs/j1/files/work/data", Reply(data[:9]))
        fake.on(f"GET /v1/blobs/{digest}", Reply(data))
        source = LiveSource(Client(fake.socket))
        assert source.file_head("j1", file("empty", 0), 9) == b"" and not fake.requests
        assert source.file_head("j1", on_node, 9) == data[:9]
        (asked,) = fake.requests
        assert [asked.one(name) for name in ("node", "file", "offset", "limit")] == [
            "n01", "a/b.txt", "0", "9",
        ]  # fmt: skip
        source.pull("j1", [stored], tmp_path, lambda *now: moved.append(now), print)  # type: ignore[list-item]
    assert (tmp_path / "c.txt").read_bytes() == data
    assert moved[-1] == (50, "c.txt")
    assert capfd.readouterr() == ("", ""), "a word of its own would tear the screen"
