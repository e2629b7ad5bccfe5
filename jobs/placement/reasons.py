"""Why a job waits, in one sentence with the numbers. What people read, and nothing decides on."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from jobs.base.units import format_size
from jobs.base.words import counted, duration, joined, listed, number
from jobs.placement.capacity import MICRO, NodeCapacity, Room, Shape, hosts, matches, need_of, suits
from jobs.placement.fleet import Fleet


def never_fits(shape: Shape, nodes: Sequence[NodeCapacity]) -> str | None:
    """Why these nodes could not run the shape even if all were empty and in service, or None.

    Made to refuse a job when it is submitted: a cluster without any node yet refuses nothing.
    """
    if not nodes:
        return None
    able = hosts(nodes, shape)
    if len(able) >= shape.nodes:
        return None
    if able:
        return (
            f"asks for {wanted(shape)} on each of {shape.nodes} nodes; "
            f"the cluster has {counted(len(able), 'node')} of that size"
        )
    fitting = [node for node in nodes if matches(shape.accelerator, node.accelerator)]
    if not fitting:
        models = sorted({node.accelerator for node in nodes if node.accelerator})
        there = listed(models) if models else "no GPUs at all"
        return f"asks for {shape.accelerator} GPUs; the cluster has {there}"
    if shape.container:
        fitting = [node for node in fitting if node.containers]
        if not fitting:
            gpus = f" with {shape.accelerator} GPUs" if shape.accelerator else ""
            return f"asks for a container (image:); no node{gpus} has podman with crun"
    for ask in _asked(shape):
        totals = [_total(node, ask.kind) for node in fitting]
        most = max(totals)
        if most < ask.amount:
            largest = fitting[totals.index(most)]
            have = f"the largest node ({largest.name}) has {ask.bare(most)}"
            return f"asks for {ask.text} on a node; {have if most else 'no node has any'}"
    return f"asks for {wanted(shape)} on a node; no node has all of that together"


def impossible(shape: Shape, nodes: Sequence[NodeCapacity]) -> str:
    """Why the nodes in service could never run the shape, which is known to be so."""
    if not nodes:
        return "no node has joined the cluster yet"
    why = never_fits(shape, nodes)
    if why is not None:
        return why
    usable = len(hosts([node for node in nodes if node.schedulable], shape))
    left = f"only {counted(usable, 'node')}" if usable else "no node"
    resting = [node for node in nodes if not node.schedulable]
    return (
        f"needs {wanted(shape)} on {_where(shape)}; {left} in service {_has(usable or 1)} as much"
        f"{_out_of_service(shape, resting)}"
    )


class Survey:
    """What is free at the end of a pass, counted once for all who ask."""

    def __init__(self, fleet: Fleet, nodes: Sequence[NodeCapacity]) -> None:
        self._fleet = fleet
        self._resting = [node for node in nodes if not node.schedulable]
        self._columns: dict[tuple[str, bool, frozenset[int], str], _Column] = {}

    def occupied(self, shape: Shape, skip: frozenset[int]) -> str:
        """Why the shape, which the nodes in service could run, finds too few of them free."""
        asked = _asked(shape)
        columns = [self._column(shape, skip, ask) for ask in asked]
        counts = [column.count(ask.amount) for column, ask in zip(columns, asked, strict=True)]
        scarce = [n for n, count in enumerate(counts) if count < shape.nodes]
        what = joined([asked[n].text for n in scarce or range(len(asked))])
        if len(scarce) != 1:
            have = "too few nodes have all of that free together"
            have = "no node has all of that free together" if shape.nodes == 1 else have
        elif shape.nodes > 1:
            count, it = counts[scarce[0]], "it" if asked[scarce[0]].singular else "them"
            have = f"{counted(count, 'node') if count else 'no node'} {_has(count or 1)} {it} free"
        elif asked[scarce[0]].kind == "part":
            have = "no GPU surely has as much free"
        else:
            most, i = columns[scarce[0]].most()
            have = f"{self._fleet.names[i]} has the most free, {asked[scarce[0]].bare(most)}"
            have = have if most > 0 else "none is free"
        return f"needs {what} on {_where(shape)}; {have}{_out_of_service(shape, self._resting)}"

    def _column(self, shape: Shape, skip: frozenset[int], ask: _Quantity) -> _Column:
        """What is free of one kind on each node that matches. A fraction of a GPU is there or not."""
        kind = f"part {ask.amount}" if ask.kind == "part" else ask.kind
        key = (shape.accelerator, shape.container, skip, kind)
        column = self._columns.get(key)
        if column is None:
            fleet = self._fleet
            column = self._columns[key] = _Column(
                [
                    (_free(fleet.rooms[i], ask), i)
                    for i, node in enumerate(fleet.nodes)
                    if i not in skip and suits(shape, node)
                ]
            )
        return column


class _Column:
    """Free amounts of one kind with the nodes that have them, sorted."""

    def __init__(self, amounts: list[tuple[int, int]]) -> None:
        self._amounts = sorted(amounts)

    def count(self, amount: int) -> int:
        """How many nodes have at least so much."""
        return len(self._amounts) - bisect_left(self._amounts, (amount,))

    def most(self) -> tuple[int, int]:
        """The largest amount and the first node that has it."""
        amount = self._amounts[-1][0]
        return self._amounts[bisect_left(self._amounts, (amount,))]


def behind(job: int, priority: int, kept: Sequence[str]) -> str:
    """Why a job waits that would find room if it were not kept for the head of the queue."""
    return f"behind j{job} (priority {priority}), for which {listed(kept)} {_is(len(kept))} kept"


LOOKED_AT_NEXT = "many jobs start at this moment, and it is looked at next"


def too_far_behind(job: int) -> str:
    """Why a job was not even looked at."""
    return f"too many other jobs wait between it and j{job}, which starts next"


def backing_off(seconds: float) -> str:
    return f"its next attempt starts in {duration(seconds)}"


def wanted(shape: Shape) -> str:
    """What the shape asks of each node: "8 H100 GPUs, 16 CPUs and 64 GiB"."""
    return joined([quantity.text for quantity in _asked(shape)]) or "nothing"


def _has(count: int) -> str:
    return "has" if count == 1 else "have"


def _is(count: int) -> str:
    return "is" if count == 1 else "are"


def _where(shape: Shape) -> str:
    return "a node" if shape.nodes == 1 else f"each of {shape.nodes} nodes"


def _out_of_service(shape: Shape, resting: Sequence[NodeCapacity]) -> str:
    """ "; n2 and n3 are draining", of those nodes out of service that could help."""
    groups: dict[str, list[str]] = {}
    for node in hosts(resting, shape):
        groups.setdefault(node.why_not or "out of service", []).append(node.name)
    return "".join(
        f"; {listed(names)} {_is(len(names))} {why}" for why, names in sorted(groups.items())
    )


Kind = Literal["gpus", "part", "cpus", "memory"]


@dataclass(frozen=True, slots=True)
class _Quantity:
    """One thing that a shape asks for: millionths of GPUs or CPUs, or bytes."""

    kind: Kind
    amount: int
    noun: str = ""

    @property
    def singular(self) -> bool:
        return self.kind != "memory" and self.amount <= MICRO

    @property
    def text(self) -> str:
        """ "8 GPUs" """
        if self.kind == "memory":
            return self.bare(self.amount)
        return f"{self.bare(self.amount)} {self.noun}" + ("" if self.singular else "s")

    def bare(self, amount: int) -> str:
        """An amount of this kind without its noun: "5", "12.5 GiB"."""
        return format_size(amount) if self.kind == "memory" else number(amount / MICRO)


def _asked(shape: Shape) -> list[_Quantity]:
    """What the shape asks for, the scarcest kind first."""
    ask = need_of(shape)
    gpu = f"{shape.accelerator} GPU" if shape.accelerator else "GPU"
    quantities = [
        _Quantity("gpus", ask.gpus * MICRO, gpu),
        _Quantity("part", ask.part, gpu),
        _Quantity("cpus", ask.cpus, "CPU"),
        _Quantity("memory", ask.memory),
    ]
    return [quantity for quantity in quantities if quantity.amount]


def _total(node: NodeCapacity, kind: Kind) -> int:
    if kind == "memory":
        return node.memory
    return round((node.cpus if kind == "cpus" else node.gpus) * MICRO)


def _free(room: Room, ask: _Quantity) -> int:
    if ask.kind == "gpus":
        return room.free_gpus * MICRO
    if ask.kind == "part":
        return ask.amount if room.fits_part(ask.amount) else 0
    return room.cpus if ask.kind == "cpus" else room.memory
