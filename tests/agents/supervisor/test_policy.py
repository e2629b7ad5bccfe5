import pytest

from agents.supervisor.policy import (
    DELAYS,
    STEADY,
    Asked,
    Backoff,
    Size,
    check_fits,
    size,
)
from jobs.base.errors import Conflict, InvalidInput


def delays(*lifetimes: float) -> list[float]:
    """The wait after each of these deaths in a row."""
    state, waits = Backoff(), []
    for up_for in lifetimes:
        state, wait = state.after_death(up_for)
        waits.append(wait)
    return waits


def test_the_first_restart_is_immediate_and_the_later_ones_wait_longer_up_to_a_limit() -> None:
    assert delays(*[0.5] * 9) == [0, 1, 2, 4, 8, 16, 30, 30, 30]


def test_a_minute_up_forgets_the_deaths_before() -> None:
    assert delays(1, 1, 1, STEADY, 1) == [0, 1, 2, 0, 1]
    assert delays(1, 1, STEADY - 0.001) == list(DELAYS[:3])


def test_a_cluster_takes_what_the_machine_has_unless_told() -> None:
    assert size(Asked(), 8, 4) == Size(8, 4, simulated=False)
    assert size(Asked(cpus=2, gpus=1), 8, 4) == Size(2, 1, simulated=False)
    assert size(Asked(simulate_gpus=16), 8, 0) == Size(8, 16, simulated=True)
    assert size(Asked(gpus=0), 8, 4) == Size(8, 0, simulated=False)


@pytest.mark.parametrize(
    ("numbers", "word"),
    [
        ({"gpus": 1, "simulate_gpus": 1}, "either"),
        ({"cpus": 0}, "--cpus is 0"),
        ({"gpus": -1}, "--gpus is -1"),
        ({"simulate_gpus": -2}, "--simulate-gpus is -2"),
    ],
)
def test_numbers_that_no_machine_has_are_refused(numbers: dict[str, int], word: str) -> None:
    with pytest.raises(InvalidInput, match=word):
        Asked(**numbers)  # type: ignore[arg-type]


def test_more_real_gpus_than_there_are_is_refused_with_both_numbers() -> None:
    with pytest.raises(InvalidInput, match="--gpus is 3, and this machine has 2"):
        size(Asked(gpus=3), 8, 2)


RUNNING = Size(cpus=2, gpus=2, simulated=True)


@pytest.mark.parametrize(
    "asked", [Asked(), Asked(cpus=2), Asked(simulate_gpus=2), Asked(cpus=2, simulate_gpus=2)]
)
def test_up_again_with_the_same_or_no_numbers_fits(asked: Asked) -> None:
    check_fits(asked, Asked(simulate_gpus=2), RUNNING)


@pytest.mark.parametrize("asked", [Asked(cpus=3), Asked(simulate_gpus=1), Asked(gpus=2)])
def test_up_again_with_other_numbers_is_a_conflict_that_says_what_to_do(asked: Asked) -> None:
    with pytest.raises(Conflict, match=r"2 CPUs, 2 GPUs \(sim\)") as caught:
        check_fits(asked, Asked(simulate_gpus=2), RUNNING)
    assert "qd down" in caught.value.hint
