"""What is written down of a service's requests, and how it is compared: `log:` and `monitor:` of its spec."""

from __future__ import annotations

import json
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from jobs.spec import fields

LOG_VARIABLE = "QUARTERDECK_SERVE_LOG"
"""By which the model server learns of it (`quarterdeck_serve/inferlog.py`)."""


class LogSpec(BaseModel):
    """The inference log of each replica: what came in, what was answered."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    sample: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = Field(
        0.1, description="share of the requests; 0: no log"
    )
    max: Annotated[fields.Bytes, Field(ge=1 << 20)] = Field(
        256 << 20, description="on the disk of each replica, at least 1MiB; the oldest goes first"
    )
    redact: Annotated[tuple[fields.Text, ...], Field(strict=False, max_length=256)] = Field(
        (), description="inputs and outputs (x), or places in their last axis (x[3])"
    )

    def to_text(self) -> str:
        return json.dumps({"sample": self.sample, "max": self.max, "redact": list(self.redact)})


def _log(value: object) -> object:
    """`log: off`, which YAML reads as false, and `log: on`."""
    if value in (False, "off"):
        return {"sample": 0.0}
    return {} if value in (True, "on") else value


LogField = Annotated[LogSpec, BeforeValidator(_log)]

MONTH = 30 * 86_400.0
MOST = 0.05
"""The highest level of one look, however rarely somebody looks."""


class MonitorSpec(BaseModel):
    """Windows of the log compared with a reference."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    every: Annotated[fields.Timeout, Field(ge=60)] = Field(86_400.0, description="a window")
    least: Annotated[int, Field(ge=50, le=1_000_000)] = Field(
        500, description="logged requests below which a window is not judged"
    )
    alarms: Annotated[float, Field(gt=0, le=30, allow_inf_nan=False)] = Field(
        1.0, description="false alarms in 30 days, at most, on average"
    )
    limit: Annotated[float, Field(gt=0, le=10, allow_inf_nan=False)] = Field(
        0.1, description="distance below which a difference does not matter"
    )
    reference: fields.DataRef | None = Field(
        None, description="a data set; without, the version's first window in production"
    )
    features: Annotated[tuple[fields.Text, ...], Field(strict=False, max_length=10_000)] = Field(
        (), description="what the places of the input are called, in order"
    )
    python: fields.LocalPath | None = Field(
        None, description="an interpreter with numpy and scipy; by default the controller's"
    )

    @property
    def level(self) -> float:
        """Chance of a false alarm that each look may have: `alarms` shared among the looks of a month.
        The average number of false alarms is the sum of the levels, whether or not looks depend on each
        other; one over it is the average run between two (Page, Biometrika 41, 1954)."""
        return min(MOST, self.alarms * self.every / MONTH)


def _monitor(value: object) -> object:
    """`monitor: 1d` is its interval alone; off is none."""
    if value in (False, "off"):
        return None
    if value is True:
        return {}
    return {"every": value} if isinstance(value, str | int | float) else value


MonitorField = Annotated[MonitorSpec | None, BeforeValidator(_monitor)]
