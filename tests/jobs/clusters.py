"""Random clusters with work on them, and a ledger that packs GPUs as badly as it is allowed to."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from hypothesis import strategies as st

from jobs.placement.capacity import MICRO, need_of
from jobs.placement.scheduling import NodeCapacity, Placement, Request, Running, Shape, Share, plan


class Overplaced(AssertionError):
    """A placement for which a node had no room."""


class Ledger:
    """What is really held on each node, GPU by GPU. It picks among the GPUs that have room at random,
    and raises Overplaced when there is none."""

    def __init__(self, nodes: Sequence[NodeCapacity], pick: random.Random) -> None:
        self.nodes = {node.name: node for node in nodes}
        self.cpus = {node.name: round(node.cpus * MICRO) for node in nodes}
        self.memory = {node.name: node.memory for node in nodes}
        self.loads = {n.name: {f"{n.name}-{i}": 0 for i in range(int(n.gpus))} for n in nodes}
        self.pick = pick

    def take(self, shape: Shape, name: str) -> Share:
        ask, loads = need_of(shape), self.loads[name]
        self.cpus[name] -= ask.cpus
        self.memory[name] -= ask.memory
        if self.cpus[name] < 0 or self.memory[name] < 0:
            raise Overplaced(f"{name} has no CPUs or memory left for {shape}")
        size, count = (ask.part, 1) if ask.part else (MICRO, ask.gpus)
        open_gpus = [gpu for gpu, load in loads.items() if load + size <= MICRO]
        if len(open_gpus) < count:
            raise Overplaced(f"{name} has no GPU left for {shape}: {loads}")
        chosen = tuple(self.pick.sample(open_gpus, count))
        for gpu in chosen:
            loads[gpu] += size
        return Share(shape.cpus, shape.gpus, shape.memory, chosen)

    def give_back(self, running: Running) -> None:
        for name, share in running.node_shares.items():
            ask = need_of(Shape(1, 1, share.cpus, share.gpus, share.memory))
            self.cpus[name] += ask.cpus
            self.memory[name] += ask.memory
            for gpu in share.gpu_ids:
                self.loads[name][gpu] -= ask.part or MICRO

    def start(self, request: Request, placement: Placement, now: float) -> Running:
        """Check the placement and hold it."""
        assert len(set(placement.nodes)) == request.shape.nodes, "a gang got all its nodes"
        assert all(self.nodes[name].schedulable for name in placement.nodes)
        shares = {name: self.take(request.shape, name) for name in placement.nodes}
        ends = None if request.timeout is None else now + request.timeout
        return Running(request.job, shares, request.priority, ends)


@dataclass(frozen=True)
class Cluster:
    nodes: list[NodeCapacity]
    running: list[Running]
    queue: list[Request]
    seed: int

    @property
    def ledger(self) -> Ledger:
        """A fresh ledger that holds what runs."""
        ledger = Ledger(self.nodes, random.Random(self.seed))
        for attempt in self.running:
            for name, share in attempt.node_shares.items():
                ask = need_of(Shape(1, 1, share.cpus, share.gpus, share.memory))
                ledger.cpus[name] -= ask.cpus
                ledger.memory[name] -= ask.memory
                for gpu in share.gpu_ids:
                    ledger.loads[name][gpu] += ask.part or MICRO
        return ledger


NODES = st.builds(
    NodeCapacity,
    name=st.just(""),
    cpus=st.sampled_from([2, 4, 8]),
    gpus=st.sampled_from([0, 1, 2, 4]),
    memory=st.sampled_from([50, 100]),
    accelerator=st.sampled_from(["NVIDIA A100", "NVIDIA H100 80GB"]),
    schedulable=st.sampled_from([True, True, True, False]),
    why_not=st.sampled_from(["draining", "lost"]),
)
SHAPES = st.builds(
    Shape,
    nodes=st.sampled_from([1, 1, 1, 2, 3]),
    procs=st.just(1),
    cpus=st.sampled_from([0, 0.5, 1, 2, 4]),
    gpus=st.sampled_from([0, 0.3, 0.5, 1, 1, 2, 4]),
    memory=st.sampled_from([0, 0, 30]),
    accelerator=st.sampled_from(["", "", "H100"]),
)


@st.composite
def requests(draw: st.DrawFn, first: int, most: int, endless: bool = True) -> list[Request]:
    timeouts = st.sampled_from([None, None, 10.0, 50.0] if endless else [10.0, 20.0, 50.0])
    return [
        Request(
            job=first + n,
            shape=draw(SHAPES),
            priority=draw(st.sampled_from([50, 50, 60])),
            arrival=draw(st.integers(0, 20)),
            user="ann",
            timeout=draw(timeouts),
            avoid=frozenset(draw(st.sets(st.sampled_from(["n1", "n2"]), max_size=1))),
            not_before=draw(st.sampled_from([0, 0, 0, 130])),
        )
        for n in range(draw(st.integers(0, most)))
    ]


@st.composite
def clusters(draw: st.DrawFn, endless: bool = True) -> Cluster:
    """A small cluster at time 100, on which some jobs run that could really have been placed."""
    nodes = [replace(n, name=f"n{i}") for i, n in enumerate(draw(st.lists(NODES, max_size=4)), 1)]
    seed = draw(st.integers(0, 1000))
    ledger = Ledger(nodes, random.Random(seed))
    earlier = {request.job: request for request in draw(requests(1, 5, endless))}
    running = [
        ledger.start(earlier[placement.job], placement, 100 - draw(st.integers(0, 9)))
        for placement in plan(list(earlier.values()), nodes, [], 100).placements
    ]
    return Cluster(nodes, running, draw(requests(10, 8, endless)), seed)
