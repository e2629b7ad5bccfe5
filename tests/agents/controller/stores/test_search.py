"""An expression of a user's can end its own process and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from itertools import count
from pathlib import Path

import psutil
import pytest

from agents.controller.stores import logread
from agents.controller.stores.logread import LogQuery, LogReader
from agents.controller.stores.logstore import Line, LogStore
from agents.controller.stores.search import Search, check
from jobs.base.errors import InvalidInput

YEARS = "(a+)+$"
VICTIM = "a" * 64 + "!"


@pytest.fixture(autouse=True)
def _no_process_is_left() -> Iterator[None]:
    before = {child.pid for child in psutil.Process().children()}
    yield
    assert not {child.pid for child in psutil.Process().children()} - before


def test_it_finds_what_re_finds() -> None:
    search = Search(r"loss=\d+|é\x00")
    assert search(["loss=1", "loss=", "xé\x00", ""]) == [0, 2]
    assert search([]) == []
    assert search(["a", "loss=2"]) == [1]
    search.close()


def test_an_expression_that_takes_years_is_refused_within_its_time() -> None:
    search = Search(YEARS, seconds=0.05)
    assert search(["aaa"]) == [0]
    with pytest.raises(InvalidInput, match="takes too long"):
        search([VICTIM])
    with pytest.raises(InvalidInput, match="takes too long"):
        search(["aaa"])
    search.close()


def test_after_close_nothing_is_found_and_nothing_is_started() -> None:
    search = Search("a")
    search.close()
    assert search(["a"]) == []
    search.close()


@pytest.mark.parametrize("pattern", ["(", "a{99999999999999999999}", "(?:" * 2000 + ")" * 2000])
def test_what_is_no_expression_is_refused(pattern: str) -> None:
    with pytest.raises(InvalidInput, match="not a regular expression"):
        check(pattern)


def test_the_tail_of_what_matches(tmp_path: Path) -> None:
    store = LogStore(tmp_path)
    store.append(1, 1, 0, 0, b"".join(b"%d\n" % number for number in range(2000)), [(0, 1.0)])
    with closing(LogReader(store, LogQuery(1, 1, grep="7$", tail=2))) as reader:
        assert [line["line"] for line in reader.read_on(final=True)] == ["1987", "1997"]
    store.close()


def test_who_leaves_ends_the_reading_of_a_log_without_matches(tmp_path: Path) -> None:
    class Endless(LogStore):
        def lines(
            self, job: int, attempt: int, rank: int, offset: int, *, final: bool
        ) -> Iterator[Line]:
            for number in count():
                if number == 5000:
                    reader.close()
                yield Line(attempt, rank, number, number + 1, 1.0, b"x")

    store = Endless(tmp_path)
    store.append(1, 1, 0, 0, b"x", [(0, 1.0)])
    reader = LogReader(store, LogQuery(1, 1, grep="never"))
    assert list(reader.read_on(final=True)) == []
    store.close()


def test_a_tail_of_very_long_lines_is_a_shorter_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logread, "_TAIL_CHARS", 10)
    store = LogStore(tmp_path)
    store.append(1, 1, 0, 0, b"12345\n67890\nabcde\n", [(0, 1.0)])
    lines = LogReader(store, LogQuery(1, 1, tail=3)).read_on(final=True)
    assert [line["line"] for line in lines] == ["67890", "abcde"]
    assert list(LogReader(store, LogQuery(1, 1, tail=0)).read_on(final=True)) == []
    store.close()
