from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from console.cli.format import count, elapsed, number, seconds, since, size, span
from console.cli.ids import run_path, target
from console.cli.output import Column, table
from console.text import width
from jobs.base.errors import InvalidInput
from jobs.base.times import parse_time


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (-1, "0.0s"),
        (3.21, "3.2s"),
        (9.94, "9.9s"),
        (9.96, "10s"),
        (59.6, "1m00s"),
        (192, "3m12s"),
        (3599.6, "1h00m"),
        (7440, "2h04m"),
        (86400 * 5 + 3 * 3600, "5d03h"),
    ],
)
def test_span(value: float, text: str) -> None:
    assert span(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (0, "0B"), (999, "999B"), (1000, "0.977KiB"), (80 << 30, "80GiB")],
)
def test_size(value: int | None, text: str) -> None:
    assert size(value) == text


def test_numbers() -> None:
    assert (number(None), number(0.97512345), number(3.0)) == ("nan", "0.975123", "3")
    assert (count(2.0), count(0.5)) == ("2", "0.5")


def test_elapsed() -> None:
    start, end = "2026-01-01T00:00:00.000Z", "2026-01-01T00:00:30.000Z"
    assert elapsed(None, None, 0) == "-"
    assert elapsed(start, end, 0) == "30s"
    assert elapsed(start, None, parse_time(start) + 90) == "1m30s"


NOW = parse_time("2026-03-01T12:00:00Z")


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("10m", "2026-03-01T11:50:00.000Z"),
        ("1h30m", "2026-03-01T10:30:00.000Z"),
        ("2026-02-28T23:00:00Z", "2026-02-28T23:00:00.000Z"),
        ("2026-02-28T23:00:00+02:00", "2026-02-28T21:00:00.000Z"),
    ],
)
def test_since(text: str, moment: str) -> None:
    assert since(text, NOW) == moment


def test_since_a_time_of_day_is_the_readers(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert since("9:05", NOW) == "2026-03-01T00:05:00.000Z"
        assert since("2026-03-01", NOW) == "2026-02-28T15:00:00.000Z"
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize("text", ["", "soon", "25:00", "2026-13-01", "-5m"])
def test_since_nonsense(text: str) -> None:
    with pytest.raises(InvalidInput, match="is not a time"):
        since(text, NOW)


def test_seconds_names_the_option() -> None:
    assert seconds("1h30m", "--timeout") == 5400
    with pytest.raises(InvalidInput, match="--timeout: "):
        seconds("soon", "--timeout")


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("j1", "/v1/jobs/j1"),
        (" 12 ", "/v1/jobs/j12"),
        ("j1.2", "/v1/jobs/j1.2"),
        ("last", "/v1/jobs/last"),
        ("../nodes", "/v1/jobs/..%2Fnodes"),
        ("a?b#c", "/v1/jobs/a%3Fb%23c"),
    ],
)
def test_paths(text: str, path: str) -> None:
    assert run_path(text) == path


def test_targets() -> None:
    found = target("j3.2/r7")
    assert (found.job, found.attempt, found.rank) == ("j3", 2, 7)
    for text in ("", "j1.", "j1/r0", "j1.2/r"):
        with pytest.raises(InvalidInput):
            target(text)


COLUMNS = [Column("A"), Column("B", right=True), Column("C", flex=True)]


def test_a_table_is_aligned_by_display_width() -> None:
    lines = table(COLUMNS, [["x", "1", "日本"], ["yyy", "10", "e\u0301"]], None)
    assert lines == ["A     B  C", "x     1  日本", "yyy  10  e\u0301"]


cells = st.text(st.characters(blacklist_categories=["Cs"]), max_size=30)


@given(st.lists(st.tuples(cells, cells, cells).map(list), max_size=5), st.integers(1, 60))
def test_a_table_never_leaves_its_room(rows: list[list[str]], room: int) -> None:
    lines = table(COLUMNS, rows, room)
    assert len(lines) == len(rows) + 1
    assert all(width(line) <= room for line in lines)
