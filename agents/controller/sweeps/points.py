"""A search space in Optuna's words: drawing a point of it, and what its parameters are."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from jobs.spec.command import Scalar
from jobs.sweeps.space import Parameter, Space, ordered

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import Trial


def suggest(trial: Trial, space: Space) -> dict[str, Scalar]:
    """A trial's point: what its sampler draws for each parameter that applies."""
    values: dict[str, Scalar] = {}
    for name in ordered(space):
        if space[name].applies(values):
            values[name] = _suggested(trial, name, space[name])
    # In the order of the file, as people know it.
    return {name: values[name] for name in space if name in values}


def _suggested(trial: Trial, name: str, parameter: Parameter) -> Scalar:
    if parameter.choices is not None:
        return trial.suggest_categorical(name, list(parameter.choices))
    low, high, step, log = parameter.low, parameter.high, parameter.step, parameter.log
    assert low is not None
    assert high is not None
    if parameter.is_int:
        return trial.suggest_int(name, int(low), int(high), step=int(step or 1), log=log)
    drawn = trial.suggest_float(name, float(low), float(high), step=step, log=log)
    return parameter.snapped(drawn)


def distributions(space: Space, names: Iterable[str]) -> dict[str, BaseDistribution]:
    """What `suggest` would draw these parameters from."""
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    found: dict[str, BaseDistribution] = {}
    for name in names:
        parameter = space[name]
        low, high, step, log = parameter.low, parameter.high, parameter.step, parameter.log
        if parameter.choices is not None:
            found[name] = CategoricalDistribution(list(parameter.choices))
        elif parameter.is_int:
            found[name] = IntDistribution(int(low or 0), int(high or 0), log, int(step or 1))
        else:
            found[name] = FloatDistribution(float(low or 0), float(high or 0), log, step)
    return found
