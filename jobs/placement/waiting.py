"""The jobs that wait, kept in the order in which the scheduler looks at them.

Ten thousand jobs wait, but they are of a few hundred kinds, and of a kind the first one speaks for all:
when it finds no room, neither do the others. So the queue is kept in lines, one per kind, as jobs come
and go, and a pass costs what the kinds cost.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from jobs.placement.capacity import Shape

Line = list[tuple[float, int]]
"""The jobs of one kind, (arrival, job), sorted."""
Kind = tuple[int, Shape, float | None, frozenset[str]]
"""What makes jobs alike to the scheduler: priority, shape, timeout, nodes to avoid."""


@dataclass(frozen=True, slots=True)
class Request:
    """A job that waits.

    `timeout` is the longest that it will hold its nodes once placed, staging and grace included; None
    without a limit. It is not considered before `not_before`. The nodes it should `avoid` (where it
    has just failed) are left out as long as enough others could run it.
    """

    job: int
    shape: Shape
    priority: int
    arrival: float
    user: str
    timeout: float | None = None
    avoid: frozenset[str] = frozenset()
    not_before: float = 0

    @property
    def kind(self) -> Kind:
        return self.priority, self.shape, self.timeout, self.avoid


def order(request: Request) -> tuple[int, float, int]:
    """The sort key of the queue."""
    return (-request.priority, request.arrival, request.job)


class Queue:
    """Requests by line. Not changed by a pass: what was placed is dropped by who placed it."""

    def __init__(self, requests: Iterable[Request] = ()) -> None:
        self._requests: dict[int, Request] = {}
        self._lines: dict[Kind, Line] = {}
        self._later: dict[int, float] = {}  # of those that once had to pause: until when
        for request in requests:
            self._requests[request.job] = request
            self._lines.setdefault(request.kind, []).append((request.arrival, request.job))
            if request.not_before:
                self._later[request.job] = request.not_before
        for line in self._lines.values():
            line.sort()

    def __len__(self) -> int:
        return len(self._requests)

    def __getitem__(self, job: int) -> Request:
        return self._requests[job]

    def __iter__(self) -> Iterator[Request]:
        return iter(self._requests.values())

    def put(self, request: Request) -> None:
        """Add a job, or what it asks for by now."""
        known = self._requests.get(request.job)
        if known is request or known == request:
            return
        self.drop(request.job)
        self._requests[request.job] = request
        insort(self._lines.setdefault(request.kind, []), (request.arrival, request.job))
        if request.not_before:
            self._later[request.job] = request.not_before

    def drop(self, job: int) -> None:
        """Take a job out; nothing happens when it is not here."""
        request = self._requests.pop(job, None)
        if request is None:
            return
        line = self._lines[request.kind]
        del line[bisect_left(line, (request.arrival, job))]
        if not line:
            del self._lines[request.kind]
        self._later.pop(job, None)

    def lines(self) -> Iterable[Line]:
        """The lines, in no order that matters; not to be changed."""
        return self._lines.values()

    def paused(self, now: float) -> dict[int, float]:
        """The jobs that must not start yet, each with the moment from which on it may."""
        return {job: at for job, at in self._later.items() if at > now}
