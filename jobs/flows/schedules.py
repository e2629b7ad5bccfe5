"""When a pipeline runs by itself, and what happens to the moments that nobody was there for. Pure.

A schedule has moments: those of a cron line in a time zone, or every so many seconds since it was made.
Each moment comes once. What was looked at, up to `seen`, is never looked at again, so a clock that is set
back repeats nothing. Changes of summer time are those of Debian's cron: a time of day that is left out
comes right after the gap, one that comes twice counts the first time, and what runs every hour or every
few minutes goes by what has passed.
"""

from __future__ import annotations

import difflib
import hashlib
import zoneinfo
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Annotated, Any, Literal, Self

from cronsim import CronSim, CronSimError
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from jobs.base.units import format_duration, parse_duration, show
from jobs.flows.triggers import TriggerField
from jobs.spec import fields, problems

LATE = 60.0
"""Seconds after its moment from which a firing counts as missed: a controller that is started again, or
that is busy, should not make anybody think of catching up."""
MAX_CATCH_UP = 1000
MAX_QUEUED = 100
"""Firings that wait for the one before, at most."""
_LOOK_AT = 100_000
"""Moments that are looked at in one go; of more, the oldest are left out."""

CatchUp = Literal["skip", "once", "all"]
Overlap = Literal["skip", "queue", "replace"]


def _cron(text: str) -> str:
    try:
        moments = CronSim(text, datetime(2026, 1, 1, tzinfo=UTC))
    except CronSimError as error:
        raise ValueError(f"found {show(text)}: {str(error).lower()}; allowed: {_FORM}") from None
    try:
        next(moments)
    except StopIteration:
        raise ValueError(f"{show(text)} never comes; allowed: {_FORM}") from None
    return text


_FORM = "five fields as in crontab: minute, hour, day of month, month, day of week"


def _zone(text: str) -> str:
    try:
        zoneinfo.ZoneInfo(text)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        names = sorted(zoneinfo.available_timezones())
        near = difflib.get_close_matches(text, names, 1)
        also = f"; did you mean {near[0]}?" if near else "; allowed: one such as Europe/Berlin"
        raise ValueError(f"there is no time zone {show(text)}{also}") from None
    return text


def _every(value: object) -> float:
    seconds = parse_duration(value)
    if seconds < 1:
        raise ValueError(f"found {show(value)}; allowed: 1s or more")
    return seconds


class Schedule(BaseModel):
    """When something runs by itself: a cron line, a distance, or what it waits for."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    cron: Annotated[str, AfterValidator(_cron)] | None = Field(
        None, description="as in crontab: minute, hour, day of month, month, day of week"
    )
    every: Annotated[float, BeforeValidator(_every)] | None = Field(
        None, description="a distance such as 6h, counted from when the schedule was added"
    )
    on: TriggerField | None = Field(
        None, description="data NAME (a new version), alert RULE, or drift SERVICE"
    )
    into: fields.Identifier | None = Field(
        None, description="with on: the parameter that becomes what has happened, such as digits@3"
    )
    cooldown: fields.Timeout | None = Field(
        None, description="with on: so long after a run began, nothing starts another one"
    )
    zone: Annotated[str, AfterValidator(_zone)] = Field(
        "UTC", description="the time zone of cron, such as Europe/Berlin"
    )
    catch_up: CatchUp = Field(
        "once",
        description="of moments missed while the controller was away: none, the last, or all of them",
    )
    at_most: Annotated[int, Field(ge=1, le=MAX_CATCH_UP)] = Field(
        10, description="with catch_up: all, how many, the newest ones"
    )
    overlap: Overlap = Field(
        "skip",
        description="while the run before is not over: skip, queue (default with on), or replace it",
    )
    jitter: fields.Patience = Field(
        0.0,
        description="each firing is late by up to so much, by chance, always the same for a moment",
    )

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        given = [name for name in ("cron", "every", "on") if getattr(self, name) is not None]
        if len(given) != 1:
            found = " and ".join(given) or "none"
            raise ValueError(f"found {found} of cron, every and on; allowed: one of them")
        if self.on is None and (lost := [n for n in ("into", "cooldown") if getattr(self, n)]):
            raise ValueError(f"found {lost[0]} without on; allowed: with on")
        return self

    @model_validator(mode="before")
    @classmethod
    def _queued(cls, data: Any) -> Any:
        """New data that comes while a run goes on is not left out, unless somebody says so."""
        if isinstance(data, dict) and data.get("on") is not None:
            return {"overlap": "queue", **data}
        return data

    def moments(self, after: float, anchor: float) -> Iterator[float]:
        """Moments after a unix time, in order, without end.

        Args:
            anchor: unix time from which `every` counts.
        """
        if self.every is not None:
            number = max(int((after - anchor) // self.every) + 1, 1)
            while True:
                moment = anchor + number * self.every
                number += 1
                if moment > after:
                    yield moment
        if self.cron is None:
            return
        start = datetime.fromtimestamp(after, zoneinfo.ZoneInfo(self.zone))
        for found in CronSim(self.cron, start):
            moment = found.timestamp()
            if moment > after:
                yield moment

    def late_by(self, name: str, moment: float) -> float:
        """Seconds by which a firing comes after its moment, from 0 to `jitter`."""
        if not self.jitter:
            return 0.0
        digest = hashlib.sha256(f"{name}:{moment!r}".encode()).digest()
        return int.from_bytes(digest[:8], "big") / 2**64 * self.jitter

    def told(self) -> str:
        """In words: `30 2 * * * Europe/Berlin`, `every 6h`."""
        if self.on is not None:
            return self.on.told()
        if self.every is not None:
            return f"every {format_duration(self.every)}"
        return f"{self.cron} {self.zone}"

    def to_json(self) -> dict[str, Any]:
        return self.model_dump(mode="json")

    @classmethod
    def from_json(cls, data: Any) -> Schedule:
        """Raises InvalidInput naming every field that is wrong."""
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise problems.in_data(problems.find(error, cls), "schedule") from None


@lru_cache(maxsize=1024)
def of(text: str) -> Schedule:
    """A schedule from its JSON text, which engines look at again and again."""
    return Schedule.model_validate_json(text, strict=False)


@dataclass(frozen=True, slots=True)
class Due:
    """What the clock asks of a schedule.

    Args:
        fire: moments that fire now, in order.
        missed: moments that were missed, and are left out.
        seen: up to where moments have been looked at.
        next: when to look again, unix time.
    """

    fire: tuple[float, ...]
    missed: tuple[float, ...]
    seen: float
    next: float


def due(schedule: Schedule, name: str, anchor: float, seen: float, now: float) -> Due:
    """Which moments fire now.

    Args:
        anchor, seen: unix times: when the schedule was made, and up to where it was looked at.
    """
    if schedule.on is not None:
        return Due((), (), seen, now)
    found: list[float] = []
    upcoming = schedule.moments(seen, anchor)
    moment = next(upcoming)
    while moment + schedule.late_by(name, moment) <= now:
        found.append(moment)
        if len(found) > _LOOK_AT:
            del found[: _LOOK_AT // 2]
        moment = next(upcoming)
    wait = moment + schedule.late_by(name, moment)
    late = [item for item in found if item + schedule.late_by(name, item) <= now - LATE]
    known = set(late)
    on_time = [item for item in found if item not in known]
    keep: list[float] = []
    if schedule.catch_up == "once" and not on_time:
        keep = late[-1:]
    elif schedule.catch_up == "all":
        keep = late[-schedule.at_most :]
    missed = late[: len(late) - len(keep)]
    return Due(tuple(sorted(keep + on_time)), tuple(missed), found[-1] if found else seen, wait)


Verdict = Literal["start", "skip", "wait", "replace"]


def admit(schedule: Schedule, *, running: bool, waiting: int) -> Verdict:
    """What happens to a firing, given whether the run before is not over, and how many wait."""
    if not running and not waiting:
        return "start"
    if schedule.overlap == "replace":
        return "replace"
    if schedule.overlap == "queue" and waiting < MAX_QUEUED:
        return "wait"
    return "skip"
