"""Values as they come in files and requests: one number for one value, and words for what is none."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from agents.node.worker.quarterdeck_serve.features.columns import Column, cast, find_bad


def test_the_same_number_from_csv_json_and_arrays() -> None:
    column = Column("km", "number")
    values = [0.1, 1e-310, 123456789.123456789, -0.0, 3.0]
    as_text = cast(column, [repr(value) for value in values], text=True)
    assert as_text.tobytes() == cast(column, values, text=False).tobytes()
    assert as_text.tobytes() == cast(column, np.array(values), text=False).tobytes()


@pytest.mark.parametrize(
    ("kind", "value", "why"),
    [
        ("number", "", "it is missing"),
        ("number", "1,5", "'1,5' is no number"),
        ("number", "nan", "it is missing"),
        ("number", "inf", "it is not finite"),
        ("integer", "1.0", "no whole number"),
        ("integer", "", "it is missing"),
        ("boolean", "yes", "true or false"),
        ("text", "", "it is missing"),
        ("time", "2026-01-01T10:00", "names no time zone"),
        ("time", "yesterday", "no time in ISO 8601"),
        ("time", "2026-01-01T10:00:00.1234567Z", "finer than a microsecond"),
    ],
)
def test_a_value_that_does_not_fit_is_said_in_words(kind: str, value: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        cast(Column("x", kind), [value], text=True)


@pytest.mark.parametrize(("kind", "value"), [("number", "1"), ("integer", 1.0), ("text", 1)])
def test_json_has_types(kind: str, value: Any) -> None:
    with pytest.raises(ValueError, match="wanted"):
        cast(Column("x", kind), [value], text=False)


def test_what_may_be_missing() -> None:
    assert np.isnan(cast(Column("x", "number", missing=True), [None], text=False)).all()
    assert np.isnan(cast(Column("x", "number", missing=True), [""], text=True)).all()
    assert cast(Column("x", "text", missing=True), [None], text=False).tolist() == [""]
    assert np.isnat(cast(Column("x", "time", missing=True), [""], text=True)).all()


def test_times_are_moments_whatever_their_zone() -> None:
    column = Column("at", "time", zone="Europe/Berlin")
    moment = datetime(2026, 7, 1, 10, 30, tzinfo=UTC)
    forms = ["2026-07-01T10:30Z", "2026-07-01 12:30:00+02:00", "2026-07-01T12:30:00", moment]
    assert set(cast(column, forms, text=False).tolist()) == {datetime(2026, 7, 1, 10, 30)}  # noqa: DTZ001


@pytest.mark.parametrize("text", ["2026-10-25T02:30", "2026-03-29T02:30"])
def test_a_time_that_is_two_moments_or_none_is_refused(text: str) -> None:
    column = Column("at", "time", zone="Europe/Berlin")
    with pytest.raises(ValueError, match="no certain time in Europe/Berlin"):
        cast(column, [text], text=True)
    assert cast(column, [f"{text}+01:00"], text=True).size == 1


def test_bad_rows_are_found_one_by_one() -> None:
    columns = [Column("a", "number"), Column("b", "integer")]
    bad = find_bad(columns, [["1", "x", "2"], ["1", "y", ""]], text=True)
    assert bad == {1: "'a': 'x' is no number", 2: "'b': it is missing"}
