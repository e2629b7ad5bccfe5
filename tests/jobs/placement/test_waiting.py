"""What is kept between passes decides as what is made anew: over any history, the plan is the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from jobs.placement import reasons
from jobs.placement.capacity import Room, Shape, Share
from jobs.placement.scheduling import (
    BACKFILL_DEPTH,
    NodeCapacity,
    Plan,
    Queue,
    Request,
    Running,
    Standing,
    order,
    plan,
    plan_on,
)
from jobs.placement.scheduling import _Pass as Pass
from tests.jobs.clusters import Cluster, clusters

NOW = 100.0


def plainly(
    queue: Sequence[Request], nodes: Sequence[NodeCapacity], running: Sequence[Running], now: float
) -> Plan:
    """The same rules without lines: every job is looked at, one after the other."""
    looking = Pass(Standing().fleet(nodes, running), nodes, now)
    waiting, texts = [], {}
    for request in sorted(queue, key=order):
        if request.not_before > now:
            texts[request.job] = reasons.backing_off(request.not_before - now)
        elif (wait := looking._start(request)) is not None:
            waiting.append(([request.job], wait))
    looking.result.reasons = texts | looking._explained(waiting)
    pauses = [request.not_before for request in queue if request.not_before > now]
    looking.result.next_wake = min(pauses, default=None)
    assert looking.failures < BACKFILL_DEPTH
    return looking.result


def free(
    standing: Standing, nodes: Sequence[NodeCapacity], running: Mapping[int, Running]
) -> list[object]:
    """All that a pass is told of what is free, node by node."""
    fleet = standing.fleet(nodes, running.values())
    return [
        (name, room.cpus, room.memory, room.gpu_amount, room.free_gpus, room.slack,
         sorted(room._parts), room._loads, sorted(tenants, key=repr))
        for name, room, tenants in zip(fleet.names, fleet.rooms, fleet.tenants, strict=True)
    ]  # fmt: skip


@given(clusters())
def test_a_line_decides_as_its_jobs_would_one_by_one(cluster: Cluster) -> None:
    lined = plan(cluster.queue, cluster.nodes, cluster.running, NOW)
    assert lined == plainly(cluster.queue, cluster.nodes, cluster.running, NOW)


@given(clusters(), st.lists(st.integers(0, 1 << 30), max_size=30))
def test_what_is_kept_between_passes_is_what_it_would_be_made_anew(
    cluster: Cluster, steps: list[int]
) -> None:
    """Jobs come, change, pause, start, end, learn their GPUs; nodes go and come back."""
    queue, standing = Queue(), Standing()
    waiting: dict[int, Request] = {}
    running = {attempt.job: attempt for attempt in cluster.running}
    nodes, now = list(cluster.nodes), NOW
    coming = list(cluster.queue)
    for step in [0, 0, 0, *steps]:
        kind, pick = step % 7, step // 7
        if kind <= 1 and coming:
            request = coming.pop(pick % len(coming))
            waiting[request.job] = request
            queue.put(request)
        elif kind == 2 and waiting:
            job = sorted(waiting)[pick % len(waiting)]
            waiting[job] = replace(waiting[job], not_before=now + pick % 3, priority=pick % 100)
            queue.put(waiting[job])
        elif kind == 3 and waiting:
            job = sorted(waiting)[pick % len(waiting)]
            del waiting[job]
            queue.drop(job)
            queue.drop(job)  # nothing happens
        elif kind == 4 and running:
            del running[sorted(running)[pick % len(running)]]
        elif kind == 5 and running:
            job = sorted(running)[pick % len(running)]
            running[job] = replace(running[job], ends_by=now + pick % 50)
        elif kind == 6 and nodes:
            place = pick % len(nodes)
            usable = nodes[place].schedulable
            nodes[place] = replace(nodes[place], schedulable=not usable, why_not="lost")
        now += 0.5
        assert free(standing, nodes, running) == free(Standing(), nodes, running)
        decided = plan_on(queue, standing, nodes, list(running.values()), now)
        assert decided == plan(list(waiting.values()), nodes, list(running.values()), now)
        for placement in decided.placements:
            request = waiting.pop(placement.job)
            queue.drop(placement.job)
            share = Share(request.shape.cpus, request.shape.gpus, request.shape.memory)
            held = dict.fromkeys(placement.nodes, share)
            running[placement.job] = Running(placement.job, held, request.priority)
    assert sorted(request.job for request in queue) == sorted(waiting)


def test_a_pass_leaves_what_is_kept_as_it_was() -> None:
    nodes = [NodeCapacity("n1", 8, 2, 1 << 30)]
    queue = Queue([Request(n, Shape(1, 1, 1, 1), 50, float(n), "ann") for n in (1, 2, 3)])
    standing = Standing()
    first = plan_on(queue, standing, nodes, [], NOW)
    assert [placement.job for placement in first.placements] == [1, 2]
    assert plan_on(queue, standing, nodes, [], NOW) == first
    assert len(queue) == 3
    assert standing.fleet(nodes, []).rooms[0].free_gpus == Room.of(nodes[0]).free_gpus
