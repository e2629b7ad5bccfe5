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

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from jobs.placement import reasons
from jobs.placement.capacity import NodeCapacity, Room, Shape, Share, need_of
from jobs.placement.fleet import Fleet
from jobs.placement.reasons import never_fits
from jobs.placement.waiting import Line, Queue, Request, order

__all__ = [
    "BACKFILL_DEPTH", "Claim", "NodeCapacity", "Placement", "Plan", "Queue", "Request", "Running",
    "Shape", "Share", "Standing", "never_fits", "order", "plan", "plan_on",
]  # fmt: skip

BACKFILL_DEPTH = 100
"""How many searches behind the head may fail before a pass gives up. Jobs of a shape that has failed
fail again without a search, so that only a queue of very many different shapes ever gets here; each
search looks at every node once, 0.1 ms for a thousand."""

PLACED_AT_ONCE = 500
"""How many jobs a pass starts at most; the next pass follows at once. Writing the placements down takes
far longer than deciding on them, and nothing else is decided meanwhile."""

PATIENCE = 3600.0
"""Seconds. A head that waits for ends that nobody knows claims as many nodes again for every such
time since it arrived: the nodes that it claimed first may be held for ever, and small jobs that
follow one another on all the others would starve it."""

NOWHERE: frozenset[int] = frozenset()


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


def plan(
    queue: Iterable[Request],
    nodes: Sequence[NodeCapacity],
    running: Iterable[Running],
    now: float,
) -> Plan:
    """Decide who starts now. The order of the arguments' items does not matter.

    Args:
        queue: the jobs that wait. None of them is in `running`.
        nodes: every known node with its totals.
        running: everything that holds a share of a node, adopted and stopping attempts included.
        now: the moment of the decision.
    """
    return plan_on(Queue(queue), Standing(), nodes, running, now)


def plan_on(
    queue: Queue,
    standing: Standing,
    nodes: Sequence[NodeCapacity],
    running: Iterable[Running],
    now: float,
) -> Plan:
    """As `plan`, for who decides again and again: of the queue and of what runs, only what has
    changed since costs anything."""
    return _Pass(standing.fleet(nodes, running), nodes, now).run(queue)


class Standing:
    """The nodes with all that runs on them, kept from one pass to the next."""

    def __init__(self) -> None:
        self._nodes: list[NodeCapacity] = []
        self._running: dict[int, Running] = {}
        self._fleet = Fleet(())

    def fleet(self, nodes: Sequence[NodeCapacity], running: Iterable[Running]) -> Fleet:
        """The resources that are free, for one pass to take from."""
        if self._nodes != nodes:
            self._nodes, self._running, self._fleet = list(nodes), {}, Fleet(nodes)
        before, self._running = self._running, {attempt.job: attempt for attempt in running}
        for job, attempt in self._running.items():
            known = before.pop(job, None)
            if known is not attempt and known != attempt:
                self._hold(attempt)
                if known is not None:
                    self._let_go(known)
        for attempt in before.values():
            self._let_go(attempt)
        return self._fleet.copy()

    def _hold(self, attempt: Running) -> None:
        for name, share in attempt.node_shares.items():
            self._fleet.hold(name, share, attempt.ends_by)

    def _let_go(self, attempt: Running) -> None:
        for name, share in attempt.node_shares.items():
            self._fleet.let_go(name, share, attempt.ends_by)


@dataclass(slots=True)
class _Wait:
    """Why jobs wait: in words, or the shape that finds no room, to be put in words later."""

    text: str = ""
    shape: Shape | None = None
    skip: frozenset[int] = NOWHERE


class _Pass:
    """One decision in the making."""

    def __init__(self, fleet: Fleet, nodes: Sequence[NodeCapacity], now: float) -> None:
        self.fleet, self.nodes, self.now = fleet, nodes, now
        self.result = Plan()
        self.beside: dict[int, Room] = {}  # what the claim leaves over, by node
        self.failures = 0  # searches behind the head that found too little
        # A shape that failed fails for the rest of the pass, since resources only shrink. Whether a
        # job would end before the claim begins, and the nodes it avoids, are part of the question.
        self.failed: dict[tuple[Shape, bool, frozenset[int]], _Wait] = {}

    def run(self, queue: Queue) -> Plan:
        result, now = self.result, self.now
        paused = queue.paused(now)
        waiting = [([job], _Wait(reasons.backing_off(at - now))) for job, at in paused.items()]
        lines = [line for line in queue.lines() if _first(line, 0, paused) < len(line)]
        at = [_first(line, 0, paused) for line in lines]
        heads = [(order(queue[line[at[n]][1]]), n) for n, line in enumerate(lines)]
        heapq.heapify(heads)
        while heads:
            (*_, job), n = heads[0]
            line, wait = lines[n], self._start(queue[job])
            if wait is not None:
                # It speaks for the whole line, but for those that pause.
                rest = [job for _, job in line[at[n] :] if job not in paused]
                waiting.append((rest, wait))
                heapq.heappop(heads)
                continue
            at[n] = _first(line, at[n] + 1, paused)
            if at[n] < len(line):
                heapq.heapreplace(heads, (order(queue[line[at[n]][1]]), n))
            else:
                heapq.heappop(heads)
        result.reasons = self._explained(waiting)
        if result.next_wake is None:
            result.next_wake = min(paused.values(), default=None)
        return result

    def _start(self, request: Request) -> _Wait | None:
        """Place a job, or say why it waits."""
        if len(self.result.placements) >= PLACED_AT_ONCE:
            self.result.next_wake = self.now
            return _Wait(reasons.LOOKED_AT_NEXT)
        skip = self._skipped(request) if request.avoid else NOWHERE
        brief = request.timeout is not None and self._ends_before_claim(request.timeout)
        wait = self.failed.get((request.shape, brief, skip))
        if wait is None and self.failures >= BACKFILL_DEPTH:
            wait = _Wait(reasons.too_far_behind(self._claim.job))
        if wait is not None:
            return wait
        chosen = self._search(request.shape, brief, skip)
        if len(chosen) == request.shape.nodes:
            self._place(request, chosen, brief)
            return None
        wait = self._fail(request, skip)
        self.failed[request.shape, brief, skip] = wait
        if wait.shape is not None:  # there is no room at all, however soon it would end
            self.failed[request.shape, not brief, skip] = wait
        return wait

    def _explained(self, waiting: Sequence[tuple[Sequence[int], _Wait]]) -> dict[int, str]:
        """The sentences, made last and once per shape: counting what is free has its price."""
        survey = reasons.Survey(self.fleet, self.nodes)
        texts: dict[int, str] = {}
        for jobs, wait in waiting:
            if not wait.text and wait.shape is not None:
                wait.text = survey.occupied(wait.shape, wait.skip)
            texts.update(dict.fromkeys(jobs, wait.text))
        if self.result.claim is not None:
            head = self.result.claim.job
            texts[head] = f"starts next: {texts[head]}"
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


def _first(line: Line, at: int, paused: Mapping[int, float]) -> int:
    """The place of the first job from `at` on that does not pause; the line's length without one."""
    while paused and at < len(line) and line[at][1] in paused:
        at += 1
    return at
