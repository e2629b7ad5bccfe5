"""The sequential test against simulated truth: what it promises, and that it finds what is there."""

from __future__ import annotations

import math
import random
from itertools import pairwise

import pytest

from jobs.services.evidence import Counts, Evidence


def rollout(
    rng: random.Random, old: float, new: float, *, share: float, looks: int, each: int
) -> tuple[bool, int]:
    """Whether it alarms in one rollout that is looked at after each block, and after how many requests
    of the new version."""
    evidence = Evidence()
    for _ in range(looks):
        here = sum(rng.random() < share for _ in range(each))
        there = each - here
        evidence = evidence.and_also(
            Counts(there, sum(rng.random() < old for _ in range(there))),
            Counts(here, sum(rng.random() < new for _ in range(here))),
        )
        if evidence.against(0.05):
            return True, evidence.new.seen
    return False, evidence.new.seen


@pytest.mark.parametrize("base", [0.002, 0.02, 0.3])
@pytest.mark.parametrize("share", [0.05, 0.5])
def test_equal_versions_are_rarely_told_apart_however_often_one_looks(
    base: float, share: float
) -> None:
    """A thousand A/A rollouts in all settings together, 100 looks each: at most 5 % alarms."""
    rng = random.Random(f"{base} {share}")
    rounds = 170
    alarms = sum(
        rollout(rng, base, base, share=share, looks=100, each=20)[0] for _ in range(rounds)
    )
    # 5 % is what is promised; three standard deviations of a count of that chance are allowed on top.
    assert alarms <= rounds * 0.05 + 3 * math.sqrt(rounds * 0.05 * 0.95)


def test_a_better_version_is_never_held_to_be_worse_more_often_than_promised() -> None:
    rng = random.Random(1)
    alarms = sum(rollout(rng, 0.1, 0.02, share=0.3, looks=80, each=20)[0] for _ in range(150))
    assert alarms <= 7


@pytest.mark.parametrize(("new", "within"), [(0.1, 250), (0.3, 90), (1.0, 30)])
def test_what_errs_is_found_soon(new: float, within: int) -> None:
    rng = random.Random(new)
    found = [rollout(rng, 0.02, new, share=0.1, looks=300, each=50) for _ in range(40)]
    assert all(alarm for alarm, _ in found)
    assert sorted(seen for _, seen in found)[20] <= within


def test_the_expectation_of_one_block_is_at_most_one_for_any_equal_chance() -> None:
    """By summing over all outcomes, not by chance: that is the whole proof of the promise."""
    history = Evidence(old=Counts(200, 5))
    for chance in (0.001, 0.02, 0.2, 0.7):
        for a, b in ((1, 1), (5, 2), (2, 9)):
            total = 0.0
            for x in range(a + 1):
                for y in range(b + 1):
                    weight = _binomial(a, x, chance) * _binomial(b, y, chance)
                    after = history.and_also(Counts(a, x), Counts(b, y))
                    total += weight * math.exp(after.log_e)
            assert total <= 1 + 1e-9


def _binomial(n: int, k: int, p: float) -> float:
    return math.comb(n, k) * p**k * (1 - p) ** (n - k)


def test_a_block_of_one_side_alone_says_nothing() -> None:
    start = Evidence()
    assert start.and_also(Counts(), Counts()) is start
    for old, new in ((Counts(50, 3), Counts()), (Counts(), Counts(50, 50))):
        assert start.and_also(old, new).log_e == pytest.approx(0.0)


def test_more_errors_are_more_evidence() -> None:
    grades = [
        Evidence().and_also(Counts(100, 2), Counts(100, bad)).log_e for bad in range(0, 101, 10)
    ]
    assert all(one < other for one, other in pairwise(grades))
    assert all(map(math.isfinite, grades))
