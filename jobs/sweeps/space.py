"""What a sweep searches: parameters, their ranges, and when each of them applies.

A parameter is a range of numbers (`low`, `high`, with `step` or `log`) or a list of `choices`. One with
`when` exists only where another parameter has a given value, as momentum does only for SGD. Values are
plain scalars; drawing them is the sampler's business.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from jobs.base.units import show
from jobs.spec import fields
from jobs.spec.command import Scalar
from jobs.spec.problems import Problem

MAX_GRID = 100_000
"""Points of a grid: more are a slip of the finger, and none would ever finish."""
MAX_COMPARED = 300_000
"""Points of a grid times constraints: each is computed for each, some microseconds."""
_MAX_CHOICES = 1000

Number = Annotated[int | float, Field(allow_inf_nan=False)]


class Parameter(BaseModel):
    """One dimension of a search space: `choices`, or `low` and `high`."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    choices: Annotated[tuple[fields.Param, ...], Field(strict=False)] | None = Field(
        None, description="the values to choose from, in no order"
    )
    type: Literal["int", "float"] | None = Field(
        None,
        description="by default int where low, high and step are whole numbers without a point",
    )
    low: Number | None = Field(None, description="the lowest value")
    high: Number | None = Field(None, description="the highest value, which is included")
    log: bool = Field(False, description="draw from the logarithm: for learning rates and the like")
    step: Number | None = Field(None, description="only low, low + step, low + 2 step, ...")
    when: dict[str, Any] | None = Field(
        None, description="only where another parameter has this value, or one of a list of values"
    )

    @field_validator("choices")
    @classmethod
    def _choices_differ(cls, value: tuple[Scalar, ...] | None) -> tuple[Scalar, ...] | None:
        if value is None:
            return None
        if not 1 <= len(value) <= _MAX_CHOICES:
            raise ValueError(f"{len(value)} choices; allowed: 1 to {_MAX_CHOICES}")
        known = set()
        for choice in value:
            kind = (isinstance(choice, bool), choice)  # as `same` has it
            if kind in known:
                raise ValueError(f"{show(choice)} is listed twice")
            known.add(kind)
        return value

    @field_validator("type", "low", "high", "log", "step")
    @classmethod
    def _numbers_alone(cls, value: Any, info: ValidationInfo) -> Any:
        if info.data.get("choices") is not None and value not in (None, False):
            raise ValueError("given together with choices; allowed: one of the two")
        return value

    @field_validator("low", "high", "step")
    @classmethod
    def _whole(cls, value: int | float | None, info: ValidationInfo) -> int | float | None:
        if isinstance(value, float) and info.data.get("type") == "int":
            raise ValueError(f"found {show(value)}; allowed: a whole number, since type is int")
        if isinstance(value, int) and abs(value) > 2**53:
            raise ValueError(f"found {show(value)}; allowed: whole numbers of up to 53 bits")
        return value

    @field_validator("high")
    @classmethod
    def _in_order(cls, value: int | float | None, info: ValidationInfo) -> int | float | None:
        low = info.data.get("low")
        if value is not None and low is not None and value < low:
            raise ValueError(f"found {show(value)}; allowed: at least low, which is {show(low)}")
        return value

    @field_validator("log")
    @classmethod
    def _log_is_positive(cls, value: bool, info: ValidationInfo) -> bool:
        low = info.data.get("low")
        if value and low is not None and low <= 0:
            raise ValueError(f"needs a positive low, which is {show(low)}")
        return value

    @field_validator("step")
    @classmethod
    def _step_fits(cls, value: int | float | None, info: ValidationInfo) -> int | float | None:
        if value is None:
            return None
        if value <= 0:
            raise ValueError(f"found {show(value)}; allowed: more than 0")
        if info.data.get("log") and value != 1:
            raise ValueError("given together with log; allowed: one of the two")
        low, high = info.data.get("low"), info.data.get("high")
        if low is None or high is None:
            return value
        span = _exactly(high) - _exactly(low)
        if _exactly(value) > max(span, Decimal(1)):
            raise ValueError(f"found {show(value)}; allowed: at most {span}, high - low")
        return value

    @model_validator(mode="after")
    def _whole_parameter(self) -> Self:
        if self.choices is None and (self.low is None or self.high is None):
            raise ValueError("needs choices, or low and high")
        return self

    @property
    def is_int(self) -> bool:
        """Whether its values are whole numbers."""
        if self.choices is not None:
            return False
        bounds = (self.low, self.high, self.step if self.step is not None else 1)
        return self.type == "int" or (
            self.type is None and all(isinstance(bound, int) for bound in bounds)
        )

    @property
    def count(self) -> int | None:
        """How many values it has; None for a range without steps. There may be 10**15: look at this
        before they are listed."""
        if self.choices is not None:
            return len(self.choices)
        assert self.low is not None
        assert self.high is not None
        if self.is_int:
            return (int(self.high) - int(self.low)) // int(self.step or 1) + 1
        if self.step is None:
            return 1 if self.low == self.high else None
        return int((_exactly(self.high) - _exactly(self.low)) // _exactly(self.step)) + 1

    def value(self, number: int) -> Scalar:
        """The n-th of its values, from 0; it has a `count`."""
        if self.choices is not None:
            return self.choices[number]
        assert self.low is not None
        if self.is_int:
            return int(self.low) + number * int(self.step or 1)
        if self.step is None:
            return float(self.low)
        return float(_exactly(self.low) + number * _exactly(self.step))

    def values(self) -> tuple[Scalar, ...] | None:
        """All its values where they can be counted; None for a range without steps."""
        count = self.count
        if self.choices is not None or count is None:
            return self.choices
        return tuple(self.value(number) for number in range(count))

    def snapped(self, value: Scalar) -> Scalar:
        """The listed number that `value` is but for the rounding of its last digits: 0.3 for
        0.30000000000000004, as samplers add up steps; any other value as it is.

        What is compared with `when`, `constraints` or another sweep's points has to come through here.
        """
        if self.is_int or self.step is None or isinstance(value, bool):
            return value
        if not isinstance(value, int | float) or not math.isfinite(value):
            return value
        assert self.low is not None
        low, step = _exactly(self.low), _exactly(self.step)
        number = round((Decimal(value) - low) / step)
        listed = float(low + number * step)
        near = abs(listed - value) <= 1e-9 * max(float(step), abs(value) * 1e-3)
        return listed if near else value

    def problem_with(self, value: Scalar) -> str:
        """Why `value` cannot be this parameter's, in words; empty when it can."""
        count = self.count if self.choices is not None or self.step is not None else None
        if count is not None:
            if self.place(self.snapped(value)) is not None:
                return ""
            shown = ", ".join(show(self.value(number)) for number in range(min(count, 10)))
            shown += ", ..." if count > 10 else ""
            return f"found {show(self.snapped(value))}; allowed: {shown}"
        assert self.low is not None
        assert self.high is not None
        is_number = isinstance(value, int if self.is_int else int | float)
        if not is_number or isinstance(value, bool):
            kind = "a whole number" if self.is_int else "a number"
            return f"found {show(value)}; allowed: {kind}"
        assert isinstance(value, int | float)
        if not math.isfinite(value) or not self.low <= value <= self.high:
            return f"found {show(value)}; allowed: {show(self.low)} to {show(self.high)}"
        return ""

    def place(self, value: Scalar) -> int | None:
        """Which of its values this is, from 0; None when it is none of them. It has a `count`."""
        if self.choices is not None:
            found = (at for at, item in enumerate(self.choices) if same(value, item))
            return next(found, None)
        assert self.low is not None
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        if not math.isfinite(value) or not self.count:
            return None
        number = round((_exactly(value) - _exactly(self.low)) / _exactly(self.step or 1))
        return number if 0 <= number < self.count and value == self.value(number) else None

    def conditions(self) -> dict[str, tuple[Scalar, ...]]:
        """What other parameters have to be, as alternatives of each."""
        return {
            name: tuple(value) if isinstance(value, list | tuple) else (value,)
            for name, value in (self.when or {}).items()
        }

    def applies(self, values: Mapping[str, Scalar]) -> bool:
        """Whether it exists beside `values` of the parameters that come before it."""
        return all(
            name in values and any(same(values[name], item) for item in allowed)
            for name, allowed in self.conditions().items()
        )


Space = Mapping[str, Parameter]


def _exactly(number: int | float) -> Decimal:
    """The number that a person wrote: 0.1 + 2 * 0.1 should be 0.3."""
    return Decimal(str(number))


def same(one: object, other: object) -> bool:
    """Equal, where true is not 1."""
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def ordered(space: Space) -> list[str]:
    """The names, each after those that its `when` speaks of. A cycle is left out."""
    done: list[str] = []
    waiting = list(space)
    while waiting:
        ready = [name for name in waiting if set(space[name].conditions()) <= set(done)]
        if not ready:
            return done
        done += ready
        waiting = [name for name in waiting if name not in done]
    return done


def faults(space: Space) -> list[Problem]:
    """What is wrong between parameters; paths start at the space."""
    found: list[Problem] = []
    for name, parameter in space.items():
        for other, allowed in parameter.conditions().items():
            path = (name, "when", other)
            if other not in space or other == name:
                names = ", ".join(item for item in space if item != name) or "none: it is alone"
                found.append(Problem(path, f"no other parameter has this name; allowed: {names}"))
                continue
            for value in allowed:
                what = space[other].problem_with(value)
                if what:
                    found.append(Problem(path, what))
    if not found:
        for name in space.keys() - set(ordered(space)):
            found.append(Problem((name, "when"), "it depends on itself, by way of others"))
    return found


def grid(space: Space) -> Iterator[dict[str, Scalar]]:
    """Every point of a space whose parameters can all be counted, in the order of the file."""
    names = ordered(space)

    def extend(point: dict[str, Scalar], index: int) -> Iterator[dict[str, Scalar]]:
        if index == len(names):
            yield dict(point)
            return
        parameter = space[names[index]]
        if not parameter.applies(point):
            yield from extend(point, index + 1)
            return
        for value in parameter.values() or ():
            yield from extend({**point, names[index]: value}, index + 1)

    yield from extend({}, 0)
