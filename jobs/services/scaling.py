"""How many replicas a version should have: bounds that a person sets, and one pure decision at each look.

Growing is quick and shrinking is slow. A version grows as soon as its replicas have more requests in progress
than they should; it shrinks only when fewer would have done, with a reserve, in the whole of a quiet window.
So a load that stays the same never makes it go up and down (tests/jobs/services/test_scaling.py).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from jobs.base.units import format_duration, show
from jobs.base.words import counted
from jobs.spec import fields, problems

RESERVE = 0.8
"""Fewer replicas must do with this share of what they may have in progress, or the next rise of the load
brings back the one that has just been stopped."""
LEARNED_FOR = 3600.0
"""Seconds for which it is remembered how much a replica could not carry in time. What slowed it down may have
been a neighbour that has gone."""
JUDGED = 20
"""Requests before their p95 is believed."""
MOST = 1000

_SPAN = re.compile(r"(\d+)(?:\s*-\s*(\d+))?")


class Scale(BaseModel):
    """The bounds, and what to aim for. Times in seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    min: Annotated[int, Field(ge=0, le=MOST)] = Field(1, description="0: none while nobody asks")
    max: Annotated[int, Field(ge=1, le=MOST)] = Field(description="never more than so many")
    concurrency: Annotated[float, Field(gt=0, le=100_000, allow_inf_nan=False)] = Field(
        8.0, description="requests in progress for each replica; more than that, and it grows"
    )
    latency: Annotated[fields.Patience, Field(gt=0)] | None = Field(
        None, description="it also grows when the p95 is longer than this"
    )
    quiet: Annotated[fields.Patience, Field(ge=5)] = Field(
        120.0, description="fewer must have sufficed for so long before it shrinks"
    )
    idle: Annotated[fields.Patience, Field(ge=5)] = Field(
        300.0, description="without a request for so long it goes to zero, if min is 0"
    )
    hold: Annotated[fields.Patience, Field(ge=1, le=240)] = Field(
        60.0, description="how long a request waits for the first replica, if min is 0"
    )
    queue: Annotated[int, Field(ge=1, le=2000)] = Field(
        100, description="how many requests may wait so; others are answered with 503"
    )

    @model_validator(mode="after")
    def _bounds(self) -> Scale:
        if self.min > self.max:
            raise ValueError(f"min is {self.min} and max is {self.max}; allowed: min up to max")
        return self

    def within(self, replicas: int) -> int:
        """The nearest number of replicas that may serve: at least one."""
        return min(max(replicas, self.min, 1), self.max)

    def words(self) -> str:
        return f"{self.min} to {self.max}"


def _scale(value: Any) -> Any:
    """`scale: 1-4` is its bounds alone."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if isinstance(value, str):
        return bounds(value)
    if value in (False, "off"):
        return None
    return value


def bounds(text: str) -> dict[str, int]:
    """The fields of `1-4`, or of `4`, which is `1-4`. Raises ValueError."""
    found = _SPAN.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"found {show(text)}; allowed: bounds such as 1-4 or 0-2")
    first, last = found.groups()
    return {"max": int(first)} if last is None else {"min": int(first), "max": int(last)}


def changed(scale: Scale | None, given: Mapping[str, Any]) -> Scale:
    """A scale with some fields as they are given. Raises InvalidInput."""
    known = {} if scale is None else scale.model_dump(exclude_unset=True)
    try:
        return Scale.model_validate(known | dict(given))
    except ValidationError as error:
        raise problems.in_data(problems.find(error, Scale), "scale") from None


ScaleField = Annotated[Scale | None, BeforeValidator(_scale)]


@dataclass(frozen=True, slots=True)
class Look:
    """What was measured of a version. None: not known, and nothing shrinks on what is not known.

    Attributes:
        load: requests in progress, on average over the last seconds; those that wait for a first replica
            are not in it.
        peak: the highest such average in the quiet window; None until all of the window was seen.
        p95: seconds, while its replicas were all ready. seen: how many requests it is from.
        held: requests that wait at the front for a replica.
        idle: seconds since the front last had a request for it.
    """

    load: float | None = None
    peak: float | None = None
    p95: float | None = None
    seen: int = 0
    held: int = 0
    idle: float | None = None


@dataclass(frozen=True, slots=True)
class Now:
    """How a version is scaled: since when it has its replicas, unix time, and how many requests in
    progress a replica of it could not carry in time, learned when."""

    replicas: int
    since: float = 0.0
    capacity: float | None = None
    learned: float = 0.0


@dataclass(frozen=True, slots=True)
class Decision:
    replicas: int
    reason: str
    capacity: float | None = None  # what was learned by it


def decide(
    scale: Scale, state: Now, look: Look, now: float, *, shrink: bool = True
) -> Decision | None:
    """Another number of replicas, and why; None when it should stay as it is.

    Args:
        now: unix time, seconds.
        shrink: whether it may have fewer than now.
    """
    have = state.replicas
    if have == 0:
        if not look.held:
            return None
        return Decision(scale.within(1), f"{counted(look.held, 'request')} waited for a replica")
    per = _per_replica(scale, state, now)
    grown = _grown(scale, state, look, per)
    if grown is not None:
        return grown
    return _shrunk(scale, state, look, per, now) if shrink else None


def _per_replica(scale: Scale, state: Now, now: float) -> float:
    learned = state.capacity is not None and now - state.learned < LEARNED_FOR
    return min(scale.concurrency, state.capacity or 0.0) if learned else scale.concurrency


def _needed(load: float, per: float) -> int:
    return math.ceil(load / per - 1e-9)


def _grown(scale: Scale, state: Now, look: Look, per: float) -> Decision | None:
    have, load = state.replicas, look.load
    if have >= scale.max or load is None:
        return None
    if _needed(load, per) > have:
        reason = f"{load:.3g} requests in progress, at most {per:.3g} for each replica"
        return Decision(min(_needed(load, per), scale.max), reason)
    if scale.latency is None or look.p95 is None or look.seen < JUDGED:
        return None
    # With less than a request for each replica none of them waits for another: more would not help.
    if look.p95 <= scale.latency or load < have:
        return None
    capacity = load / have * RESERVE
    reason = (
        f"p95 {look.p95 * 1000:.3g} ms, at most {scale.latency * 1000:.3g} ms, with {load:.3g} "
        f"requests in progress"
    )
    return Decision(min(max(_needed(load, capacity), have + 1), scale.max), reason, capacity)


def _shrunk(scale: Scale, state: Now, look: Look, per: float, now: float) -> Decision | None:
    have, rested = state.replicas, now - state.since
    if look.held:
        return None
    if scale.min == 0 and look.idle is not None and min(look.idle, rested) >= scale.idle:
        return Decision(0, f"no request for {format_duration(round(look.idle))}")
    if look.peak is None or look.load is None or rested < scale.quiet:
        return None
    if scale.latency is not None and look.p95 is not None and look.p95 > scale.latency:
        return None
    target = max(scale.within(_needed(max(look.peak, look.load), per * RESERVE)), scale.min)
    if target >= have:
        return None
    reason = f"at most {look.peak:.3g} requests in progress for {format_duration(scale.quiet)}"
    return Decision(target, reason)
