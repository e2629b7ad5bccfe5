"""Who starts, who waits, and that nobody is ever given what is not there."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.placement import scheduling
from jobs.placement.capacity import Room, hosts, need, need_of
from jobs.placement.fleet import Fleet
from jobs.placement.scheduling import (
    Placement,
    Plan,
    Request,
    Running,
    Shape,
    Share,
    never_fits,
    order,
    plan,
)
from tests.jobs.clusters import Cluster, Ledger, clusters
from tests.jobs.plain import holds, job, node

NOW = 100.0


def placed(result: Plan) -> dict[int, tuple[str, ...]]:
    return {placement.job: placement.nodes for placement in result.placements}


def simulate(
    cluster: Cluster, queue: Iterable[Request], ends: dict[int, float], until: float
) -> dict[int, float]:
    """When each job starts, if every job ends exactly at its known end, or as `ends` says."""
    ledger, running = cluster.ledger, list(cluster.running)
    waiting = {request.job: request for request in queue}
    started: dict[int, float] = {}
    now = NOW
    while now <= until:
        for attempt in [a for a in running if (ends.get(a.job) or a.ends_by or until + 1) <= now]:
            ledger.give_back(attempt)
            running.remove(attempt)
        result = plan(list(waiting.values()), cluster.nodes, running, now)
        for placement in result.placements:
            running.append(ledger.start(waiting.pop(placement.job), placement, now))
            started[placement.job] = now
        moments = [ends.get(a.job) or a.ends_by or until + 1 for a in running]
        now = min([*moments, result.next_wake or until + 1, until + 1])
    return started


# --- what must hold for every input -------------------------------------------------------------


@given(clusters())
def test_never_overplaces_and_gangs_are_whole(cluster: Cluster) -> None:
    result = plan(cluster.queue, cluster.nodes, cluster.running, NOW)
    requests = {request.job: request for request in cluster.queue}
    ledger = cluster.ledger
    starting = list(result.placements)
    ledger.pick.shuffle(starting)  # agents are reached in any order
    for placement in starting:
        ledger.start(requests[placement.job], placement, NOW)


@given(clusters())
def test_every_job_is_placed_or_has_a_reason(cluster: Cluster) -> None:
    result = plan(cluster.queue, cluster.nodes, cluster.running, NOW)
    starting = placed(result)
    assert starting.keys() | result.reasons.keys() == {request.job for request in cluster.queue}
    assert not starting.keys() & result.reasons.keys()
    assert all(result.reasons.values())


@given(clusters(), st.randoms(use_true_random=False))
def test_the_order_of_the_input_does_not_matter(cluster: Cluster, pick: random.Random) -> None:
    def mixed(items: Sequence[object]) -> list[object]:
        return pick.sample(items, len(items))

    plain = plan(cluster.queue, cluster.nodes, cluster.running, NOW)
    shuffled = plan(mixed(cluster.queue), mixed(cluster.nodes), mixed(cluster.running), NOW)  # type: ignore[arg-type]
    assert placed(plain) == placed(shuffled)
    assert plain.claim == shuffled.claim
    assert plain.reasons.keys() == shuffled.reasons.keys()


@given(clusters())
def test_conserves_work(cluster: Cluster) -> None:
    """What still fits after the pass waits only for its pause to pass or for the head's claim."""
    result = plan(cluster.queue, cluster.nodes, cluster.running, NOW)
    requests = {request.job: request for request in cluster.queue}
    rooms = {n.name: Room.of(n) for n in cluster.nodes if n.schedulable}
    for attempt in cluster.running:
        for name, share in attempt.node_shares.items():
            if name in rooms:
                rooms[name].take(need(share.cpus, share.gpus, share.memory), share.gpu_ids)
    for placement in result.placements:
        for name in placement.nodes:
            rooms[name].take(need_of(requests[placement.job].shape))
    kept = set(result.claim.nodes) if result.claim else set()
    for number in result.reasons:
        request = requests[number]
        able = {n.name for n in hosts(cluster.nodes, request.shape) if n.schedulable}
        if len(able - request.avoid) >= request.shape.nodes:
            able -= request.avoid
        fits = {name for name in able if rooms[name].fits(need_of(request.shape))}
        if request.not_before <= NOW and len(fits) >= request.shape.nodes:
            assert result.claim is not None
            assert result.claim.job != number
            assert len(fits - kept) < request.shape.nodes, "only the claim is in its way"


@given(clusters(endless=False))
def test_backfill_never_delays_the_head(cluster: Cluster) -> None:
    """With exact ends, the head starts no later than if nobody waited behind it."""
    queue = sorted((replace(request, not_before=0) for request in cluster.queue), key=order)
    result = plan(queue, cluster.nodes, cluster.running, NOW)
    if result.claim is None:
        return
    head = result.claim.job
    ahead = [request for request in queue if request.job in placed(result)]
    ahead = [request for request in ahead if order(request) < order(_named(queue, head))]
    alone = simulate(cluster, [*ahead, _named(queue, head)], {}, 1000)
    crowd = simulate(cluster, queue, {}, 1000)
    assert result.claim.at is not None
    assert crowd[head] <= alone[head] <= result.claim.at


@given(clusters())
def test_a_head_that_waits_for_unknown_ends_keeps_what_it_claimed(cluster: Cluster) -> None:
    """When everything that ran on the claimed nodes has ended, and it ends last, the head starts."""
    queue = [replace(request, not_before=0) for request in cluster.queue]
    result = plan(queue, cluster.nodes, cluster.running, NOW)
    claim = result.claim
    if claim is None or claim.at is not None:
        return
    requests = {request.job: request for request in queue}
    ledger = cluster.ledger
    held = cluster.running + [
        ledger.start(requests[placement.job], placement, NOW) for placement in result.placements
    ]
    head = requests[claim.job]
    behind = [request.job for request in queue if order(request) > order(head)]
    for attempt in held:  # what ran before and what was ahead is gone, what was let past is not
        if attempt.job not in behind:
            ledger.give_back(attempt)
    for name in claim.nodes[: head.shape.nodes]:
        ledger.take(head.shape, name)


@given(clusters())
def test_never_fits_agrees_with_an_empty_cluster(cluster: Cluster) -> None:
    nodes = [replace(n, schedulable=True) for n in cluster.nodes]
    for request in cluster.queue:
        request = replace(request, not_before=0)
        starts = request.job in placed(plan([request], nodes, [], NOW))
        why = never_fits(request.shape, nodes)
        assert starts == (why is None and bool(nodes))


def _named(queue: Iterable[Request], number: int) -> Request:
    return next(request for request in queue if request.job == number)


# --- the rules, one story each ------------------------------------------------------------------


def test_priority_then_arrival_then_id() -> None:
    queue = [
        job(1, priority=50, arrival=2),
        job(2, priority=50, arrival=1),
        job(3, priority=90, arrival=9),
        job(4, priority=50, arrival=1),
    ]
    result = plan(queue, [node("n1", gpus=3)], [], NOW)
    assert [placement.job for placement in result.placements] == [3, 2, 4]
    assert result.reasons == {1: "starts next: needs 1 GPU on a node; none is free"}


def test_best_fit_keeps_whole_nodes_free() -> None:
    nodes = [node("n1"), node("n2"), node("n3")]
    running = [holds(90, "n2", 6), holds(91, "n3", 3)]
    assert placed(plan([job(1, gpus=2)], nodes, running, NOW)) == {1: ("n2",)}
    assert placed(plan([job(1, gpus=3)], nodes, running, NOW)) == {1: ("n3",)}
    assert placed(plan([job(1, gpus=8)], nodes, running, NOW)) == {1: ("n1",)}


def test_with_equal_gpus_the_node_with_fewer_cpus_left_is_taken() -> None:
    assert placed(plan([job(1)], [node("n1", cpus=64), node("n2", cpus=32)], [], NOW)) == {
        1: ("n2",)
    }


def test_a_job_without_gpus_prefers_nodes_without() -> None:
    nodes = [node("n1", gpus=8, cpus=8), node("n2", gpus=0, cpus=64)]
    assert placed(plan([job(1, gpus=0)], nodes, [], NOW)) == {1: ("n2",)}
    assert placed(plan([job(1, gpus=0)], nodes[:1], [], NOW)) == {1: ("n1",)}


def test_a_fraction_goes_beside_another_one() -> None:
    running = [Running(90, {"n2": Share(1, 0.5, 0, ("GPU-a",))})]
    assert placed(plan([job(1, gpus=0.5)], [node("n1", gpus=1), node("n2")], running, NOW)) == {
        1: ("n2",)
    }


def test_node_ranks_follow_the_names() -> None:
    nodes = [node("n10"), node("n9"), node("n2")]
    assert placed(plan([job(1, gpus=8, nodes=3)], nodes, [], NOW)) == {1: ("n2", "n9", "n10")}


def test_an_accelerator_is_found_by_its_model() -> None:
    nodes = [node("n1", accelerator="NVIDIA A100"), node("n2", accelerator="NVIDIA H100 80GB")]
    wants = replace(job(1), shape=Shape(1, 1, 1, 1, 0, "H100"))
    assert placed(plan([wants], nodes, [], NOW)) == {1: ("n2",)}


def test_nodes_to_avoid_are_used_only_when_nothing_else_would_do() -> None:
    retry = job(1, avoid=frozenset({"n1"}))
    assert placed(plan([retry], [node("n1"), node("n2")], [], NOW)) == {1: ("n2",)}
    assert placed(plan([retry], [node("n1")], [], NOW)) == {1: ("n1",)}
    busy = plan([retry], [node("n1"), node("n2")], [holds(90, "n2", 8)], NOW)
    assert busy.claim is not None
    assert busy.claim.nodes == ("n2",)


def test_a_pause_is_kept_and_asked_to_be_woken_for() -> None:
    result = plan([job(1, not_before=130), job(2, not_before=112.5), job(3)], [node("n1")], [], NOW)
    assert placed(result) == {3: ("n1",)}
    assert result.next_wake == 112.5
    assert result.reasons[2] == "its next attempt starts in 13s"


def test_a_gang_waits_whole() -> None:
    result = plan([job(1, gpus=8, nodes=2)], [node("n1"), node("n2")], [holds(9, "n2", 1)], NOW)
    assert result.placements == []
    assert result.reasons[1] == (
        "starts next: needs 8 GPUs on each of 2 nodes; 1 node has them free"
    )


def test_a_later_job_uses_what_the_head_does_not_need() -> None:
    nodes = [node("n1"), node("n2"), node("n3", gpus=2)]
    queue = [job(1, gpus=8, nodes=2), job(2, gpus=2), job(3, gpus=1), job(4, gpus=0)]
    result = plan(queue, nodes, [holds(9, "n2", 4)], NOW)
    assert placed(result) == {2: ("n3",), 4: ("n3",)}
    assert result.reasons[3] == "behind j1 (priority 50), for which n1 and n2 are kept"


def test_a_short_job_fits_in_before_the_head_can_start() -> None:
    nodes, running = [node("n1")], [holds(9, "n1", 4, ends=160.0)]
    queue = [job(1, gpus=8), job(2, gpus=4, timeout=61.0), job(3, gpus=4, timeout=60.0)]
    result = plan(queue, nodes, running, NOW)
    assert result.claim == scheduling.Claim(1, 50, ("n1",), 160.0)
    assert placed(result) == {3: ("n1",)}


def test_without_a_known_end_no_job_is_short_enough() -> None:
    queue = [job(1, gpus=8), job(2, gpus=4, timeout=1.0)]
    result = plan(queue, [node("n1")], [holds(9, "n1", 4)], NOW)
    assert placed(result) == {}
    assert result.claim == scheduling.Claim(1, 50, ("n1",), None)


def test_what_the_claim_leaves_over_is_given_once() -> None:
    """At 160 the head takes 6 of 8 GPUs; until then 4 are free, of which 2 can be had for ever."""
    queue = [job(1, gpus=6), job(2, gpus=2), job(3, gpus=2), job(4, gpus=2, timeout=60.0)]
    result = plan(queue, [node("n1")], [holds(9, "n1", 4, ends=160.0)], NOW)
    assert placed(result) == {2: ("n1",), 4: ("n1",)}


def test_what_outlasts_the_heads_start_leaves_nothing_over() -> None:
    """At 160 the head takes the 6 GPUs that are free then; the other 2 are free only at 500."""
    running = [holds(8, "n1", 4, ends=160.0), holds(9, "n1", 2, ends=500.0)]
    result = plan([job(1, gpus=6), job(2, gpus=2)], [node("n1")], running, NOW)
    assert result.claim == scheduling.Claim(1, 50, ("n1",), 160.0)
    assert placed(result) == {}


def test_a_gang_starts_when_the_last_of_its_nodes_is_free() -> None:
    nodes, gang = [node("n1"), node("n2"), node("n3")], job(1, gpus=8, nodes=3)
    ends = [holds(8, "n2", 8, ends=160.0), holds(9, "n3", 8, ends=130.0)]
    claim = plan([gang], nodes, ends, NOW).claim
    assert claim == scheduling.Claim(1, 50, ("n1", "n2", "n3"), 160.0)
    claim = plan([gang], nodes, [ends[0], holds(9, "n3", 8)], NOW).claim
    assert claim == scheduling.Claim(1, 50, ("n1", "n2", "n3"), None)


def test_an_impossible_job_blocks_nobody() -> None:
    nodes = [node("n1"), node("n2", schedulable=False, why_not="draining")]
    result = plan([job(1, gpus=16), job(2, gpus=8, nodes=2), job(3, gpus=8)], nodes, [], NOW)
    assert placed(result) == {3: ("n1",)}
    assert result.reasons == {
        1: "asks for 16 GPUs on a node; the largest node (n1) has 8",
        2: "needs 8 GPUs and 1 CPU on each of 2 nodes; only 1 node in service has as much"
        "; n2 is draining",
    }


def test_a_stream_of_small_jobs_does_not_starve_a_head_for_ever() -> None:
    """n2 is held by a job that never ends, and needs the least to become free; on n1 one job of half
    the node follows another, overlapping, so that it is never empty unless it is kept empty."""
    nodes = [node("n1", gpus=2), node("n2", gpus=2)]
    head = job(5, gpus=2, arrival=0.0)
    for hours, starts in ((0.5, True), (1.5, False)):
        now = hours * scheduling.PATIENCE
        running = [holds(1, "n2", 1), holds(100, "n1", 1)]
        result = plan([head, job(101, arrival=now)], nodes, running, now)
        assert result.claim is not None
        assert (101 in placed(result)) is starts


def test_shares_of_unknown_or_resting_nodes_are_no_trouble() -> None:
    nodes = [node("n1"), node("n2", schedulable=False, why_not="lost")]
    running = [holds(8, "gone n2", 8), holds(9, "n1", 4)]
    assert placed(plan([job(1, gpus=4)], nodes, running, NOW)) == {1: ("n1",)}


def test_an_empty_cluster_says_so() -> None:
    assert plan([job(1)], [], [], NOW).reasons == {1: "no node has joined the cluster yet"}
    assert never_fits(Shape(1, 1, 1, 1), []) is None


@pytest.mark.parametrize(
    ("shape", "why"),
    [
        (Shape(1, 1, 1, 8), None),
        (Shape(1, 1, 1, 16), "asks for 16 GPUs on a node; the largest node (n3) has 8"),
        (Shape(1, 1, 200, 0), "asks for 200 CPUs on a node; the largest node (n1) has 64"),
        (
            Shape(1, 1, 1, 0, 65 << 30),
            "asks for 65 GiB on a node; the largest node (n1) has 64 GiB",
        ),
        (
            Shape(2, 1, 1, 8),
            "asks for 8 GPUs and 1 CPU on each of 2 nodes; the cluster has 1 node of that size",
        ),
        (
            Shape(1, 1, 64, 8),
            "asks for 8 GPUs and 64 CPUs on a node; no node has all of that together",
        ),
        (Shape(1, 1, 1, 1, 0, "B200"), "asks for B200 GPUs; the cluster has NVIDIA H100"),
    ],
)
def test_never_fits_names_the_numbers(shape: Shape, why: str | None) -> None:
    nodes = [node("n1", gpus=4), node("n3", gpus=8, cpus=32, accelerator="NVIDIA H100")]
    assert never_fits(shape, nodes) == why


@pytest.mark.parametrize(
    ("request_", "why"),
    [
        (job(1, gpus=6), "needs 6 GPUs on a node; n2 has the most free, 5"),
        (job(1, gpus=0, cpus=64), "needs 64 CPUs on a node; n1 has the most free, 63"),
        (job(1, gpus=5, nodes=2), "needs 5 GPUs on each of 2 nodes; 1 node has them free"),
        (job(1, gpus=8, nodes=2), "needs 8 GPUs on each of 2 nodes; no node has them free"),
    ],
)
def test_reasons_name_what_is_scarce(request_: Request, why: str) -> None:
    running = [holds(8, "n1", 6), holds(9, "n2", 3)]
    result = plan([request_], [node("n1"), node("n2")], running, NOW)
    assert result.reasons == {1: f"starts next: {why}"}


def test_after_many_failed_searches_the_pass_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduling, "BACKFILL_DEPTH", 2)
    queue = [job(1, gpus=8), *(job(n, gpus=4, cpus=n) for n in (2, 3, 4)), job(5, gpus=0)]
    result = plan(queue, [node("n1")], [holds(9, "n1", 6)], NOW)
    assert placed(result) == {}
    assert result.reasons[5] == "too many other jobs wait between it and j1, which starts next"


def test_so_many_start_in_one_pass_and_the_next_follows_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scheduling, "PLACED_AT_ONCE", 2)
    queue = [job(1), job(2), job(3, priority=90), job(4, not_before=NOW + 5)]
    result = plan(queue, [node("n1")], [], NOW)
    assert placed(result) == {3: ("n1",), 1: ("n1",)}
    assert result.reasons[2] == "many jobs start at this moment, and it is looked at next"
    assert "5s" in result.reasons[4]
    assert result.next_wake == NOW


def test_ten_thousand_jobs_of_one_shape_cost_one_search(monkeypatch: pytest.MonkeyPatch) -> None:
    searches = []
    find = Fleet.find

    def counted(self: Fleet, *args: object) -> list[int]:
        searches.append(args)
        return find(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(Fleet, "find", counted)
    result = plan([job(n) for n in range(1, 10_001)], [node("n1", gpus=1)], [], NOW)
    assert placed(result) == {1: ("n1",)}
    assert len(searches) == 2


def test_the_ledger_of_these_tests_notices_overplacing() -> None:
    ledger = Ledger([node("n1", gpus=1)], random.Random(0))
    ledger.start(job(1), Placement(1, ("n1",)), NOW)
    with pytest.raises(AssertionError, match="no GPU left"):
        ledger.start(job(2), Placement(2, ("n1",)), NOW)
