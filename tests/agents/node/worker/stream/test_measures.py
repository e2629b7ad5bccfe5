"""Scores on records before they are trained on, and drift of the errors."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest

from agents.node.worker.quarterdeck_stream.measures import RARE, Drift, Score, threshold


def test_accuracy_over_the_last_records() -> None:
    score = Score(None, 4)
    assert Score(None, 4).value is None
    for guess, truth in [(1, 2), (1, 2), (np.int64(3), 3), ("a", "a"), (True, True)]:
        score.add(guess, truth)
    assert (score.kind, score.value) == ("accuracy", 0.75)


def test_mean_absolute_error() -> None:
    score = Score(None, 10)
    assert score.add(np.float32(1.5), 1.0) == 0.5
    assert score.add(3, 1) == 2.0  # it stays of one kind
    assert (score.kind, score.value) == ("mae", 1.25)
    with pytest.raises(ValueError, match="not finite"):
        score.add(float("nan"), 1.0)


def test_both_continue_where_they_were() -> None:
    rng = random.Random(1)
    errors = [float(rng.random() < 0.2) for _ in range(3000)]
    whole, first = Drift(0.1, 1e6, RARE), Drift(0.1, 1e6, RARE)
    for error in errors:
        whole.add(error)
    for error in errors[:1700]:
        first.add(error)
    second = Drift(0.1, 1e6, RARE)
    second.restore(json.loads(json.dumps(first.state())))
    for error in errors[1700:]:
        second.add(error)
    assert second.state() == whole.state()
    score, other = Score("accuracy", 3), Score(None, 3)
    score.add(1, 1)
    other.restore(json.loads(json.dumps(score.state())))
    assert (other.kind, other.value) == ("accuracy", 1.0)


def delay(before: float, after: float, seed: int) -> int | None:
    rng, drift = random.Random(seed), Drift(0.1, 1e6, RARE)
    for _ in range(3000):
        assert not drift.add(float(rng.random() < before))
    for count in range(5000):
        if drift.add(float(rng.random() < after)):
            return count
    return None


@pytest.mark.parametrize(
    ("before", "after", "within"),
    [(0.1, 0.4, 200), (0.0, 1.0, 20), (0.0, 0.1, 300), (0.3, 0.5, 400)],
)
def test_errors_that_become_more_are_found(before: float, after: float, within: int) -> None:
    for seed in range(5):
        found = delay(before, after, seed)
        assert found is not None and found <= within


def test_errors_that_become_fewer_are_no_drift_and_one_outlier_is_none() -> None:
    rng, drift = random.Random(2), Drift(0.1, 1e6)
    for count in range(20_000):
        error = rng.expovariate(1.0) / (1 + count / 2000)
        assert not drift.add(1e9 if count == 10_000 else error)


def test_false_alarms_are_as_rare_as_asked() -> None:
    """With one in 20,000 records, 400,000 of them have 20; more than twice that is too many."""
    rng, drift = random.Random(3), Drift(0.1, 20_000, RARE)
    for _ in range(400_000):
        drift.add(float(rng.random() < 0.2))
    assert 2 <= drift.found <= 40
    assert threshold(0.05, 1e6) == pytest.approx(84, abs=2)
