"""Ranges of floats with a step: what is drawn is a number that a person would write."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from optuna import create_study
from optuna.samplers import RandomSampler

from agents.controller.sweeps.points import suggest
from agents.controller.sweeps.samplers import quietly
from jobs.sweeps.space import Parameter

DROPOUT = Parameter(low=0.0, high=0.95, step=0.1)


def test_every_draw_is_one_of_the_listed_values_and_meets_its_conditions() -> None:
    space = {"p": DROPOUT, "scale": Parameter(choices=(1, 2), when={"p": [0.3, 0.6, 0.7]})}
    study = create_study(sampler=RandomSampler(seed=1))
    with quietly():  # Optuna says that 0.95 is no step of the range
        drawn = [suggest(study.ask(), space) for _ in range(80)]
    listed = DROPOUT.values()
    assert listed is not None
    assert {point["p"] for point in drawn} == set(listed), "each comes, and none beside them"
    assert all(("scale" in point) == (point["p"] in (0.3, 0.6, 0.7)) for point in drawn)


def test_a_point_of_an_older_record_is_taken_for_what_it_is() -> None:
    assert DROPOUT.snapped(0.30000000000000004) == 0.3
    assert DROPOUT.problem_with(0.30000000000000004) == ""
    assert DROPOUT.problem_with(0.35) != ""
    assert DROPOUT.snapped(0.35) == 0.35, "what is none of them is left to be refused"


@given(
    st.floats(-1e3, 1e3, allow_subnormal=False),
    st.sampled_from([0.1, 0.05, 0.01, 0.3, 1e-4, 2.5]),
    st.integers(1, 60),
)
def test_sums_of_steps_are_listed_values(low: float, step: float, count: int) -> None:
    low = round(low, 4)
    parameter = Parameter(low=low, high=low + count * step * 1.5, step=step)
    listed = parameter.values()
    assert listed is not None
    value = low
    for number in range(min(count, len(listed) - 1)):
        assert parameter.snapped(value) == listed[number]
        assert parameter.snapped(listed[number]) == listed[number]
        value += step
