"""Looking through all that the ranks wrote, however long before."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from console.tui.core.base import whole
from console.tui.core.base.whole import Spot
from console.tui.core.draw.format import moment
from jobs.base.times import rfc3339
from jobs.wire.views import LogLine
from tests.console.tui.fake_views import NOW
from tests.console.tui.fakes import FakeSource
from tests.console.tui.pilots import press, running, screen_text, settle, text, title


def written(count: int, every: float = 1.0) -> list[LogLine]:
    """Lines of three ranks in turn; line 7 and line 4000 have a needle in them."""
    out: list[LogLine] = []
    offsets = [0, 0, 0]
    for number in range(count):
        rank = number % 3
        said = f"line {number}" + (" Needle" if number in (7, 4000) else "")
        when = rfc3339(NOW - 9000 + number * every)
        start = offsets[rank]
        out.append({"attempt": 1, "rank": rank, "offset": start, "at": when, "line": said})
        offsets[rank] += len(said) + 1
    return out


class Stream:
    def __init__(self, lines: Iterator[LogLine]) -> None:
        self._lines = lines
        self.closed = False

    def __iter__(self) -> Stream:
        return self

    def __next__(self) -> Any:
        return next(self._lines)

    def close(self) -> None:
        self.closed = True


class Reads:
    """A log, and how it was read."""

    def __init__(self, lines: list[LogLine]) -> None:
        self.lines = lines
        self.streams: list[Stream] = []
        self.passed = 0

    def __call__(self, since: float | None, grep: str | None) -> Stream:
        def matching() -> Iterator[LogLine]:
            for one in self.lines:
                if since is not None and (moment(one["at"]) or 0) < since:
                    continue
                if grep is None or re.search(grep, one["line"]):
                    self.passed += 1
                    yield one

        self.streams.append(Stream(matching()))
        return self.streams[-1]


@pytest.mark.parametrize(
    ("start", "backwards", "found"),
    [(5000, True, 4000), (4000, True, 7), (7, True, 4000), (7, False, 4000), (4000, False, 7)],
)
def test_it_finds_the_next_one_either_way_and_goes_round(
    start: int, backwards: bool, found: int
) -> None:
    reads = Reads(written(6000))
    here = whole.spot(reads.lines[start])
    spot = whole.find(reads, "needle", here, backwards=backwards)
    assert spot == whole.spot(reads.lines[found])
    assert all(stream.closed for stream in reads.streams)
    assert whole.find(reads, "absent", here, backwards=backwards) is None


def test_what_is_looked_for_is_no_expression() -> None:
    reads = Reads(written(20))
    assert whole.find(reads, "line .", Spot(NOW, 0, 0), backwards=True) is None


def test_a_stretch_has_what_came_before_and_after() -> None:
    reads = Reads(written(6000))
    spot = whole.spot(reads.lines[4000])
    stretch = whole.around(reads, spot.at, spot)
    assert stretch is not None
    assert stretch.lines[stretch.index]["line"] == "line 4000 Needle"
    assert stretch.index == 5  # five seconds, a line each
    assert stretch.lines[-1]["line"] == "line 5999"
    assert whole.around(reads, NOW + 9000) is None


def test_many_lines_in_one_moment_are_not_passed_over_for_ever() -> None:
    reads = Reads(written(60_000, every=0.0))
    spot = whole.spot(reads.lines[-1])
    stretch = whole.around(reads, spot.at, spot)
    assert stretch is not None
    assert stretch.lines[-1] == reads.lines[-1]
    assert len(stretch.lines) <= whole.BEFORE + 1


def test_earlier_lines_are_found_across_an_hour_of_silence() -> None:
    lines = written(10) + [
        {**one, "at": rfc3339(NOW), "offset": one["offset"] + 1000} for one in written(10)
    ]
    spot = whole.spot(lines[10])
    stretch = whole.around(Reads(lines), spot.at, spot, earlier=True)
    assert stretch is not None
    assert stretch.index == 10
    first = whole.around(Reads(lines), whole.spot(lines[0]).at, whole.spot(lines[0]), earlier=True)
    assert first is not None
    assert first.index == 0


async def test_find_in_all_ranks_reaches_lines_that_are_not_held() -> None:
    source = FakeSource()
    source.whole = written(6000)
    async with running(source, start="j412") as (pilot, app):
        await press(pilot, "slash", *"needle", "enter")
        await settle(pilot)
        assert "line 4000 Needle" in screen_text(app)
        assert "G follows" in title(app, "logs")
        assert "at 12:50:00, G follows" in title(app, "logs")
        await press(pilot, "N")
        await settle(pilot)
        assert "line 7 Needle" in screen_text(app)
        await press(pilot, "n")
        await settle(pilot)
        assert "line 4000 Needle" in screen_text(app)
        await press(pilot, "slash", *"absent", "enter")
        await settle(pilot)
        assert "'absent' is nowhere in the logs" in screen_text(app)
        await press(pilot, "G")
        await settle(pilot)
        assert "step 9011" in screen_text(app)
        assert "follow" in title(app, "logs")


async def test_scrolling_on_reads_what_comes_before_and_after() -> None:
    source = FakeSource()
    source.whole = written(6000)
    async with running(source, start="j412") as (pilot, app):
        await press(pilot, "slash", *"needle", "enter")
        await settle(pilot)
        await press(pilot, "g")
        await settle(pilot)
        assert text(app, "logs").splitlines()[0].split()[1:] < ["line", "3995"]
        logs = app.screen.query_one("#logs")
        logs.scroll_to(y=logs.max_scroll_y, animate=False, force=True)
        await settle(pilot)
        assert "line 5999" in text(app, "logs")
