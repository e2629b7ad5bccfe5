"""What the engine of pipelines asks of those who take the steps that are no jobs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from agents.controller.core.live import Live
from jobs.base.errors import Conflict
from jobs.flows.acts import Act
from jobs.flows.course import End
from jobs.store.copies import Copy
from jobs.store.writing import Caller


@dataclass(frozen=True, slots=True)
class Order:
    """A step that runs, as it is now.

    Args:
        asked: the fields of `act` that may refer to something, filled in.
        left: what its effect has left, None as long as it has not taken place.
        who: in whose name, with the step in `via`.
        since: when this try began. now: both in unix time.
        timeout: of the step, seconds.
        stopping: the run is being stopped.
    """

    act: Act
    asked: Mapping[str, str]
    left: Mapping[str, Any] | None
    who: Caller
    since: float
    now: float
    timeout: float | None
    stopping: bool


@dataclass(frozen=True, slots=True)
class Look:
    """How a step is: over, or what it waits for, in words."""

    end: End | None = None
    waits: str = ""


class Acts(Protocol):
    async def look(self, order: Order) -> Look:
        """Take a step as far as it goes now. Level-triggered: asked again and again until it is over, and
        whatever was killed in between, what it does is done once.

        Raises QuarterdeckError for what fails it, Unreachable and StorageError for what may pass.
        """

    async def check(self, act: Act, asked: Mapping[str, str | None], who: Caller) -> None:
        """Whether it could be done at all, before anything starts. `asked` has None for what is not
        known yet. Raises QuarterdeckError."""

    async def copied(self, live: Live, copy: Copy) -> None:
        """A job's checkpoints have been copied: what they hold of a stream's releases becomes versions of
        its model. Asked again for what is known already, and after an error.

        Raises QuarterdeckError for what may pass."""


class NoActs:
    """Of a controller that nobody has given any."""

    def __init__(self, _controller: object) -> None:
        pass

    async def look(self, order: Order) -> Look:
        raise Conflict("this controller does not support such steps")

    async def check(self, act: Act, asked: Mapping[str, str | None], who: Caller) -> None:
        raise Conflict("this controller does not support such steps")

    async def copied(self, live: Live, copy: Copy) -> None:
        pass
