"""What a node has, what a gang asks of it, and whether the one surely fits into the other.

CPUs and GPUs are counted in whole millionths (`micro`), so that ten times 0.1 is 1. Memory is bytes.

A fraction of a GPU has to fit on one GPU, and it is the node's own ledger that picks which. The
scheduler places before the ledger has picked, so `Room` promises room only where it is there
*however the ledger packs*, in whatever order the shares reach it:

- A share whose GPU is known (`Share.gpu_ids`) loads that GPU.
- Every other share is anonymous. An anonymous whole GPU can be any empty one. An anonymous fraction
  can sit on any GPU that has room for it; for a gang that needs whole GPUs it spoils one.
- With `a` the largest and `b` the second largest anonymous fraction of a node, a GPU of known load `l`
  surely takes `(1 - a - l) // b + 1` of them, since at most one of them is over `b`. While there are
  no more of them than that sum over all GPUs, the last one finds a GPU that has not had its number.

Equal fractions therefore fill a node to the last slot, odd mixtures may wait until the ledger has
said where the earlier ones went.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

MICRO = 1_000_000
"""One CPU or one GPU. Finer than Ray's own 1/10000, and a third of a GPU fits three times."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What a gang asks for: `nodes` distinct nodes, and the same from each of them.

    `gpus` is a whole number or a fraction below one; `memory` is bytes, 0 when it was not asked for;
    `accelerator` names a GPU model ("H100"), empty for any. `container`: its ranks run in one.
    """

    nodes: int
    procs: int
    cpus: float
    gpus: float
    memory: int = 0
    accelerator: str = ""
    container: bool = False


@dataclass(frozen=True, slots=True)
class Share:
    """What one attempt holds of one node. `gpu_ids` are the GPUs that the node's ledger allotted
    (UUIDs), empty until it has."""

    cpus: float
    gpus: float
    memory: int = 0
    gpu_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NodeCapacity:
    """The totals of a node. `why_not` says in a word why it takes no new work ("draining", "lost"),
    and matters only when it is not `schedulable`. `accelerator` is the GPUs' model name. `containers`:
    it can run ranks in one."""

    name: str
    cpus: float
    gpus: float
    memory: int
    accelerator: str = ""
    schedulable: bool = True
    why_not: str = ""
    containers: bool = False


@dataclass(frozen=True, slots=True)
class Need:
    """A demand on one node in whole units: `gpus` whole GPUs, or `part` millionths of one."""

    cpus: int
    memory: int
    gpus: int
    part: int


@lru_cache(maxsize=4096)
def need(cpus: float, gpus: float, memory: int) -> Need:
    """The demand in whole units. A number of GPUs over one is rounded up to whole ones."""
    whole = gpus >= 1
    return Need(
        cpus=round(cpus * MICRO),
        memory=memory,
        gpus=math.ceil(gpus) if whole else 0,
        part=0 if whole else round(gpus * MICRO),
    )


def need_of(shape: Shape) -> Need:
    """What the shape asks of each of its nodes."""
    return need(shape.cpus, shape.gpus, shape.memory)


@lru_cache(maxsize=1024)
def _words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"[a-z0-9]+", text.lower()))


def matches(asked: str, accelerator: str) -> bool:
    """Whether a GPU model is the one asked for: each word of `asked` is a word of the model's name,
    so that "H100" and "h100 80GB" match "NVIDIA H100 80GB HBM3", and "A10" does not match "A100"."""
    return not asked or _words(asked) <= _words(accelerator)


def suits(shape: Shape, node: NodeCapacity) -> bool:
    """Whether a node is of the kind that the shape asks for, whatever it has of it."""
    return matches(shape.accelerator, node.accelerator) and node.containers >= shape.container


class Room:
    """What is free on one node. Mutable, made anew for each decision.

    Counts may go below zero when more is held than the node has (a GPU that broke, a claim on
    something that is still in use): nothing that asks for it fits then, all else still does.
    """

    __slots__ = ("_empty", "_loads", "_parts", "_whole", "cpus", "gpu_amount", "memory")

    def __init__(self, cpus: float, gpus: float, memory: int) -> None:
        self.cpus = round(cpus * MICRO)
        self.memory = memory
        self._empty = int(gpus)  # GPUs on which no known share lies
        self._whole = 0  # of these, taken as a whole by anonymous shares
        self._parts: list[int] = []  # anonymous fractions, in millionths
        self._loads: dict[str, int] = {}  # known load of each GPU that is shared
        self.gpu_amount = self._empty * MICRO  # millionths of a GPU that nobody holds

    @classmethod
    def of(cls, node: NodeCapacity) -> Room:
        """The node with nothing on it."""
        return cls(node.cpus, node.gpus, node.memory)

    def copy(self) -> Room:
        twin = Room.__new__(Room)
        twin.cpus, twin.memory, twin.gpu_amount = self.cpus, self.memory, self.gpu_amount
        twin._empty, twin._whole = self._empty, self._whole
        twin._parts, twin._loads = self._parts.copy(), self._loads.copy()
        return twin

    @property
    def free_gpus(self) -> int:
        """Whole GPUs that are surely free."""
        return self._empty - self._whole - len(self._parts)

    @property
    def slack(self) -> int:
        """Millionths of GPUs that are unheld beyond the ones that are surely free as a whole: there
        is room for a fraction in them, or on a whole one, or nowhere."""
        if not self._parts and not self._loads:
            return 0
        return self.gpu_amount - max(0, self.free_gpus) * MICRO

    def fits(self, ask: Need) -> bool:
        """Whether there surely is room for it; what is not asked for does not matter."""
        return (
            (not ask.cpus or ask.cpus <= self.cpus)
            and (not ask.memory or ask.memory <= self.memory)
            and (not ask.gpus or ask.gpus <= self.free_gpus)
            and (not ask.part or self.fits_part(ask.part))
        )

    def fits_part(self, part: int) -> bool:
        """Whether some GPU surely has so many millionths free."""
        if self.free_gpus >= 1:
            return True
        if self._whole:
            return False  # it could take the GPU that an anonymous whole share has yet to find
        # The sum that the module's description gives.
        sizes = sorted([*self._parts, part], reverse=True)
        limit, second = MICRO - sizes[0], sizes[min(1, len(self._parts))]
        seats = max(0, self._empty) * (limit // second + 1)
        seats += sum((limit - load) // second + 1 for load in self._loads.values() if load <= limit)
        return len(sizes) <= seats

    def take(self, ask: Need, gpu_ids: tuple[str, ...] = ()) -> None:
        """Hold it, whether it fits or not. `gpu_ids` as in Share; a wrong number of them is as good
        as none."""
        self._add(ask, gpu_ids, 1)

    def release(self, ask: Need, gpu_ids: tuple[str, ...] = ()) -> None:
        """Undo a `take` with the same arguments."""
        self._add(ask, gpu_ids, -1)

    def _add(self, ask: Need, gpu_ids: tuple[str, ...], sign: int) -> None:
        self.cpus -= sign * ask.cpus
        self.memory -= sign * ask.memory
        if ask.gpus:
            self.gpu_amount -= sign * ask.gpus * MICRO
            if len(gpu_ids) == ask.gpus:
                self._empty -= sign * ask.gpus
            else:
                self._whole += sign * ask.gpus
        elif ask.part:
            self.gpu_amount -= sign * ask.part
            if len(gpu_ids) == 1:
                self._load(gpu_ids[0], sign * ask.part)
            elif sign > 0:
                self._parts.append(ask.part)
            else:
                self._parts.remove(ask.part)

    def _load(self, gpu: str, part: int) -> None:
        before = self._loads.get(gpu, 0)
        after = before + part
        if after:
            self._loads[gpu] = after
        else:
            del self._loads[gpu]
        self._empty += (not after) - (not before)


def hosts(nodes: Sequence[NodeCapacity], shape: Shape) -> list[NodeCapacity]:
    """The nodes that could hold the shape's share if they were empty and in service."""
    ask = need_of(shape)
    fits: dict[tuple[float, float, int], bool] = {}
    found = []
    for node in nodes:
        totals = (node.cpus, node.gpus, node.memory)
        if totals not in fits:
            fits[totals] = Room.of(node).fits(ask)
        if fits[totals] and suits(shape, node):
            found.append(node)
    return found
