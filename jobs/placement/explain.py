"""Why a job waits, and the smallest changes that would let it start now.

Every suggestion was tried: it is only made when `plan()` on the changed input starts the job. For a
job that pauses before its next attempt, they are what would let it start when the pause is over.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from jobs.base.errors import NotFound
from jobs.base.units import format_size
from jobs.base.words import counted, duration, joined, listed, number
from jobs.placement.blockers import jobs_in_the_way
from jobs.placement.capacity import MICRO, NodeCapacity, hosts, need_of
from jobs.placement.scheduling import Plan, Request, Running, order, plan
from jobs.wire.views import Unblock

TRIES = 40
"""How many passes each kind of change may cost. A pass over the largest queues takes some 25 ms."""

ALONE = TRIES // 4
"""How many of these tries look for one thing that would do alone."""

NAMED = 8
"""More running jobs than this are counted rather than named, and nobody is told to cancel them."""

PRIORITY_MAX = 100
"""The highest priority that a job may ask for."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Case:
    """The job with all that decides about it. `others` is the queue without the job."""

    request: Request
    others: Sequence[Request]
    nodes: Sequence[NodeCapacity]
    running: Sequence[Running]
    now: float

    def decide(self) -> Plan:
        """The plan. Jobs behind ours cannot matter to it, and are left out."""
        ours = order(self.request)
        ahead = [other for other in self.others if order(other) < ours]
        return plan([*ahead, self.request], self.nodes, self.running, self.now)

    def starts(self) -> bool:
        return self.request.job not in self.decide().reasons


@dataclass(frozen=True, slots=True)
class _Found:
    """A change that works: how many things change, and the part of its wish that the job gives up."""

    things: int
    given_up: float
    change: str
    command: str = ""


_Try = Callable[[_Case], bool]


def explain_waiting(
    job: int,
    queue: Sequence[Request],
    nodes: Sequence[NodeCapacity],
    running: Sequence[Running],
    now: float,
) -> tuple[list[str], list[Unblock]]:
    """Explain one job of the queue; the other arguments are those of `plan`.

    Returns sentences, the most important first, and verified changes, the smallest first. Both hold
    for `now`. Raises NotFound if the job is not in the queue.
    """
    request = next((request for request in queue if request.job == job), None)
    if request is None:
        raise NotFound(f"j{job} is not waiting in the queue", "`qd jobs` shows what it does.")
    case = _Case(request, [other for other in queue if other.job != job], nodes, running, now)
    decided = case.decide()
    if job not in decided.reasons:
        return ["starts next: there is room for it now"], []
    sentences = [decided.reasons[job]]
    if request.not_before > now:
        if replace(case, now=request.not_before).starts():
            wait = duration(request.not_before - now)
            return sentences, [Unblock(change=f"wait {wait} for its next attempt", command="")]
        # What else is in its way shows when its pause is taken away.
        case = replace(case, request=replace(request, not_before=now))
        decided = case.decide()
        if job in decided.reasons:
            sentences.append(decided.reasons[job])
    sentences += _background(case, decided)
    found = [
        change
        for search in (_back_in_service, _smaller_asks, _jobs_that_end, _overtaking)
        for change in search(case, _limited(TRIES))
    ]
    found.sort(key=lambda change: (change.things, change.given_up))
    return sentences, [Unblock(change=f.change, command=f.command) for f in found]


def _limited(tries: int) -> _Try:
    """Tries cases, and says no when there were too many."""
    left = tries

    def works(case: _Case) -> bool:
        nonlocal left
        left -= 1
        return left >= 0 and case.starts()

    return works


def _largest(below: int, works: Callable[[int], bool]) -> int:
    """The largest number from 1 to `below - 1` that works, found by bisection; 0 if none was."""
    good, bad = 0, below
    while bad - good > 1:
        middle = (good + bad) // 2
        if works(middle):
            good = middle
        else:
            bad = middle
    return good


def _smallest(items: Sequence[T], works: Callable[[Sequence[T]], bool], alone: int) -> list[T]:
    """A set of items that works and from which none can be left out; empty if all together do not.

    Earlier items are preferred. A single one is found if it is among the first `alone`.
    """
    for item in items[:alone]:
        if works([item]):
            return [item]
    if len(items) <= min(alone, 1) or not works(items):
        return []
    enough = _largest(len(items), lambda left_out: works(items[: len(items) - left_out]))
    chosen = list(items[: len(items) - enough])
    for item in chosen[:-1]:  # the last one is needed: without it the set was too small
        fewer = [other for other in chosen if other is not item]
        if works(fewer):
            chosen = fewer
    return chosen


def _background(case: _Case, decided: Plan) -> list[str]:
    """What else a person wants to know: who is first, and when."""
    claim, request = decided.claim, case.request
    if claim is None:
        return []
    sentences = []
    when = "" if claim.at is None else f" in {duration(claim.at - case.now)} at the latest"
    kept = listed(claim.nodes)
    if claim.job == request.job:
        sentences.append(
            f"{kept} {_are(claim.nodes)} kept for it" + (when and f"; it starts{when}")
        )
    elif when:
        sentences.append(f"j{claim.job} starts{when}")
    endless = [
        f"j{attempt.job}"
        for attempt in case.running
        if attempt.ends_by is None and any(name in attempt.node_shares for name in claim.nodes)
    ]
    if claim.at is None and endless:
        limit = "has no time limit" if len(endless) == 1 else "have no time limit"
        sentences.append(f"{listed(endless)} on {kept} {limit}")
    return sentences


def _back_in_service(case: _Case, works: _Try) -> list[_Found]:
    """Nodes that are out of service."""
    resting = hosts([node for node in case.nodes if not node.schedulable], case.request.shape)
    drained = [node for node in resting if node.why_not.startswith("drain")]

    def returned(back: Sequence[NodeCapacity]) -> bool:
        names = {node.name for node in back}
        nodes = [replace(n, schedulable=True) if n.name in names else n for n in case.nodes]
        return works(replace(case, nodes=nodes))

    back = _smallest(drained, returned, ALONE)
    if back:
        names = [node.name for node in back]
        command = " && ".join(f"qd undrain {name}" for name in names)
        return [_Found(len(back), 0, f"take {joined(names)} back into service", command)]
    others = [node for node in resting if node not in drained]
    back = _smallest([*others, *drained], returned, ALONE)
    said = [f"{node.name} ({node.why_not or 'out of service'})" for node in back]
    return [_Found(len(back), 0, f"bring back {joined(said)}")] if back else []


def _smaller_asks(case: _Case, works: _Try) -> list[_Found]:
    """One number of the shape lowered as little as it takes; if none alone helps, all in step."""
    shape = case.request.shape
    found = []

    def lowered(name: str, amount: float) -> bool:
        changed = replace(shape, **{name: amount})  # type: ignore[arg-type]
        return works(replace(case, request=replace(case.request, shape=changed)))

    def add(share: float, change: str, options: str) -> None:
        found.append(_Found(1, 1 - share, change, f"qd submit ... {options}"))

    ask = need_of(shape)
    gpus = _largest(ask.gpus, lambda n: lowered("gpus", n))
    if gpus:
        text = counted(gpus, "GPU")
        add(gpus / ask.gpus, f"ask for {text} a node instead of {ask.gpus}", f"--gpus {gpus}")
    cpus = _largest(-(-ask.cpus // MICRO), lambda n: lowered("cpus", n))
    if cpus:
        text = f"ask for {counted(cpus, 'CPU')} a node instead of {number(shape.cpus)}"
        add(cpus / shape.cpus, text, f"--cpus {cpus}")
    nodes = _largest(shape.nodes, lambda n: lowered("nodes", n))
    if nodes:
        text = f"ask for {counted(nodes, 'node')} instead of {shape.nodes}"
        add(nodes / shape.nodes, text, f"--nodes {nodes}")
    unit = 30 if shape.memory >= 4 << 30 else 20
    memory = _largest(-(-shape.memory // (1 << unit)), lambda n: lowered("memory", n << unit))
    if memory:
        text = (
            f"ask for {format_size(memory << unit)} a node instead of {format_size(shape.memory)}"
        )
        amount = f"{memory}{'GiB' if unit == 30 else 'MiB'}"
        add((memory << unit) / shape.memory, text, f"--memory {amount}")
    return found or _scaled(case, works)


def _scaled(case: _Case, works: _Try) -> list[_Found]:
    """Fewer GPUs with CPUs and memory in proportion."""
    shape = case.request.shape
    whole = need_of(shape).gpus
    if whole < 2:
        return []

    def scaled(gpus: int) -> Request:
        cpus, memory = round(shape.cpus * gpus / whole, 2), shape.memory * gpus // whole
        return replace(case.request, shape=replace(shape, gpus=gpus, cpus=cpus, memory=memory))

    gpus = _largest(whole, lambda n: works(replace(case, request=scaled(n))))
    if not gpus:
        return []
    less = scaled(gpus).shape
    change = f"ask for {counted(gpus, 'GPU')} a node instead of {whole}"
    command = f"qd submit ... --gpus {gpus}"
    if less.cpus:
        change += f", and {number(less.cpus)} CPUs instead of {number(shape.cpus)}"
        command += f" --cpus {number(less.cpus)}"
    if less.memory:
        change += f", and {format_size(less.memory)} instead of {format_size(shape.memory)}"
        command += f" --memory {less.memory >> 20}MiB"
    return [_Found(2, 1 - gpus / whole, change, command)]


def _jobs_that_end(case: _Case, works: _Try) -> list[_Found]:
    """Running jobs whose end would do: a set that waits least by known ends, and the fewest."""

    def ended(jobs: Sequence[int]) -> bool:
        gone = set(jobs)
        return works(
            replace(case, running=[attempt for attempt in case.running if attempt.job not in gone])
        )

    alone, together = jobs_in_the_way(case.request.shape, case.nodes, case.running)
    jobs = _smallest(alone, ended, ALONE) if alone else []
    jobs = sorted(jobs or _smallest(together, ended, 0))
    if not jobs:
        return []
    ends = [attempt.ends_by for attempt in case.running if attempt.job in jobs]
    known = [end for end in ends if end is not None]
    few = len(jobs) <= NAMED
    names = (joined if few else listed)([f"j{job}" for job in jobs])
    change = f"wait until {names} {'ends' if len(jobs) == 1 else 'end'}"
    if len(known) == len(ends):
        change += f", in {duration(max(known) - case.now)} at the latest"
    elif len(jobs) == 1:
        change += ", which has no time limit"
    command = " && ".join(f"qd cancel j{job}" for job in jobs) if few else ""
    return [_Found(len(jobs), 0.5, change, command)]


def _overtaking(case: _Case, works: _Try) -> list[_Found]:
    """A priority above that of jobs ahead, or the head of the queue gone."""
    ours = case.request
    ahead = [other for other in case.others if order(other) < order(ours)]
    steps = sorted({other.priority for other in ahead if other.priority < PRIORITY_MAX})

    def raised(step: int) -> bool:
        return works(replace(case, request=replace(ours, priority=steps[step] + 1)))

    # The smallest step that works is the one before which the most steps can be left out.
    left_out = _largest(len(steps) + 1, lambda n: raised(len(steps) - n))
    if left_out:
        step = steps[len(steps) - left_out]
        above = [f"j{other.job}" for other in sorted(ahead, key=order) if other.priority == step]
        change = f"raise its priority to {step + 1}, above {listed(above)} ({step})"
        return [_Found(1, 0.9, change, f"qd submit ... --priority {step + 1}")]
    claim = case.decide().claim
    if claim is None or claim.job == ours.job:
        return []
    if not works(replace(case, others=[o for o in case.others if o.job != claim.job])):
        return []
    head = f"j{claim.job}"
    return [_Found(1, 0.9, f"wait until {head}, which is ahead, is gone", f"qd cancel {head}")]


def _are(names: Sequence[str]) -> str:
    return "is" if len(names) == 1 else "are"
