"""Looking through the lines of all ranks, merged by time, however many there are.

Pure but for the stream it is given. Of what passes only a stretch is kept.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from console.tui.core.draw.format import moment
from jobs.wire.views import LogLine

BEFORE, AFTER = 2000, 2000
"""Lines that are kept on either side of a moment that is looked at."""

PATIENCE = 20_000
"""Lines that are passed over before a moment is reached; beyond that less is looked at before it."""

_LEADS = ((5.0, PATIENCE), (0.2, PATIENCE), (0.0, None))
"""Seconds before a moment from which lines are read, so that it does not stand at the top."""

_LONGER = ((5.0, PATIENCE), (0.2, PATIENCE), (300.0, PATIENCE), (None, None))
"""The same, where something before it is what is wanted: in the end all that was written."""


class Spot(NamedTuple):
    """A line of the merged log; spots compare as the lines stand."""

    at: float
    rank: int
    offset: int


class Lines(Iterator[Any], Protocol):
    def close(self) -> None: ...


Open = Callable[[float | None, str | None], Lines]
"""(from this moment on, only what matches this expression) -> a stream of `LogLine`."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """Neighbouring lines; `index` is of the one that is looked at."""

    lines: list[LogLine]
    index: int


def spot(line: LogLine) -> Spot:
    return Spot(moment(line["at"]) or 0.0, line["rank"], line["offset"])


def find(read: Open, needle: str, here: Spot, *, backwards: bool) -> Spot | None:
    """The line with `needle` in it, in any case, that is next after `here` or before it, going round
    once. None when there is none."""
    grep = f"(?i){re.escape(needle)}"
    if not backwards:
        with closing(read(here.at, grep)) as stream:
            following = next((s for s in map(spot, stream) if s > here), None)
        if following is not None:
            return following
        with closing(read(None, grep)) as stream:
            return next(map(spot, stream), None)
    last: Spot | None = None
    with closing(read(None, grep)) as stream:
        for found in map(spot, stream):
            if found >= here and last is not None and last < here:
                break
            last = found
    return last


def around(
    read: Open, when: float, mark: Spot | None = None, *, earlier: bool = False
) -> Stretch | None:
    """The lines round a moment, or round the line `mark` of that moment. None when nothing was written
    from then on.

    Args:
        earlier: look for what comes before it, however long before.
    """
    found: Stretch | None = None
    for lead, patience in _LONGER if earlier else _LEADS:
        start = None if lead is None else when - lead
        found = _from(read, start, when, mark, patience) or found
        if found is not None and (found.index or not earlier):
            break
    return found


def _from(
    read: Open, start: float | None, when: float, mark: Spot | None, patience: int | None
) -> Stretch | None:
    before: deque[LogLine] = deque(maxlen=BEFORE)
    passed = 0
    with closing(read(start, None)) as stream:
        for one in stream:
            here = spot(one)
            if here >= mark if mark is not None else here.at >= when:
                after = [more for more, _ in zip(stream, range(AFTER), strict=False)]
                return Stretch([*before, one, *after], len(before))
            before.append(one)
            passed += 1
            if patience is not None and passed >= patience:
                return None
    return None
