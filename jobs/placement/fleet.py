"""The free resources of all nodes during one scheduling pass, indexed for best fit.

Within a pass resources only shrink. Nodes of one GPU model form a pool; in a pool, nodes lie in
buckets by their number of free GPUs, each sorted by free CPUs. Finding the tightest node for a gang is
a bisection per bucket instead of a walk over all nodes. Memory is not in the index: where it is what
runs out, nodes are looked at one by one.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

from jobs.placement.capacity import (
    Need,
    NodeCapacity,
    Room,
    Shape,
    Share,
    matches,
    need,
    need_of,
    suits,
)

Tenant = tuple[float | None, Need, tuple[str, ...]]
"""Until when something holds its share (None: unknown), the share, and the GPUs it lies on."""


@dataclass(slots=True)
class _Pool:
    """Nodes of one GPU model (or without GPUs). An entry ends with the node's index."""

    accelerator: str
    containers: bool
    buckets: list[list[tuple[int, int]]]  # by free GPUs: (free CPUs, node), sorted
    shared: list[tuple[int, int, int]] = field(default_factory=list)  # (slack, free CPUs, node)


class Fleet:
    """The nodes in service. A node is named by its index in `names`, which are sorted ("n2" before
    "n10"): that is also the order of node ranks."""

    def __init__(self, nodes: Sequence[NodeCapacity]) -> None:
        usable = sorted(
            (node for node in nodes if node.schedulable), key=lambda n: (len(n.name), n.name)
        )
        self.nodes = usable
        self.names = [node.name for node in usable]
        self.index = {name: i for i, name in enumerate(self.names)}
        self.rooms = [Room.of(node) for node in usable]
        self.tenants: list[list[Tenant]] = [[] for _ in usable]
        self._kinds: dict[
            tuple[float, float, int, str, bool], list[int]
        ] = {}  # nodes of equal totals
        for i, node in enumerate(usable):
            kind = (node.cpus, node.gpus, node.memory, node.accelerator, node.containers)
            self._kinds.setdefault(kind, []).append(i)
        self._depth = 1 + max((int(node.gpus) for node in usable), default=0)
        self._pools: list[_Pool] = []  # the index, which only a copy has
        self._pool_of: list[_Pool] = []
        self._matching: dict[tuple[str, bool], list[_Pool]] = {}  # by the kind asked for

    def hold(self, node: str, share: Share, until: float | None) -> None:
        """Something that runs. Nodes that are unknown or out of service are passed over."""
        i = self.index.get(node)
        if i is not None:
            ask = need(share.cpus, share.gpus, share.memory)
            self.rooms[i].take(ask, share.gpu_ids)
            self.tenants[i].append((until, ask, share.gpu_ids))

    def let_go(self, node: str, share: Share, until: float | None) -> None:
        """Undo a `hold` with the same arguments."""
        i = self.index.get(node)
        if i is not None:
            ask = need(share.cpus, share.gpus, share.memory)
            self.rooms[i].release(ask, share.gpu_ids)
            self.tenants[i].remove((until, ask, share.gpu_ids))

    def copy(self) -> Fleet:
        """What a pass takes from: the same resources, with the index that `find` and `take` need."""
        twin = Fleet.__new__(Fleet)
        twin.nodes, twin.names, twin.index = self.nodes, self.names, self.index
        twin._kinds, twin._depth = self._kinds, self._depth
        twin.rooms = [room.copy() for room in self.rooms]
        twin.tenants = [tenants.copy() for tenants in self.tenants]
        twin._matching = {}
        twin._build()
        return twin

    def _build(self) -> None:
        """Make the index."""
        kind_of = [(node.gpus >= 1, node.accelerator, node.containers) for node in self.nodes]
        pools = {
            kind: _Pool(kind[1], kind[2], [[] for _ in range(self._depth)])
            for kind in sorted(set(kind_of))
        }
        self._pools = list(pools.values())
        self._pool_of = [pools[kind] for kind in kind_of]
        for i, (pool, room) in enumerate(zip(self._pool_of, self.rooms, strict=True)):
            pool.buckets[max(0, room.free_gpus)].append((room.cpus, i))
            if room.slack > 0:
                pool.shared.append((room.slack, room.cpus, i))
        for pool in self._pools:
            pool.shared.sort()
            for bucket in pool.buckets:
                bucket.sort()

    def find(
        self, shape: Shape, skip: frozenset[int], beside: Mapping[int, Room], count: int
    ) -> list[int]:
        """Up to `count` nodes on which the shape's share fits now, tightest first.

        `skip` are nodes not to be used; on a node of `beside` the share must also fit into the room
        given there, which is what a claim leaves over.
        """
        ask = need_of(shape)
        if not (skip or beside or ask.memory or ask.part):
            return list(islice(self._tightest(ask, shape), count))
        chosen: list[int] = []
        for i in self._tightest(ask, shape):
            if i in skip or (ask.part and i in chosen):
                continue
            if ask.memory and ask.memory > self.rooms[i].memory:
                continue
            if i in beside and not beside[i].fits(ask):
                continue
            chosen.append(i)
            if len(chosen) == count:
                break
        return chosen

    def _tightest(self, ask: Need, shape: Shape) -> Iterator[int]:
        """Nodes with the GPUs and CPUs asked for: the fewest free GPUs first, then the fewest free
        CPUs. Nodes without GPUs come before all others. A fraction of a GPU goes beside other
        fractions first. A node may come twice."""
        kind = (shape.accelerator, shape.container)
        pools = self._matching.get(kind)
        if pools is None:
            pools = [
                pool
                for pool in self._pools
                if matches(shape.accelerator, pool.accelerator)
                and pool.containers >= shape.container
            ]
            self._matching[kind] = pools
        first = ask.gpus
        if ask.part:
            first = 1
            for pool in pools:
                for _, _, i in pool.shared[bisect_left(pool.shared, (ask.part,)) :]:
                    if self.rooms[i].fits(ask):
                        yield i
        for free in range(first, self._depth):
            for pool in pools:
                bucket = pool.buckets[free]
                if bucket:
                    start = bisect_left(bucket, (ask.cpus,)) if ask.cpus else 0
                    for at in range(start, len(bucket)):
                        yield bucket[at][1]

    def take(self, i: int, ask: Need, until: float | None) -> None:
        """Place a share on a node."""
        room, pool = self.rooms[i], self._pool_of[i]
        bucket = pool.buckets[max(0, room.free_gpus)]
        del bucket[bisect_left(bucket, (room.cpus, i))]
        slack = room.slack
        if slack > 0:
            del pool.shared[bisect_left(pool.shared, (slack, room.cpus, i))]
        room.take(ask)
        insort(pool.buckets[max(0, room.free_gpus)], (room.cpus, i))
        slack = room.slack
        if slack > 0:
            insort(pool.shared, (slack, room.cpus, i))
        self.tenants[i].append((until, ask, ()))

    def hosts(self, shape: Shape) -> list[int]:
        """The nodes that could hold the shape's share if they were empty."""
        ask = need_of(shape)
        return [
            i
            for (cpus, gpus, memory, _, _), kind in self._kinds.items()
            if suits(shape, self.nodes[kind[0]]) and Room(cpus, gpus, memory).fits(ask)
            for i in kind
        ]

    def ready_at(self, i: int, ask: Need, now: float) -> float | None:
        """When the share fits on the node by the known ends of what runs there; None when that
        depends on an end that nobody knows."""
        room = self.rooms[i]
        if room.fits(ask):
            return now
        ending = [
            (until, n) for n, (until, _, _) in enumerate(self.tenants[i]) if until is not None
        ]
        room = room.copy() if ending else room
        for until, n in sorted(ending):
            _, held, gpu_ids = self.tenants[i][n]
            room.release(held, gpu_ids)
            if room.fits(ask):
                return max(now, until)
        return None

    def room_at(self, i: int, at: float | None, now: float) -> Room:
        """A copy of the node's room at a later moment, when what is known to end by then has ended;
        as it is now for None."""
        room = self.rooms[i].copy()
        if at is not None:
            for until, held, gpu_ids in self.tenants[i]:
                if until is not None and max(now, until) <= at:
                    room.release(held, gpu_ids)
        return room
