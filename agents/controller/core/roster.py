"""The jobs under care, and what follows from them: who waits, who holds capacity, what is held where.

All of it is kept as jobs change, not made when it is asked for: with a thousand nodes it is asked for a
thousand times a second.
"""

from __future__ import annotations

from collections.abc import Mapping

from agents.controller.core.live import Live
from jobs.base.names import job_name
from jobs.placement.scheduling import Queue

Holdings = Mapping[str, tuple[set[str], float, float]]
"""Node -> (ids of jobs there, GPUs held, CPUs held). Nodes on which nothing is held are left out."""


class Roster:
    def __init__(self) -> None:
        self.live: dict[int, Live] = {}
        self.waiting: dict[int, Live] = {}  # those of them that may be placed,
        self.queue = Queue()  # the same as the scheduler sees them,
        self.holding: dict[int, Live] = {}  # and those that hold capacity: a queue can be long
        self._booked: dict[int, tuple[str, ...]] = {}  # job -> nodes
        self._on: dict[str, dict[int, Live]] = {}  # node -> jobs
        self._busy: dict[str, tuple[set[str], float, float]] = {}

    @property
    def busy(self) -> Holdings:
        """What is held on which node. Not a copy."""
        return self._busy

    def add(self, live: Live) -> None:
        self.live[live.job.id] = live
        self.index(live)

    def drop(self, live: Live) -> None:
        self.live.pop(live.job.id, None)
        self.index(live)

    def index(self, live: Live) -> None:
        """To be called whenever a job has changed."""
        number = live.job.id
        known = number in self.live
        for index, member in ((self.waiting, live.waiting), (self.holding, live.holding)):
            if member and known:
                index[number] = live
            else:
                index.pop(number, None)
        if number in self.waiting:
            self.queue.put(live.request())
        else:
            self.queue.drop(number)
        attempt = live.job.attempt
        held = known and live.holding and attempt is not None
        nodes = tuple(one.node for one in attempt.allocations) if held and attempt else ()
        before = self._booked.get(number, ())
        if nodes == before:
            return
        for node in before:
            self._on[node].pop(number, None)
        for node in nodes:
            self._on.setdefault(node, {})[number] = live
        if nodes:
            self._booked[number] = nodes
        else:
            self._booked.pop(number, None)
        for node in {*before, *nodes}:
            self._count(node)

    def _count(self, node: str) -> None:
        """Anew from the jobs there, which are few: sums of differences would drift."""
        jobs = self._on[node]
        if not jobs:
            del self._on[node]
            self._busy.pop(node, None)
            return
        shapes = [live.shape for live in jobs.values()]
        self._busy[node] = (
            {job_name(number) for number in jobs},
            sum(shape.gpus for shape in shapes),
            sum(shape.cpus for shape in shapes),
        )
