"""Columns of points hold what lines said, however odd the lines are."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.base.errors import Damaged
from jobs.metrics.points import Point, Points, by_rank, pack, parse_points


def lines(*points: object) -> bytes:
    return b"".join(json.dumps(point).encode() + b"\n" for point in points)


def line(name: object, step: object, at: object, value: object) -> dict[str, object]:
    return {"n": name, "s": step, "t": at, "v": value}


def test_points_come_in_the_order_of_their_lines() -> None:
    data = lines(line("a", 0, 1.5, 0.5), line("b", 0, 1.5, None), line("a", 1, 2, 3))
    points = parse_points(data)
    assert list(points) == [
        Point("a", 0, 1.5, 0.5), Point("b", 0, 1.5, None), Point("a", 1, 2.0, 3.0),
    ]  # fmt: skip
    assert [point.step for point in points.only("a")] == [0, 1]
    assert list(points.only("c")) == []
    assert points.newest() == {"a": Point("a", 1, 2.0, 3.0), "b": Point("b", 0, 1.5, None)}


@pytest.mark.parametrize(
    ("data", "kept"),
    [
        (b"", 0),
        (b"\n\n", 0),
        (b"1,2\n", 0),  # two items of a list, were it read as one
        (b"1\n2\n", 0),
        (lines(line("a", "7", 1, 1)), 1),  # a step in words
        (lines(line("a", 2**63, 1, 1)), 0),
        (lines(line("a", -(2**63), 1, 1)), 1),
        (lines(line(1, 1, 1, 1)), 1),  # its name becomes "1"
        (lines(line(["a"], 1, 1, 1)), 1),
        (lines(line("a", 1, math.inf, 1)), 0),
        (lines(line("a", 1, 1, "x")), 0),
        (lines(line("a", 1, 1, math.inf)), 1),
        (lines(line("a", 1, 1e308, 1), line("a", 2, 1e308, 1)), 2),  # their sum is no number
        (lines(line("a", 1, 1, 1e308), line("a", 2, 1, 1e308)), 2),
    ],
)
def test_what_is_no_point_is_skipped(data: bytes, kept: int) -> None:
    good = lines(line("good", 5, 1.0, 0.5))
    points = list(parse_points(data + good))
    assert len(points) == kept + 1
    assert points[-1] == Point("good", 5, 1.0, 0.5)
    assert not any(point.value is not None and math.isnan(point.value) for point in points)


@pytest.mark.parametrize("more", [[], [line("bad", "7", 1, 1)]])
def test_infinities_are_values(more: list[object]) -> None:
    """As the helper writes them, as Python writes them; all lines at once, or one by one."""
    data = lines(
        {**line("a", 0, 1, None), "x": "Infinity"},
        {**line("a", 1, 1, None), "x": "-Infinity"},
        {**line("a", 2, 1, None), "x": "NaN"},
        {**line("a", 3, 1, None), "x": ["odd"]},
        line("a", 4, 1, math.inf),
        line("a", 5, 1, math.nan),
        *more,
    )
    found = parse_points(data)
    values = [point.value for point in found.only("a")]
    assert values == [math.inf, -math.inf, None, None, math.inf, None]
    again = Points.from_bytes(found.names, found.to_bytes())
    assert [point.value for point in again.only("a")] == values


def test_points_of_processes_inside_a_rank_are_apart() -> None:
    def of(child: object, step: int) -> dict[str, object]:
        return {**line("loss", step, 1, 0.5), "c": child}

    data = lines(of(3, 0), line("loss", 1, 1, 0.5), of(1, 2), of(3, 3))
    odd = lines(of("1", 4), of(-1, 5), of(2**40, 6), [1], line('a "c": 9', 7, 1, 1)) + b'"c":\n'
    found = {
        rank: [point.step for point in points] for rank, points in by_rank(data + odd, 2).items()
    }
    assert found == {1: [2], 2: [1, 4, 5, 6, 7], 3: [0, 3]}


def test_a_long_name_is_cut() -> None:
    (point,) = parse_points(lines(line("x" * 300, 1, 1, 1)))
    assert point.name == "x" * 200


@pytest.mark.parametrize("odd", ["\x1b", "\x9b", "\0", "\n", "\u202e"])
@pytest.mark.parametrize("more", [[], [line("bad", "7", 1, 1)]])
def test_a_name_holds_nothing_that_a_terminal_acts_on(odd: str, more: list[bytes]) -> None:
    """Written past the helper; all lines at once, or one by one."""
    first, *_ = parse_points(lines(line(f"l{odd}[2J ß", 1, 1, 1), *more))
    assert first.name == "l\ufffd[2J ß"


numbers = st.floats(allow_nan=False, allow_infinity=False)


@given(
    st.lists(
        st.builds(
            Point,
            st.sampled_from(["loss", "acc", "\u00fc"]),
            st.integers(-(2**63), 2**63 - 1),
            numbers,
            st.none() | numbers,
        )
    )
)
def test_bytes_and_lines_hold_any_points(points: list[Point]) -> None:
    packed = pack(points)
    assert list(packed) == points
    stored = packed.to_bytes()
    assert list(Points.from_bytes(packed.names, stored)) == points
    assert list(Points.from_bytes(packed.names, stored[1:])) == points, "as an older version stored"
    if points:
        with pytest.raises(Damaged, match="does not know"):
            Points.from_bytes(packed.names, b"\x02" + stored[1:])
    data = lines(*(line(p.name, p.step, p.at, p.value) for p in points))
    assert list(parse_points(data)) == points
