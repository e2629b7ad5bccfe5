"""Who starts now, and why the others wait: one pure decision over the whole queue.

Rules:

1. Gangs are all-or-nothing: a job gets all its nodes at once, or waits.
2. The bigger priority goes first, then the earlier arrival, then the smaller id.
3. Best fit: of the nodes that have room, those where the fewest GPUs, then the fewest CPUs, are free.
4. Backfill never delays the head of the queue (EASY backfill, Lifka 1995). The first job that has to
   wait, though the nodes in service could run it, claims the nodes that are free for it first. A
   later job starts only beside that claim: on other nodes, or on what the claim leaves over, or,
   where the ends of all that is in the claim's way are known, if it ends before the claim begins.
   A known end is a bound, so the head starts at that moment or before. Where an end is not known,
   what the head needs on the claimed nodes is kept from everybody, and more nodes with time.
5. A job that the nodes in service could not run even if they were empty claims nothing.

Clocks: `now`, `arrival`, `not_before` and `ends_by` are seconds on one clock, that of the caller.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from jobs import reasons
from jobs.capacity import NodeCapacity, Room, Shape, Share, need_of
from jobs.fleet import Fleet
from jobs.reasons import never_fits

__all__ = [
    "BACKFILL_DEPTH", "Claim", "NodeCapacity", "Placement", "Plan", "Request", "Running", "Shape",
    "Share", "never_fits", "order", "plan",
]  # fmt: skip

BACKFILL_DEPTH = 100
"""How many searches behind the head may fail before a pass gives up. Jobs of a shape that has failed
fail again without a search, so that only a queue of very many different shapes ever gets here; each
search looks at every node once, 0.1 ms for a thousand."""

PLACED_AT_ONCE = 2_000
"""How many jobs a pass starts at most; the next pass follows at once. Writing the placements down takes
far longer than deciding on them, and nothing else is decided meanwhile."""

PATIENCE = 3600.0
"""Seconds. A head that waits for ends that nobody knows claims as many nodes again for every such
time since it arrived: the nodes that it claimed first may be held for ever, and small jobs that
follow one another on all the others would starve it."""

NOWHERE: frozenset[int] = frozenset()


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


@dataclass(frozen=True, slots=True)
class Running:
    """A live attempt: what it holds of which node, and by when it will surely have ended."""

    job: int
    node_shares: Mapping[str, Share]
    priority: int = 0
    ends_by: float | None = None


@dataclass(frozen=True, slots=True)
class Placement:
    """A job that starts now. `nodes` are in the order of node ranks."""

    job: int
    nodes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Claim:
    """What is kept for the head of the queue. `at` is when it will start at the latest, None when it
    waits for something whose end nobody knows."""

    job: int
    priority: int
    nodes: tuple[str, ...]
    at: float | None


@dataclass(slots=True)
class Plan:
    """The decision. `reasons` has one sentence for each job that was not placed; it is for people,
    may change with every pass, and is cheap to make again. `next_wake` is when the next `not_before`
    passes: until then, time alone lets nobody start."""

    placements: list[Placement] = field(default_factory=list)
    reasons: dict[int, str] = field(default_factory=dict)
    next_wake: float | None = None
    claim: Claim | None = None


def order(request: Request) -> tuple[int, float, int]:
    """The sort key of the queue."""
    return (-request.priority, request.arrival, request.job)


def plan(
    queue: Sequence[Request],
    nodes: Sequence[NodeCapacity],
    running: Sequence[Running],
    now: float,
) -> Plan:
    """Decide who starts now. The order of the arguments' items does not matter.

    Args:
        queue: the jobs that wait. None of them is in `running`.
        nodes: every known node with its totals.
        running: everything that holds a share of a node, adopted and stopping attempts included.
        now: the moment of the decision.
    """
    return _Pass(nodes, running, now).run(queue)


@dataclass(slots=True)
class _Wait:
    """Why jobs wait: in words, or the shape that finds no room, to be put in words later."""

    text: str = ""
    shape: Shape | None = None
    skip: frozenset[int] = NOWHERE


class _Pass:
    """One decision in the making."""

    def __init__(
        self, nodes: Sequence[NodeCapacity], running: Sequence[Running], now: float
    ) -> None:
        self.nodes = nodes
        self.now = now
        self.fleet = Fleet(nodes)
        for attempt in running:
            for name, share in attempt.node_shares.items():
                self.fleet.hold(name, share, attempt.ends_by)
        self.fleet.build()
        self.result = Plan()
        self.beside: dict[int, Room] = {}  # what the claim leaves over, by node
        self.failures = 0  # searches behind the head that found too little

    def run(self, queue: Sequence[Request]) -> Plan:
        result, now = self.result, self.now
        # A shape that failed fails for the rest of the pass, since resources only shrink. Whether a
        # job would end before the claim begins, and the nodes it avoids, are part of the question.
        failed: dict[tuple[Shape, bool, frozenset[int]], _Wait] = {}
        waiting: list[tuple[int, _Wait]] = []
        wakes: list[float] = []
        next_pass = _Wait(reasons.LOOKED_AT_NEXT)
        for request in sorted(queue, key=order):
            if request.not_before > now:
                wakes.append(request.not_before)
                text = reasons.backing_off(request.not_before - now)
                waiting.append((request.job, _Wait(text)))
                continue
            if len(result.placements) >= PLACED_AT_ONCE:
                wakes.append(now)
                waiting.append((request.job, next_pass))
                continue
            skip = self._skipped(request) if request.avoid else NOWHERE
            brief = request.timeout is not None and self._ends_before_claim(request.timeout)
            wait = failed.get((request.shape, brief, skip))
            if wait is None and self.failures >= BACKFILL_DEPTH:
                wait = _Wait(reasons.too_far_behind(self._claim.job))
            if wait is None:
                chosen = self._search(request.shape, brief, skip)
                if len(chosen) == request.shape.nodes:
                    self._place(request, chosen, brief)
                    continue
                wait = self._fail(request, skip)
                failed[request.shape, brief, skip] = wait
                if wait.shape is not None:  # there is no room at all, however soon it would end
                    failed[request.shape, not brief, skip] = wait
            waiting.append((request.job, wait))
        result.reasons = self._explained(waiting)
        result.next_wake = min(wakes, default=None)
        return result

    def _explained(self, waiting: Sequence[tuple[int, _Wait]]) -> dict[int, str]:
        """The sentences, made last and once per shape: counting what is free has its price."""
        survey = reasons.Survey(self.fleet, self.nodes)
        head = self.result.claim.job if self.result.claim else None
        texts: dict[int, str] = {}
        for job, wait in waiting:
            if not wait.text and wait.shape is not None:
                wait.text = survey.occupied(wait.shape, wait.skip)
            texts[job] = f"starts next: {wait.text}" if job == head else wait.text
        return texts

    def _skipped(self, request: Request) -> frozenset[int]:
        """The nodes to avoid, or none of them if the job could not run without."""
        index, shape = self.fleet.index, request.shape
        skip = frozenset(index[name] for name in request.avoid if name in index)
        left = set(self.fleet.hosts(shape)) - skip
        return skip if len(left) >= shape.nodes else NOWHERE

    def _ends_before_claim(self, timeout: float) -> bool:
        claim = self.result.claim
        return claim is not None and claim.at is not None and self.now + timeout <= claim.at

    def _search(self, shape: Shape, brief: bool, skip: frozenset[int]) -> list[int]:
        return self.fleet.find(shape, skip, {} if brief else self.beside, shape.nodes)

    def _place(self, request: Request, chosen: list[int], brief: bool) -> None:
        ask = need_of(request.shape)
        until = None if request.timeout is None else self.now + request.timeout
        for i in chosen:
            self.fleet.take(i, ask, until)
            if not brief and i in self.beside:
                self.beside[i].take(ask)
        names = tuple([self.fleet.names[i] for i in sorted(chosen)])
        self.result.placements.append(Placement(request.job, names))

    def _fail(self, request: Request, skip: frozenset[int]) -> _Wait:
        """Why a job that found too few nodes waits. The first one that could run stakes the claim."""
        shape = request.shape
        if len(self.fleet.hosts(shape)) < shape.nodes:
            return _Wait(reasons.impossible(shape, self.nodes))
        if self.result.claim is None:
            self._stake(request, skip)
            return _Wait(shape=shape, skip=skip)
        self.failures += 1
        if len(self._search(shape, True, skip)) == shape.nodes:
            claim = self._claim
            return _Wait(reasons.behind(claim.job, claim.priority, claim.nodes))
        return _Wait(shape=shape, skip=skip)

    @property
    def _claim(self) -> Claim:
        assert self.result.claim is not None, "asked for only after the head has claimed"
        return self.result.claim

    def _stake(self, request: Request, skip: frozenset[int]) -> None:
        """Claim for the head the nodes that are free for it first."""
        fleet, ask = self.fleet, need_of(request.shape)
        ranked: list[tuple[bool, float, int, int, int, int]] = []
        for i in fleet.hosts(request.shape):
            if i not in skip:
                at = fleet.ready_at(i, ask, self.now)
                free = fleet.rooms[i].free_gpus
                gpus, cpus = max(0, ask.gpus - free), max(0, ask.cpus - fleet.rooms[i].cpus)
                ranked.append((at is None, at or 0.0, gpus, cpus, free, i))
        ranked.sort()
        count = request.shape.nodes
        at = None if ranked[count - 1][0] else ranked[count - 1][1]
        if at is None:
            count += count * max(0, int((self.now - request.arrival) // PATIENCE))
        picked = ranked[:count]
        for *_, i in picked:
            left = fleet.room_at(i, at, self.now)
            left.take(ask)
            self.beside[i] = left
        names = tuple(fleet.names[i] for i in sorted(p[-1] for p in picked))
        self.result.claim = Claim(request.job, request.priority, names, at)
