"""Constraints: what is read, what it computes, and what a sweep says of a bad one."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.base.errors import InvalidInput
from jobs.sweeps.constraints import parse
from jobs.sweeps.spec import SweepSpec

BASE = {
    "job": {"command": "true"},
    "space": {
        "width": {"choices": [32, 64]},
        "layers": {"low": 1, "high": 8},
        "kind": {"choices": ["a", "b"]},
        "momentum": {"low": 0.0, "high": 0.9, "when": {"kind": "a"}},
    },
    "objective": {"metric": "loss", "goal": "minimize"},
    "trials": 3,
}


@pytest.mark.parametrize(
    ("text", "values", "excess"),
    [
        ("a <= 5", {"a": 7}, 2.0),
        ("a >= 5", {"a": 7}, -2.0),
        ("2 * (a + b) ** 2 / 4 - 1 <= -b", {"a": 1, "b": 1}, 2.0),
        ("a <= 5", {}, 0.0),  # it does not apply
        ("1 / a <= 5", {"a": 0}, math.inf),
        ("9 ** a <= 5", {"a": 9999}, math.inf),
        ("(-a) ** 0.5 <= 5", {"a": 1}, math.inf),  # a complex number
    ],
)
def test_what_exceeds_by_how_much(text: str, values: dict[str, float], excess: float) -> None:
    found = parse(text).excess(values)
    assert math.isfinite(found)  # JSON has no infinity
    assert found == (excess if math.isfinite(excess) else pytest.approx(1.797e308, rel=1e-3))


@pytest.mark.parametrize(
    "text",
    ["a", "a <= ", "a < 5", "a == 5", "1 <= 2", "a <= b <= c", "a.b <= 1", "f(a) <= 1", "a <= True",
     "a <= '5'", "[a] <= 1", "a if b else c <= 1", "(x := 3) <= a", "not a <= 1", "a" * 300 + " <= 1",
     "__import__('os').system('true') <= a", "(" * 90 + "a" + ")" * 90 + " <= 1 <= 2"],
)  # fmt: skip
def test_nothing_else_is_read(text: str) -> None:
    with pytest.raises(ValueError, match=r"found|characters"):
        parse(text)


@given(st.text(max_size=60))
def test_any_text_is_a_constraint_or_refused(text: str) -> None:
    try:
        found = parse(text)
    except ValueError:
        return
    assert math.isfinite(found.excess(dict.fromkeys(found.names, 1.0)))


def test_parameters_bound_points_and_metrics_bound_results() -> None:
    spec = SweepSpec.from_json(
        BASE | {"constraints": ["width * layers <= 128", "latency <= 2 * layers"]}
    )
    assert spec.admits({"width": 64, "layers": 2, "kind": "b"})
    assert not spec.admits({"width": 64, "layers": 3, "kind": "b"})
    assert spec.needed == ("loss", "latency")
    assert spec.excesses({"layers": 2}, {"loss": 1.0}) is None
    assert spec.excesses({"layers": 2}, {"loss": 1.0, "latency": 5.0}) == {
        "latency <= 2 * layers": 1.0
    }
    conditional = SweepSpec.from_json(BASE | {"constraints": "momentum <= 0.5"})
    assert conditional.admits({"kind": "b", "width": 32, "layers": 1})


def test_a_grid_leaves_out_what_it_may_not_try() -> None:
    grid = {name: item for name, item in BASE["space"].items() if name != "momentum"}  # type: ignore[attr-defined]
    spec = SweepSpec.from_json(
        BASE
        | {"space": grid, "sampler": "grid", "trials": None, "constraints": "width * layers <= 64"}
    )
    assert spec.limit == (2 + 1) * 2
    with pytest.raises(InvalidInput, match="no point of the grid is left"):
        SweepSpec.from_json(spec.to_json() | {"constraints": ["width <= 1"]})


@pytest.mark.parametrize(
    ("constraint", "told"),
    [
        ("width < 64", "sweep.constraints[0]: found 'width < 64'; allowed: one comparison"),
        ("sin(width) <= 1", "found 'sin(width)' in 'sin(width) <= 1'; allowed: names, numbers"),
        ("3 <= 4", "names no parameter and no metric"),
        ("kind <= 4", "kind has choices that are no numbers"),
    ],
)
def test_a_bad_one_is_told(constraint: str, told: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        SweepSpec.from_json(BASE | {"constraints": [constraint]})
    assert told in caught.value.message


def test_an_enqueued_point_keeps_to_them() -> None:
    with pytest.raises(InvalidInput, match=r"enqueue\[0\]: it breaks a constraint"):
        SweepSpec.from_json(BASE | {"constraints": "layers <= 2", "enqueue": [{"layers": 3}]})
