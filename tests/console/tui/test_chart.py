"""Charts: nothing that happened may be decimated away."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from console.tui.core.draw.chart import (
    PERCENT,
    Sample,
    Scale,
    auto_scale,
    chart,
    columns,
    plot,
    strip,
)
from console.tui.core.draw.glyphs import ASCII, UNICODE
from console.tui.core.draw.lines import plain, width


def flat(count: int, value: float = 50.0) -> list[Sample]:
    return [Sample(float(i), value, value) for i in range(count)]


@given(st.integers(1, 5000), st.data())
def test_a_spike_survives_any_decimation(count: int, data: st.DataObject) -> None:
    samples = flat(count)
    at = data.draw(st.integers(0, count - 1))
    samples[at] = Sample(float(at), 50.0, 99.0)
    held = columns(samples, data.draw(st.integers(1, 300)), 0.0, float(count))
    assert max(column[1] for column in held if column) == 99.0
    assert min(column[0] for column in held if column) == 50.0


def test_short_gaps_are_bridged_and_long_ones_stay_open() -> None:
    samples = [s for s in flat(100) if not 40 <= s.x < 60]
    held = columns(samples, 100, 0.0, 100.0)
    assert held[50] is None
    sparse = columns(flat(100)[::4], 100, 0.0, 100.0)
    assert all(column is not None for column in sparse[:96])


def test_what_is_outside_or_not_a_number_is_left_out() -> None:
    samples = [Sample(-1, 1, 1), Sample(5, math.nan, math.nan), Sample(11, 1, 1)]
    assert columns(samples, 10, 0.0, 10.0) == [None] * 10
    assert columns(samples, 0, 0.0, 10.0) == []
    assert columns(samples, 4, 5.0, 5.0) == [None] * 4


def test_braille_of_a_known_line() -> None:
    held = [(0.0, 0.0), (33.0, 33.0), (66.0, 66.0), (100.0, 100.0)]
    assert plot(held, 1, PERCENT, UNICODE) == ["⡠⠊"]


def test_a_steep_edge_is_one_line() -> None:
    drawn = plot([(0.0, 0.0), (100.0, 100.0)], 4, PERCENT, UNICODE)
    assert all(row != " " for row in drawn)


def test_ascii_needs_no_unicode() -> None:
    drawn = chart(flat(10), 40, 5, PERCENT, ASCII, x0=0, x1=10)
    assert all(plain(one).isascii() for one in drawn)


@pytest.mark.parametrize(("cells", "rows"), [(20, 1), (80, 6), (200, 20)])
def test_a_chart_has_the_size_it_was_given(cells: int, rows: int) -> None:
    drawn = chart(flat(50), cells, rows, PERCENT, UNICODE, x0=0, x1=50)
    assert len(drawn) == rows
    assert all(width(one) <= cells for one in drawn)
    assert plain(drawn[0]).startswith("100")


def test_no_room_gives_no_chart() -> None:
    assert chart(flat(5), 5, 3, PERCENT, UNICODE, x0=0, x1=5) == []


def test_scales() -> None:
    assert auto_scale([]) == Scale(0.0, 1.0)
    assert auto_scale(flat(3, 5.0)) == Scale(4.5, 5.5)
    assert auto_scale(flat(3, 0.0)) == Scale(-1.0, 1.0)
    assert auto_scale([Sample(0, 1, 1), Sample(1, 3, 9)]) == Scale(1, 9)


def test_a_strip_shows_gaps_as_gaps() -> None:
    assert "".join(span.text for span in strip([0.0, None, 100.0], UNICODE)) == "▁ █"
