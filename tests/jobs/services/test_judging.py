"""What truths tell a rollout, and how often they do so wrongly."""

from __future__ import annotations

import random

import pytest

from jobs.services.evidence import Counts
from jobs.services.feedback import Outcome
from jobs.services.judging import ENOUGH, Truth, learnt
from jobs.services.rollout import Deployed, Deployment, Learnt, Plan, Ready, handle

RUNS = 300


def canary(alpha: float = 0.05) -> Deployment:
    deployment = Deployment(1, "digits", "production")
    plan = Plan(steps=(50,), rest=1e9, alpha=alpha)
    for event in (
        Deployed(1, "d:1", 1, Plan(), "ann"),
        Ready(1),
        Deployed(2, "d:2", 1, plan, "ann"),
    ):
        deployment = handle(deployment, event, 100.0).deployment
    return handle(deployment, Ready(2), 110.0).deployment


def label(version: str, right: bool, at: float = 200.0) -> Truth:
    return Truth("r", version, at, Outcome(1, int(right), None, None))


def number(version: str, error: float, rows: int = 1) -> Truth:
    return Truth("r", version, 200.0, Outcome(rows, None, error * rows, error * error * rows))


def test_rows_of_both_versions_count_from_when_the_rollout_began() -> None:
    truths = [
        label("d:1", True),
        label("d:1", False),
        label("d:2", False),
        label("d:2", True, at=99.0),
        label("d:0", False),
    ]
    assert learnt(canary(), truths) == Learnt(2, Counts(2, 1), Counts(1, 1))
    several = Truth("r", "d:2", 200.0, Outcome(4, 3, None, None))
    assert learnt(canary(), [several]) == Learnt(2, Counts(), Counts(4, 1))


def test_nothing_is_learnt_without_a_rollout_or_of_the_same_version() -> None:
    over = handle(canary(), Learnt(2, Counts(500, 5), Counts(50, 50)), 300.0).deployment
    assert not over.busy and learnt(over, [label("d:2", False)]) is None
    assert learnt(canary(), [label("d:7", False)]) is None and learnt(canary(), []) is None


def test_the_limit_for_numbers_is_fixed_before_it_measures_anything() -> None:
    few = [number("d:1", 0.1)] * (ENOUGH - 1)
    assert learnt(canary(), few) is None
    first = learnt(canary(), [number("d:1", n / 10) for n in range(21)] + [number("d:2", 9.0)])
    assert first == Learnt(2, far=1.0), "what fixes it is not counted"
    fixed = handle(canary(), first, 300.0).deployment
    then = learnt(
        fixed, [number("d:1", 0.5), number("d:2", 1.5, rows=3), number("d:2", float("nan"))]
    )
    assert then == Learnt(2, Counts(1, 0), Counts(2, 2))


@pytest.mark.parametrize("kind", ["class", "number"])
def test_a_version_that_is_as_good_is_seldom_rolled_back(kind: str) -> None:
    """Under a look after every ten truths; the rate that is promised is 5 % for three tests together."""
    dice, wrong = random.Random(4), 0
    for _ in range(RUNS):
        deployment = canary()
        for _ in range(60):
            some = [
                label(dice.choice(["d:1", "d:2"]), dice.random() > 0.2)
                if kind == "class"
                else number(dice.choice(["d:1", "d:2"]), dice.expovariate(1.0))
                for _ in range(40 if kind == "number" else 10)
            ]
            event = learnt(deployment, some)
            if event is not None:
                deployment = handle(deployment, event, 300.0).deployment
        wrong += not deployment.busy
    assert wrong <= RUNS * 0.05


def test_one_that_is_worse_is_found() -> None:
    dice, deployment, truths = random.Random(5), canary(), 0
    while deployment.busy and truths < 2000:
        version = dice.choice(["d:1", "d:2"])
        right = dice.random() > (0.1 if version == "d:1" else 0.3)
        event = learnt(deployment, [label(version, right)])
        assert event is not None
        deployment = handle(deployment, event, 300.0).deployment
        truths += 1
    assert not deployment.busy and truths < 500
