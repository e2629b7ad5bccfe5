"""Population-based training: who goes on with what, without any job."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.base.errors import InvalidInput
from jobs.spec.command import Scalar
from jobs.sweeps.populations import Choice, Population, Turn, choose, draw, explore
from jobs.sweeps.space import Parameter
from jobs.sweeps.spec import SweepSpec

SPACE = {
    "lr": Parameter(low=1e-4, high=1e-1, log=True),
    "layers": Parameter(low=1, high=4),
    "width": Parameter(choices=(32, 64, 128)),
    "kind": Parameter(choices=("sgd", "adam")),
    "momentum": Parameter(low=0.0, high=0.9, step=0.1, when={"kind": "sgd"}),
}
POINT: dict[str, Scalar] = {"lr": 0.01, "layers": 2, "width": 64, "kind": "adam"}


def population(size: int = 4, generations: int = 3, **options: Any) -> Population:
    return Population.of({"population": size, "generations": generations, **options}, SPACE)


def pick(turns: list[Turn], count: int = 10, who: Population | None = None) -> Choice:
    return choose(
        who or population(),
        SPACE,
        turns,
        count,
        maximize=True,
        enqueued=({"lr": 0.05},),
        admits=lambda point: True,
        seed="7",
    )


def turn(number: int, member: int, generation: int, value: float | None, **more: Any) -> Turn:
    given: dict[str, Any] = {"over": True, "checkpoint": value is not None, "params": POINT} | more
    return Turn(number=number, member=member, generation=generation, value=value, **given)


def test_everyone_begins_once_the_first_with_the_points_of_the_file() -> None:
    chosen = pick([]).turns
    assert [(item.member, item.generation, item.parent) for item in chosen] == [
        (member, 0, None) for member in range(4)
    ]
    assert [item.origin for item in chosen] == ["enqueued", "drawn", "drawn", "drawn"]
    assert chosen[0].params == {"lr": 0.05}
    assert len(pick([], count=2).turns) == 2


def test_the_worst_copies_the_best_and_the_others_go_on() -> None:
    values = [0.9, 0.5, 0.4, 0.1]
    turns = [turn(n, n, 0, value) for n, value in enumerate(values)]
    chosen = {item.member: item for item in pick(turns).turns}
    assert {member: item.parent for member, item in chosen.items()} == {0: 0, 1: 1, 2: 2, 3: 0}
    assert [chosen[member].origin for member in range(4)] == ["continued"] * 3 + ["copied"]
    assert chosen[1].params == POINT
    assert pick(turns) == pick(turns)  # the same after a restart


def test_no_generation_waits_for_its_slowest_but_half_must_have_come() -> None:
    begun = [turn(n, n, 0, None, over=False) for n in (1, 2, 3)]
    assert pick([turn(0, 0, 0, 0.9), *begun]) == Choice(())
    two = [turn(0, 0, 0, 0.9), turn(1, 1, 0, 0.1), *begun[1:]]
    assert [(item.member, item.parent) for item in pick(two).turns] == [(0, 0), (1, 0)]


def test_equal_members_have_nothing_to_copy() -> None:
    turns = [turn(n, n, 0, 0.5) for n in range(4)]
    assert {item.origin for item in pick(turns).turns} == {"continued"}


def test_who_breaks_a_constraint_is_among_the_worst() -> None:
    turns = [turn(0, 0, 0, 0.9, feasible=False), *(turn(n, n, 0, 0.1 * n) for n in (1, 2, 3))]
    chosen = {item.member: item for item in pick(turns).turns}
    assert (chosen[0].origin, chosen[0].parent) == ("copied", 3)


def test_failed_members_wait_for_a_checkpoint_and_without_any_it_is_over() -> None:
    failed = [turn(n, n, 0, None) for n in range(3)]
    waiting = [*failed, turn(3, 3, 0, None, over=False)]
    assert pick(waiting) == Choice(())
    rescued = pick([*failed, turn(3, 3, 0, 0.1)]).turns
    assert {item.parent for item in rescued} == {3}
    assert "4 members failed" in pick([*failed, turn(3, 3, 0, None)]).stuck


def test_the_last_generation_is_the_last() -> None:
    turns = [turn(4 * g + n, n, g, 0.1 * n) for g in range(3) for n in range(4)]
    assert pick(turns) == Choice(())


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), size=st.integers(2, 7), slots=st.integers(1, 7))
def test_whatever_ends_in_whatever_order_each_has_every_turn_once(
    seed: int, size: int, slots: int
) -> None:
    """Slots are filled as they become free; trials end in any order, and some fail."""
    rng, who = random.Random(seed), population(size, 4)
    turns: list[Turn] = []
    while True:
        running = [n for n, item in enumerate(turns) if not item.over]
        choice = pick(turns, slots - len(running), who)
        for item in choice.turns:
            parent = next((t for t in turns if t.number == item.parent), None)
            assert (item.generation == 0) == (parent is None)
            if parent is not None:
                assert parent.usable
                assert parent.generation == item.generation - 1
            for name, value in item.params.items():
                assert SPACE[name].problem_with(value) == ""
            params = POINT | item.params
            turns.append(Turn(len(turns), item.member, item.generation, params, over=False))
        running = [n for n, item in enumerate(turns) if not item.over]
        if not running:
            break
        at = rng.choice(running)
        value = None if rng.random() < 0.2 else rng.random()
        before = turns[at]
        turns[at] = turn(
            before.number, before.member, before.generation, value, params=before.params
        )
    done = [(item.member, item.generation) for item in turns]
    assert len(done) == len(set(done))
    if not choice.stuck:
        assert len(done) == size * 4


@given(seed=st.integers(0, 10_000), resample=st.sampled_from([0.0, 0.5, 1.0]))
def test_explored_points_lie_in_the_space(seed: int, resample: float) -> None:
    rng = random.Random(seed)
    point = explore(population(resample=resample), SPACE, POINT, rng)
    for name, value in point.items():
        assert SPACE[name].problem_with(value) == ""
    assert ("momentum" in point) == (point["kind"] == "sgd")
    for parameter in SPACE.values():
        assert parameter.problem_with(draw(parameter, rng)) == ""


def test_only_what_is_to_be_explored_changes_and_that_does() -> None:
    rng = random.Random(1)
    who = population(explore=["lr", "layers", "width"], resample=0.0)
    for _ in range(20):
        point = explore(who, SPACE, POINT, rng)
        assert point["kind"] == "adam"
        assert point["lr"] in (pytest.approx(0.008), pytest.approx(0.0125))
        assert point["layers"] in (1, 3)  # 2 * 1.25 would stay where it is
        assert point["width"] in (32, 128)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"trials": 5}, "trials: given together with pbt, which has 8: population times generations"),
        ({"pruner": "median"}, "pruner: pbt ends no trial early; allowed: none"),
        ({"enqueue": [{"x": 1}] * 5}, "enqueue: 5 points; allowed: 4"),
        ({"sampler": {"pbt": {"population": 4}}}, "needs generations"),
        ({"sampler": {"pbt": {"population": 1, "generations": 2}}}, "found 1; allowed: a whole"),
        ({"sampler": {"pbt": {"population": 4, "generations": 2, "explore": ["y"]}}}, "no parameter 'y'"),
        ({"sampler": {"pbt": {"population": 4, "generations": 2, "until": "x"}}}, "x is searched"),
        ({"sampler": {"pbt": {"population": 4, "generations": 2, "factors": [0]}}}, "numbers above 0"),
        ({"sampler": {"pbt": {"population": 4, "generations": 2, "factor": 2}}}, "did you mean factors?"),
        ({"warm_start": "s1"}, "pbt learns nothing from other trials"),
        ({"objective": [{"metric": m, "goal": "minimize"} for m in "ab"]}, "pbt takes one objective"),
    ],
)  # fmt: skip
def test_what_a_population_cannot_be(changes: dict[str, Any], told: str) -> None:
    base = {
        "job": {"command": "true"},
        "space": {"x": {"low": 0, "high": 9}},
        "objective": {"metric": "loss", "goal": "minimize"},
        "sampler": {"pbt": {"population": 4, "generations": 2, "until": "epochs"}},
    }
    assert SweepSpec.from_json(base).limit == 8
    with pytest.raises(InvalidInput) as caught:
        SweepSpec.from_json(base | changes)
    assert told in f"{caught.value.message} {caught.value.hint}"


def test_a_turn_is_told_how_far_to_train() -> None:
    spec = SweepSpec.from_json(
        {
            "job": {"command": "train --epochs {epochs}", "params": {"epochs": 99}},
            "space": {"x": {"low": 0, "high": 9}},
            "objective": {"metric": "loss", "goal": "minimize"},
            "sampler": {
                "pbt": {"population": 2, "generations": 3, "until": "epochs", "interval": 4}
            },
        }
    )
    digest = "sha256:" + "ab" * 32
    job = spec.job_of("s1", 7, {"x": 3}, generation=2, checkpoint=digest)
    assert job.params == {"x": 3, "epochs": 12}
    assert job.argv()[-1] == "exec train --epochs 12"
    assert (job.checkpoint.artifact, job.checkpoint.start) == (True, digest)
