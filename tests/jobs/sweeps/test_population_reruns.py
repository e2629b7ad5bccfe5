"""Turns that a person has run again, and checkpoints that no turn can begin with any more."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.sweeps.populations import Turn, choose, pending, spent, start_of
from tests.jobs.sweeps.test_populations import POINT, SPACE, population, turn


def pick(turns: list[Turn], reruns: list[int], count: int = 10) -> dict[int, Turn | None]:
    """What begins now: member -> the turn that it begins with; reruns under -1 - place."""
    choice = choose(
        population(),
        SPACE,
        turns,
        count,
        maximize=True,
        enqueued=(),
        admits=lambda point: True,
        seed="7",
        reruns=reruns,
    )
    by_number: dict[int | None, Turn] = {item.number: item for item in turns}
    return {
        item.member if item.again is None else -1 - item.again: by_number.get(item.parent)
        for item in choice.turns
    }


FIRST = [turn(n, n, 0, 0.1 * (n + 1)) for n in range(4)]


def test_a_turn_runs_again_before_its_member_goes_on_and_then_counts() -> None:
    failed = [*FIRST[:3], turn(3, 3, 0, None)]
    begun = pick(failed, [3])
    assert begun.pop(-1) == failed[3]
    assert set(begun) == {0, 1, 2}, "its member waits for it"
    again = turn(4, 3, 0, None, parent=3, again=True, over=False)
    assert set(pick([*failed, again], [3])) == {0, 1, 2}
    better = turn(4, 3, 0, 0.9, parent=3, again=True)
    assert pick([*failed, better], [3])[3] == better, "it goes on from what it has come to"
    assert pick([*failed, better], [3])[0] == better, "and others copy it"


def test_one_that_fails_again_changes_nothing() -> None:
    again = turn(4, 3, 0, None, parent=3, again=True)
    assert pick([*FIRST, again], [3]) == pick(FIRST, [])


def test_a_member_is_compared_once_however_often_it_ran() -> None:
    three_times = [turn(4 + n, 0, 0, 0.1, parent=0, again=True) for n in range(3)]
    assert pick([FIRST[0], *three_times], [0, 0, 0]).keys() == {1, 2, 3}, "no half has come yet"


def test_a_turn_may_run_again_more_than_once_and_each_time_where_it_began() -> None:
    begun = turn(4, 1, 1, 0.5, parent=1)
    once = turn(5, 1, 1, 0.4, parent=4, again=True)
    twice = turn(6, 1, 1, 0.4, parent=5, again=True)
    turns = [*FIRST, begun, once]
    assert pending([4, 5, 4], turns) == [(1, 5), (2, 4)]
    assert pending([4, 5, 4], [*turns, twice]) == [(2, 4)]
    by_number = {item.number: item for item in [*turns, twice]}
    assert [start_of(item, by_number) for item in (FIRST[1], begun, once, twice)] == [None, 1, 1, 1]


def test_what_is_to_run_again_comes_first() -> None:
    assert set(pick(FIRST, [2], count=1)) == {-1}


# -- checkpoints ------------------------------------------------------------------------------------


def test_checkpoints_go_once_everybody_is_past_them_but_the_best_ones() -> None:
    second = [turn(4 + n, n, 1, 0.01 * n, parent=n) for n in range(4)]
    who = population()
    assert spent(who, FIRST, maximize=True) == set()
    assert spent(who, [*FIRST, *second[:3]], maximize=True) == set(), "member 3 is not past them"
    assert spent(who, [*FIRST, *second], maximize=True) == {0, 1, 2}, "trial 3 is the best"
    assert spent(who, [*FIRST, *second], maximize=False) == {0, 1, 2, 3}


def test_a_checkpoint_stays_while_a_turn_may_have_to_begin_with_it_again() -> None:
    second = [turn(4 + n, n, 1, 1.0, parent=n) for n in range(3)]
    lost = turn(7, 3, 1, None, parent=0, over=False)
    turns = [*FIRST, *second, lost]
    assert spent(population(), turns, maximize=True) == {1, 2, 3}
    ended = [*turns[:-1], turn(7, 3, 1, 1.0, parent=0)]
    assert spent(population(), ended, maximize=True) == {0, 1, 2, 3}
    assert spent(population(), ended, maximize=True, reruns=[5]) == {0, 2, 3}
    once = turn(8, 1, 1, None, parent=5, again=True, over=False)
    assert spent(population(), [*ended, once], maximize=True, reruns=[5]) == {0, 2, 3}


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), size=st.integers(2, 6), slots=st.integers(1, 6))
def test_no_turn_ever_begins_with_a_checkpoint_that_went(seed: int, size: int, slots: int) -> None:
    """Turns end in any order, some fail, some are run again, and what is spent goes at any moment."""
    rng, who = random.Random(seed), population(size, 4)
    turns: list[Turn] = []
    reruns: list[int] = []
    while True:
        if rng.random() < 0.5:
            for number in spent(who, turns, maximize=True, reruns=reruns):
                before = turns[number]
                turns[number] = turn(
                    number,
                    before.member,
                    before.generation,
                    before.value,
                    checkpoint=False,
                    parent=before.parent,
                    again=before.again,
                )
        by_number = {item.number: item for item in turns}
        over = [item for item in turns if item.over]
        if over and len(reruns) < 5 and rng.random() < 0.2:
            start = start_of(known := rng.choice(over), by_number)
            if start is None or by_number[start].checkpoint:
                reruns.append(known.number)
        choice = choose(
            who,
            SPACE,
            turns,
            slots - sum(not item.over for item in turns),
            maximize=True,
            enqueued=(),
            admits=lambda point: True,
            seed="7",
            reruns=reruns,
        )
        for item in choice.turns:
            again = item.again is not None
            new = Turn(
                len(turns),
                item.member,
                item.generation,
                POINT | item.params,
                over=False,
                parent=item.parent,
                again=again,
            )
            by_number[new.number] = new
            start = start_of(new, by_number)
            assert (start is None) == (item.generation == 0)
            assert start is None or by_number[start].checkpoint
            turns.append(new)
        running = [item for item in turns if not item.over]
        if not running:
            break
        ends = rng.choice(running)
        turns[ends.number] = turn(
            ends.number,
            ends.member,
            ends.generation,
            None if rng.random() < 0.2 else rng.random(),
            parent=ends.parent,
            again=ends.again,
        )
    assert choice.stuck or not pending(reruns, turns)
    places = [item.place for item in turns if not item.again]
    assert len(places) == len(set(places))
    if not choice.stuck:
        assert len(places) == size * 4


@pytest.mark.parametrize("maximize", [True, False])
def test_a_population_that_is_over_keeps_its_last_generation_and_its_best(maximize: bool) -> None:
    turns = [turn(4 * g + n, n, g, float((g * 7 + n * 3) % 11)) for g in range(3) for n in range(4)]
    values = {item.number: item.value or 0.0 for item in turns}
    best = (max if maximize else min)(values, key=lambda number: values[number])
    kept = set(values) - spent(population(), turns, maximize=maximize)
    assert kept == {8, 9, 10, 11, best}
