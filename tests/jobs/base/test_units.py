from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.base.units import (
    MAX_DURATION,
    MAX_SIZE,
    format_duration,
    format_size,
    parse_duration,
    parse_size,
    show,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90), ("90", 90), (90, 90), (1.5, 1.5), ("2h", 7200), ("1h30m", 5400), ("1h 30m", 5400),
        ("500ms", 0.5), ("1.5h", 5400), ("1w1d1h1m1s1ms", 694_861.001), ("0", 0), (" 5s ", 5),
    ],
)  # fmt: skip
def test_durations_read_as_seconds(text: object, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text",
    ["", " ", "s", "-1s", "1x", "1m1h", "1s1s", "1h30", "1e3", "１s", True, None, -1, math.nan, math.inf,
     "11y", "99999999999999999999s", [], "1s\n;rm"],
)  # fmt: skip
def test_what_is_no_duration_is_refused_with_the_allowed_form(text: object) -> None:
    with pytest.raises(ValueError, match=r"^found .*; allowed: "):
        parse_duration(text)


def test_a_duration_of_centuries_is_refused() -> None:
    assert parse_duration(MAX_DURATION) == MAX_DURATION
    with pytest.raises(ValueError, match="at most ten years"):
        parse_duration("6000d")


@given(st.integers(min_value=0, max_value=int(MAX_DURATION * 1000)))
@settings(deadline=None)
def test_a_formatted_duration_reads_back(milliseconds: int) -> None:
    assert parse_duration(format_duration(milliseconds / 1000)) == milliseconds / 1000


@given(st.text(max_size=20) | st.integers() | st.floats() | st.none() | st.booleans())
@settings(deadline=None)
def test_parsers_answer_or_raise_a_value_error(value: object) -> None:
    for parse, limit in ((parse_duration, MAX_DURATION), (parse_size, MAX_SIZE)):
        try:
            result = parse(value)
        except ValueError as error:
            assert "allowed: " in str(error)
            assert str(error).isprintable()
        else:
            assert 0 <= result <= limit


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("8GiB", 8 * 2**30), ("8 gib", 8 * 2**30), ("8Gi", 8 * 2**30), ("500MB", 500_000_000),
        ("1kB", 1000), ("1B", 1), ("12", 12), (12, 12), ("0.5KiB", 512), ("1.1GiB", 1_181_116_006),
    ],
)  # fmt: skip
def test_sizes_read_as_bytes(text: object, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "GiB", "-1", -1, "1.5", 1.5, "8XiB", True, None, "9EiB", 2**63, "1 2"]
)
def test_what_is_no_size_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match=r"^found .*; allowed: "):
        parse_size(text)


def test_a_unit_that_tools_disagree_on_is_asked_for_in_full() -> None:
    with pytest.raises(
        ValueError, match=r"^found '8g', .*; allowed: 8GiB \(powers of 1024\) or 8GB"
    ):
        parse_size("8g")


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (500 * 2**20, "500 MiB"), (2**50, "1 PiB")],
)
def test_sizes_for_people(size: int, text: str) -> None:
    assert format_size(size) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "nothing"), (True, "true"), (-1.0, "-1"), (0.5, "0.5"), ("a\x1b[31m", r"'a\x1b[31m'"),
     ({}, "a mapping"), ([1], "a list"), (10**50, "a huge number"), (math.nan, "nan")],
)  # fmt: skip
def test_found_values_are_shown_harmlessly(value: object, text: str) -> None:
    assert show(value) == text


def test_a_long_value_is_cut() -> None:
    assert len(show("x" * 10_000)) == 60
