"""What the front has seen, by version: requests, errors, and how long they took (pure).

HAProxy has no histograms of its own, so each of its log lines is counted:
`BACKEND STATUS TERMINATION MICROSECONDS`.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

FIRST = 50.0
"""Microseconds: below it all are one."""
GROWTH = 1.1
"""Each bucket of the histogram is a tenth wider than the one before it."""
_LOG = math.log(GROWTH)


def bucket(microseconds: float) -> int:
    """The place in the histogram: 0 up to `FIRST`, then each up to `GROWTH` times the one before."""
    if microseconds <= FIRST:
        return 0
    return math.ceil(math.log(microseconds / FIRST) / _LOG)


class Counts:
    """Of one version, since the front began."""

    def __init__(self) -> None:
        self.seen = 0
        self.bad = 0
        self.spent = 0  # microseconds
        self.statuses: Counter[int] = Counter()
        self.times: Counter[int] = Counter()

    def add(self, status: int, microseconds: int, *, bad: bool) -> None:
        self.seen += 1
        self.bad += bad
        self.spent += microseconds
        self.statuses[status] += 1
        self.times[bucket(microseconds)] += 1

    def to_json(self) -> dict[str, Any]:
        return {
            "seen": self.seen,
            "bad": self.bad,
            "spent": self.spent,
            "statuses": {str(status): count for status, count in self.statuses.items()},
            "times": {str(place): count for place, count in self.times.items()},
        }


class Tally:
    """The counts of all versions, from HAProxy's log as it comes."""

    def __init__(self) -> None:
        self.counts: dict[str, Counts] = {}
        self.other: list[str] = []  # lines that are no requests: what HAProxy has to say
        self._rest = b""

    def feed(self, data: bytes) -> None:
        """Count whole lines; the last one may come in parts."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._line(line.decode(errors="replace"))

    def _line(self, line: str) -> None:
        parts = line.split()
        if len(parts) != 4 or not _is_number(parts[1]) or not _is_number(parts[3]):
            if line.strip():
                self.other = [*self.other[-9:], line.strip()]
            return
        name, status, how = parts[0], int(parts[1]), parts[2]
        if how.startswith("C") or (status < 0 and not how.startswith("S")):
            return  # the caller hung up: nobody's fault, and no answer to judge by
        counts = self.counts.setdefault(name, Counts())
        bad = status >= 500 or status < 0 or how.startswith("S")
        counts.add(status, max(0, int(parts[3])), bad=bad)


def _is_number(text: str) -> bool:
    return text.lstrip("-").isdigit()
