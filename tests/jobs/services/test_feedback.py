"""What an answer is worth once the truth is known."""

from __future__ import annotations

import random
from typing import Any

import pytest

from jobs.services.feedback import Outcome, mean, outcome, wilson


def of(*values: Any) -> dict[str, Any]:
    return {"s": [1, len(values)], "d": list(values)}


@pytest.mark.parametrize(
    ("outputs", "truth", "found"),
    [
        ({"y": of(0.1, 0.7, 0.2)}, 1, Outcome(1, 1, None, None)),
        ({"y": of(0.1, 0.7, 0.2)}, 2, Outcome(1, 0, None, None)),
        ({"label": of("cat"), "p": of(0.2, 0.8)}, "cat", Outcome(1, 1, None, None)),
        ({"p": of(0.2, 0.8), "label": of(3)}, 3, Outcome(1, 1, None, None)),
        ({"y": of(2.5)}, 2, Outcome(1, None, 0.5, 0.25)),
        ({"y": of(2)}, 3.5, Outcome(1, None, 1.5, 2.25)),
        ({"y": of(0.9, 0.1, 0.2, 0.8)}, [0, 0], Outcome(2, 1, None, None)),
        ({"y": of(1.5, 2.0)}, [1, 2], Outcome(2, None, 0.5, 0.25)),
    ],
)
def test_answers_are_compared_with_the_truth(outputs: Any, truth: Any, found: Outcome) -> None:
    assert outcome(outputs, truth) == found


def test_what_is_meant_may_be_said() -> None:
    assert outcome({"y": of(3)}, 5, kind="number") == Outcome(1, None, 2.0, 4.0)
    outputs = {"a": of(1), "b": of(2)}
    assert outcome(outputs, 2, output="b") == Outcome(1, 1, None, None)


@pytest.mark.parametrize(
    ("outputs", "truth", "how", "says"),
    [
        ({"y": of(1)}, 1, {"output": "z"}, "no output 'z'; there are: y"),
        ({"y": {"s": [1], "d": None}}, 1, {}, "redacted, or too large"),
        ({"y": {"s": [1], "m": [1, 1, 1, 1]}}, 1, {}, "redacted, or too large"),
        ({"y": of(1, 2, 3)}, [1, 2], {}, "3 values for 2 truths"),
        ({"y": of("cat")}, 1, {"kind": "number"}, "not both numbers"),
        ({"y": of(1)}, [], {}, "empty list"),
    ],
)
def test_what_cannot_be_compared_says_why(outputs: Any, truth: Any, how: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        outcome(outputs, truth, **how)


def test_intervals_hold_what_they_promise() -> None:
    dice, held = random.Random(4), 0
    for _ in range(1000):
        found = wilson(sum(dice.random() < 0.9 for _ in range(60)), 60)
        held += found.low <= 0.9 <= found.high
    assert 920 <= held <= 980
    assert wilson(0, 10).low == 0
    assert wilson(10, 10).high == pytest.approx(1)
    found = mean(30.0, 100.0, 10)
    assert (found.value, round(found.high - found.low, 2)) == (3.0, 1.31)
