"""What starts a pipeline beside the clock: `on: data digits`, `on: alert RULE`, `on: drift SERVICE`. Pure.

A trigger has causes: a version of a data set, one occurrence of an alert. Each cause comes once, by its
key. Drift is an alert: of a rule whose name begins with `drift`, about the service.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict

from jobs.base.errors import InvalidInput
from jobs.base.units import show
from jobs.data.names import check_name

What = Literal["data", "alert", "drift"]
_FORM = "data NAME, alert RULE or drift SERVICE"
DRIFT = "drift"
"""How the names of rules about drift begin."""


class Trigger(BaseModel):
    """What is looked out for, and its name."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    what: What
    name: str

    def told(self) -> str:
        return f"on {self.what} {self.name}"


def read(value: object) -> object:
    """`data digits`, or what it was read as before. Raises ValueError, in words."""
    if not isinstance(value, str):
        return value
    what, _, name = value.strip().partition(" ")
    name = name.strip()
    if what not in ("data", "alert", "drift") or not name or " " in name:
        raise ValueError(f"found {show(value)}; allowed: {_FORM}")
    if what == "data":
        try:
            check_name(name)
        except InvalidInput as error:
            raise ValueError(error.message) from None
    return {"what": what, "name": name}


TriggerField = Annotated[Trigger, BeforeValidator(read)]


@dataclass(frozen=True, slots=True)
class Cause:
    """Something that has happened. `key` names it for ever, `value` is what the pipeline is told of it;
    `at` is unix time."""

    key: str
    value: str
    at: float


def about(service: str, subject: str) -> bool:
    """Whether the subject of an alert is this service: `service digits`, `digits@production`."""
    return service in re.split(r"[\s@:,/]+", subject)
