"""What is on the screen as a file: SVG and text, of the screen, of a pane, of a page."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from textual.geometry import Region

from console import guest
from console.tui.core.draw.lines import plain
from console.tui.exporting import Picture, file_name
from console.tui.widgets.lines import LineView
from tests.console.tui.fakes import FakeSource
from tests.console.tui.pilots import press, running, screen_text


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def remove(folder: Path) -> None:
    folder.rmdir()


def words(svg: Path) -> str:
    return "".join(ElementTree.fromstring(svg.read_text()).itertext()).replace("\xa0", " ")


@pytest.mark.parametrize(
    ("parts", "name"),
    [
        (("j412", "metrics"), "qd-j412-metrics"),
        (("../../etc", ""), "qd-etc"),
        (("a b\x1b[2J", "ü"), "qd-a-b-2J"),
    ],
)
def test_names_of_files(parts: tuple[str, ...], name: str) -> None:
    assert file_name(*parts) == name


@pytest.mark.parametrize("size", [(80, 24), (120, 36)])
async def test_the_screen_is_written_as_it_is_seen(size: tuple[int, int], folder: Path) -> None:
    async with running(start="cluster", size=size) as (pilot, app):
        seen = [row.rstrip() for row in screen_text(app).split("\n")]
        await press(pilot, "W")
        assert f"Written to {folder}/qd-cluster.svg and qd-cluster.txt." in [
            note.message for note in app._notifications
        ]
    assert (folder / "qd-cluster.txt").read_text().split("\n")[:-1] == seen
    drawn = words(folder / "qd-cluster.svg")
    assert "Heat" in drawn and "n03" in drawn
    assert "url(http" not in (folder / "qd-cluster.svg").read_text(), "it calls home"


async def test_a_chart_is_written_alone_and_nothing_is_overwritten(folder: Path) -> None:
    async with running(start="j412") as (pilot, app):
        app.screen.query_one("#metrics").focus()
        await press(pilot, "w", "w")
        pane = app.screen.query_one("#metrics", LineView)
        first = plain(pane.line_at(0))
    written = (folder / "qd-j412-metrics.txt").read_text().split("\n")
    assert written[0].lstrip("─").startswith("Metrics") and written[1].rstrip() == first.rstrip()
    assert "Logs" not in "".join(written)
    assert names_in(folder) == {
        f"qd-j412-metrics{number}.{end}" for number in ("", "-2") for end in ("svg", "txt")
    }
    assert (folder / "qd-j412-metrics.svg").read_bytes() == (
        folder / "qd-j412-metrics-2.svg"
    ).read_bytes()


async def test_a_page_is_written_without_what_is_behind_it(folder: Path) -> None:
    async with running(start="data") as (pilot, _):
        await press(pilot, "j", "enter", "W")
    text = (folder / "qd-data-page.txt").read_text()
    assert "people@3" in text and "Cluster" not in text


async def test_a_folder_that_cannot_be_written_is_said(folder: Path) -> None:
    async with running(start="cluster") as (pilot, app):
        remove(folder)
        await press(pilot, "W")
        assert "cannot write" in " ".join(note.message for note in app._notifications)


async def test_a_guest_writes_no_file_of_the_gateway(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(guest.FOLDER, str(folder))
    async with running(FakeSource(), start="cluster") as (pilot, app):
        await press(pilot, "W", "w")
        assert [note.message for note in app._notifications] == [
            "Write the whole screen to a file, as SVG and as text: not offered through the gateway",
            "write: not offered through the gateway",
        ]  # fmt: skip
    assert not names_in(folder)


def test_a_region_is_cut_out_and_wide_letters_stay_whole() -> None:
    from rich.segment import Segment
    from rich.terminal_theme import DEFAULT_TERMINAL_THEME
    from textual.strip import Strip

    rows = [Strip([Segment(text)]) for text in ("abcdef", "a長長長", "      ")]
    picture = Picture.of(rows, Region(1, 0, 3, 3), "x", DEFAULT_TERMINAL_THEME)
    assert picture.text == "bcd\n長\n"
