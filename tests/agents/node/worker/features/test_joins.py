"""Point-in-time joins against a reference that looks at every row of the table."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.node.worker.quarterdeck_serve.features.joins import Known, taken

Row = tuple[str, bool, int]
"""A key of two columns, and a time."""

moments = st.one_of(st.integers(-6, 6), st.sampled_from([-(2**61), 2**61, 1_700_000_000_000_000]))
rows = st.lists(st.tuples(st.sampled_from("abc"), st.booleans(), moments), max_size=30)


def split(found: list[Row]) -> tuple[list[Any], Any]:
    texts = np.array([row[0] for row in found], np.object_)
    flags = np.array([row[1] for row in found], np.bool_)
    return [texts, flags], np.array([row[2] for row in found], "int64").astype("M8[us]")


def naive(table: list[Row], row: Row, tolerance: int | None) -> int:
    """The last of the newest rows with the same key that are not later, by looking at all of them."""
    best = -1
    for index, (text, flag, at) in enumerate(table):
        if (text, flag) != row[:2] or at > row[2]:
            continue
        if best < 0 or at >= table[best][2]:
            best = index
    if best >= 0 and tolerance is not None and row[2] - table[best][2] > tolerance:
        return -1
    return best


@settings(max_examples=400, deadline=None)
@given(table=rows, wanted=rows, tolerance=st.none() | st.integers(0, 8))
def test_each_row_gets_what_a_search_of_the_whole_table_finds(
    table: list[Row], wanted: list[Row], tolerance: int | None
) -> None:
    found = Known(*split(table), tolerance).find(*split(wanted)).tolist()
    assert found == [naive(table, row, tolerance) for row in wanted]


@settings(max_examples=200, deadline=None)
@given(table=rows, later=rows, row=st.tuples(st.sampled_from("abc"), st.booleans(), moments))
def test_nothing_that_comes_later_changes_what_a_row_sees(
    table: list[Row], later: list[Row], row: Row
) -> None:
    future = [one for one in later if one[2] > row[2]]
    alone = Known(*split(table)).find(*split([row])).tolist()
    assert Known(*split(table + future)).find(*split([row])).tolist() == alone


def test_of_rows_with_the_same_key_and_time_the_last_counts() -> None:
    known = Known([np.array(["a", "a", "a"], np.object_)], np.array([5, 5, 4], "M8[us]"))
    key = [np.array(["a"], np.object_)]
    assert known.find(key, np.array([5], "M8[us]")).tolist() == [1]
    assert known.find(key, np.array([4], "M8[us]")).tolist() == [2]
    assert known.find(key, np.array([3], "M8[us]")).tolist() == [-1]


def test_a_row_without_a_time_sees_nothing_and_no_key_is_one_group() -> None:
    known = Known([], np.array([1, 2], "M8[us]"))
    assert known.find([], np.array(["NaT", 1, 9], "M8[us]")).tolist() == [-1, 0, 1]


@pytest.mark.parametrize(
    ("column", "given_for_none"),
    [
        (np.array([1.5]), np.nan),
        (np.array(["x"], np.object_), ""),
        (np.array([0], "M8[us]"), "NaT"),
    ],
)
def test_what_stands_for_a_row_that_is_not_there(column: Any, given_for_none: Any) -> None:
    found = taken(column, np.array([-1, 0]))
    assert found[1] == column[0]
    assert str(found[0]) == str(given_for_none)
