"""Which running jobs stand in the way of a shape: candidates for `qd explain`, cheap to find."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

from jobs.placement.capacity import Need, NodeCapacity, Room, Shape, hosts, need, need_of
from jobs.placement.scheduling import Running


def jobs_in_the_way(
    shape: Shape, nodes: Sequence[NodeCapacity], running: Sequence[Running]
) -> tuple[list[int], list[int]]:
    """Running jobs, by number, whose end is likely to make room for the shape.

    Returns the jobs each of which would do alone, the first to end first, and the jobs that clear node
    after node together, in that order. Neither looks at the queue: a plan has to verify them.
    """
    ask = need_of(shape)
    usable = {n.name: n for n in hosts([n for n in nodes if n.schedulable], shape)}
    rooms = {name: Room.of(node) for name, node in usable.items()}
    held: dict[str, list[tuple[Running, Need, tuple[str, ...]]]] = {name: [] for name in rooms}
    for attempt in running:
        for name, share in attempt.node_shares.items():
            if name in rooms:
                part = need(share.cpus, share.gpus, share.memory)
                rooms[name].take(part, share.gpu_ids)
                held[name].append((attempt, part, share.gpu_ids))
    free = {name for name, room in rooms.items() if room.fits(ask)}
    alone = []
    for attempt in sorted(running, key=_ends_first):
        cleared = set()
        for name in attempt.node_shares.keys() & rooms.keys() - free:
            room = rooms[name].copy()
            for other, part, gpu_ids in held[name]:
                if other.job == attempt.job:
                    room.release(part, gpu_ids)
            if room.fits(ask):
                cleared.add(name)
        if len(free) + len(cleared) >= shape.nodes:
            alone.append(attempt.job)
    return alone, _together(ask, rooms, held, free)


def _together(
    ask: Need,
    rooms: dict[str, Room],
    held: dict[str, list[tuple[Running, Need, tuple[str, ...]]]],
    free: set[str],
) -> list[int]:
    """Jobs node by node, the node that takes the fewest first."""
    clearing: list[tuple[int, float, str, list[int]]] = []
    for name, room in rooms.items():
        if name in free:
            continue
        left, jobs, last = room.copy(), [], 0.0
        largest = sorted(held[name], key=lambda h: (-h[1].gpus, -h[1].part, -h[1].cpus, h[0].job))
        for attempt, part, gpu_ids in largest:
            left.release(part, gpu_ids)
            jobs.append(attempt.job)
            last = max(last, inf if attempt.ends_by is None else attempt.ends_by)
            if left.fits(ask):
                clearing.append((len(jobs), last, name, jobs))
                break
    ordered: dict[int, None] = {}
    for _, _, _, jobs in sorted(clearing):
        ordered.update(dict.fromkeys(jobs))
    return list(ordered)


def _ends_first(attempt: Running) -> tuple[float, int, int]:
    return (inf if attempt.ends_by is None else attempt.ends_by, attempt.priority, attempt.job)
