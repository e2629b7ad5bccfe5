"""Rank logs as the controller keeps them, against an oracle that reads the whole file."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.controller.stores import logstore
from agents.controller.stores.logread import LogQuery, LogReader
from agents.controller.stores.logstore import MAX_LINE, LogStore
from jobs.base.errors import StorageFull
from tests.agents.controller.storage import ROOM, small_disk

RANK = (1, 1, 0)


@pytest.fixture
def store(tmp_path: Path) -> LogStore:
    return LogStore(tmp_path)


def add(store: LogStore, data: bytes, at: float = 1.0, rank: int = 0) -> None:
    """Append what comes next, first seen at `at`."""
    offset = store.size(1, 1, rank)
    store.append(1, 1, rank, offset, data, [(offset, at)])


def texts(store: LogStore, offset: int = 0, *, final: bool = True) -> list[bytes]:
    return [line.data for line in store.lines(*RANK, offset, final=final)]


def test_a_chunk_that_comes_twice_or_overlaps_counts_once(store: LogStore) -> None:
    assert store.append(*RANK, 0, b"one\ntwo\n", [(0, 1.0)]) == 8
    assert store.append(*RANK, 0, b"one\ntwo\n", [(0, 1.0)]) == 8
    assert store.append(*RANK, 4, b"two\nthree\n", [(4, 1.0), (8, 2.0)]) == 14
    assert store.append(*RANK, 0, b"on", [(0, 9.0)]) == 14
    assert store.path(*RANK).read_bytes() == b"one\ntwo\nthree\n"
    assert [line.at for line in store.lines(*RANK, 0, final=True)] == [1.0, 1.0, 2.0]


def test_a_gap_is_never_written(store: LogStore) -> None:
    store.append(*RANK, 0, b"one\n", [(0, 1.0)])
    assert store.append(*RANK, 5, b"three\n", [(5, 1.0)]) == 4
    assert store.path(*RANK).read_bytes() == b"one\n"


def test_a_torn_entry_of_the_times_is_cut_off(store: LogStore) -> None:
    add(store, b"one\n", at=1.0)
    with store.path(*RANK).with_suffix(".times").open("ab") as file:
        file.write(b"torn")
    assert [line.at for line in store.lines(*RANK, 0, final=True)] == [1.0]
    add(store, b"two\n", at=2.0)
    assert [line.at for line in store.lines(*RANK, 0, final=True)] == [1.0, 2.0]
    assert store.path(*RANK).with_suffix(".times").stat().st_size == 2 * 16


def test_a_log_without_times_still_reads(store: LogStore) -> None:
    add(store, b"one\n")
    store.path(*RANK).with_suffix(".times").unlink()
    assert [(line.data, line.at) for line in store.lines(*RANK, 0, final=True)] == [(b"one", 0.0)]
    assert list(store.lines(1, 1, 7, 0, final=True)) == [], "nor is a log that never was an error"


@pytest.mark.parametrize("extra", [-1, 0, 1])
def test_lines_around_the_longest(store: LogStore, extra: int) -> None:
    long = b"x" * (MAX_LINE + extra)
    add(store, long + b"\nnext\n")
    pieces = [long] if extra <= 0 else [long[:MAX_LINE], long[MAX_LINE:]]
    assert texts(store) == [*pieces, b"next"]


def test_a_line_without_an_end_is_told_at_the_end(store: LogStore) -> None:
    add(store, b"done\nhalf")
    assert texts(store, final=False) == [b"done"]
    assert texts(store, final=True) == [b"done", b"half"]


def test_times_find_where_something_began(store: LogStore) -> None:
    for number in range(100):
        add(store, b"line\n", at=float(number))
    assert store.offset_at(*RANK, -1.0) == 0
    assert store.offset_at(*RANK, 41.5) == 42 * 5
    assert store.offset_at(*RANK, 1000.0) == 500


def test_ranks_are_merged_by_time(store: LogStore) -> None:
    for at, rank in ((1.0, 0), (2.0, 1), (3.0, 0), (3.5, 1)):
        add(store, f"{at}\n".encode(), at=at, rank=rank)
    reader = LogReader(store, LogQuery(1, 1))
    assert [(d["rank"], d["line"]) for d in reader.read_on(final=False)] == [
        (0, "1.0"), (1, "2.0"), (0, "3.0"), (1, "3.5"),
    ]  # fmt: skip
    add(store, b"late\n", at=4.0, rank=1)
    assert [d["line"] for d in reader.read_on(final=False)] == ["late"], "only what is new"


def test_a_clock_that_steps_back_keeps_a_ranks_order(store: LogStore) -> None:
    add(store, b"a\n", at=10.0)
    add(store, b"b\n", at=5.0)
    add(store, b"other\n", at=7.0, rank=1)
    lines = [d["line"] for d in LogReader(store, LogQuery(1, 1)).read_on(final=True)]
    assert lines.index("a") < lines.index("b")


def test_the_tail_is_that_of_all_ranks_together(store: LogStore) -> None:
    for number in range(20):
        add(store, b"%d\n" % number, at=float(number), rank=number % 3)
    lines = LogReader(store, LogQuery(1, 1, tail=4)).read_on(final=True)
    assert [line["line"] for line in lines] == ["16", "17", "18", "19"]


def test_a_full_disk_keeps_what_fits_and_goes_on_later(tmp_path: Path) -> None:
    data = b"0123456789abcde\n" * (2 * ROOM // 16)
    with small_disk(tmp_path / "small") as disk:
        filler = disk / "filler"
        filler.write_bytes(bytes(ROOM // 2))
        store = LogStore(disk)
        with pytest.raises(StorageFull, match="No space left"):
            store.append(*RANK, 0, data, [(0, 1.0)])
        held = store.size(*RANK)
        assert 0 < held < ROOM
        filler.unlink()
        more = data[held : held + 1600]
        assert store.append(*RANK, held, more, [(held, 2.0)]) == held + 1600
        assert store.path(*RANK).read_bytes() == data[: held + 1600]


def test_a_log_is_durable_before_the_node_may_forget_it(
    store: LogStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the files as they are named: whoever synced another one would keep no promise."""
    add(store, b"one\n")
    synced: list[str] = []
    fsync = os.fsync

    def seen(handle: int) -> None:
        synced.append(Path(f"/proc/self/fd/{handle}").readlink().name)
        fsync(handle)

    monkeypatch.setattr(os, "fsync", seen)
    store.sync(*RANK)
    path = store.path(*RANK)
    assert {path.name, path.with_suffix(".times").name} <= set(synced)


def test_no_room_for_the_times_is_a_full_disk_too(
    store: LogStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(store, "_append_times", full)
        with pytest.raises(StorageFull):
            add(store, b"one\n")
    assert texts(store) == [b"one"], "what fits is kept"


@contextmanager
def a_store(chunks: list[bytes], read: int, longest: int) -> Iterator[LogStore]:
    """With small limits, so that short inputs cross them."""
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.object(logstore, "_READ", read),
        mock.patch.object(logstore, "MAX_LINE", longest),
    ):
        store = LogStore(Path(folder))
        for chunk in chunks:
            add(store, chunk)
        yield store


CHUNKS = st.lists(st.text("ab\n", max_size=12).map(str.encode), max_size=8)


@settings(max_examples=150, deadline=None)
@given(CHUNKS, st.integers(1, 9), st.integers(0, 12))
def test_tails_are_those_of_the_whole_file(chunks: list[bytes], read: int, count: int) -> None:
    data = b"".join(chunks)
    with a_store(chunks, read, 1000) as store:
        whole = data.split(b"\n")
        lines = whole[:-1] + ([whole[-1]] if whole[-1] else [])
        offset = store.tail_offset(*RANK, count)
        assert texts(store, offset) == lines[max(0, len(lines) - count) :]


@settings(max_examples=150, deadline=None)
@given(CHUNKS, st.integers(1, 9), st.integers(1, 7))
def test_lines_are_those_of_the_whole_file(chunks: list[bytes], read: int, longest: int) -> None:
    data = b"".join(chunks)
    expected = []
    whole = data.split(b"\n")
    for text in whole[:-1] + ([whole[-1]] if whole[-1] else []):
        while len(text) > longest:
            expected.append(text[:longest])
            text = text[longest:]
        expected.append(text)
    with a_store(chunks, read, longest) as store:
        found = list(store.lines(*RANK, 0, final=True))
        assert [line.data for line in found] == expected
        assert [line.offset for line in found[1:]] == [line.end for line in found[:-1]]
        for line in found:  # every line can be read from where it says it begins
            assert next(store.lines(*RANK, line.offset, final=True)).data == line.data
