"""`qd explain`: the reasons, and suggestions that really let the job start."""

from __future__ import annotations

import shlex
from dataclasses import replace

import pytest
from hypothesis import given, settings

from jobs.base.errors import NotFound
from jobs.base.units import parse_size
from jobs.placement import explain
from jobs.placement.explain import explain_waiting
from jobs.placement.scheduling import Running, Shape, Share, plan
from jobs.wire.views import Unblock
from tests.jobs.clusters import Cluster, clusters
from tests.jobs.plain import holds, job, node

NOW = 100.0


def starts_after(command: str, number: int, cluster: Cluster, now: float) -> bool:
    """Do what a suggested command line says, and see whether the job starts."""
    queue = {request.job: request for request in cluster.queue}
    nodes, running = list(cluster.nodes), list(cluster.running)
    for words in (shlex.split(part) for part in command.split("&&")):
        match words:
            case ["qd", "undrain", name]:
                nodes = [replace(n, schedulable=n.schedulable or n.name == name) for n in nodes]
            case ["qd", "cancel", name]:
                running = [attempt for attempt in running if f"j{attempt.job}" != name]
                queue.pop(int(name[1:]), None)
            case ["qd", "submit", "...", *options]:
                request = queue[number]
                for option, text in zip(options[::2], options[1::2], strict=True):
                    if option == "--priority":
                        request = replace(request, priority=int(text))
                    else:
                        request = replace(request, shape=_set(request.shape, option, text))
                queue[number] = request
            case _:
                raise AssertionError(f"not a command of ours: {words}")
    return number not in plan(list(queue.values()), nodes, running, now).reasons


def _set(shape: Shape, option: str, text: str) -> Shape:
    match option:
        case "--gpus":
            return replace(shape, gpus=float(text))
        case "--cpus":
            return replace(shape, cpus=float(text))
        case "--nodes":
            return replace(shape, nodes=int(text))
        case "--memory":
            return replace(shape, memory=parse_size(text))
    raise AssertionError(f"not an option of ours: {option}")


@settings(max_examples=60)
@given(clusters())
def test_every_command_that_is_suggested_works(cluster: Cluster) -> None:
    queue = [replace(request, not_before=0) for request in cluster.queue]
    # Odd amounts of memory are there to be asked for less of.
    nodes = [replace(n, memory=n.memory << 20) for n in cluster.nodes]
    queue = [replace(r, shape=replace(r.shape, memory=r.shape.memory << 20)) for r in queue]
    cluster = replace(cluster, queue=queue, nodes=nodes)
    result = plan(queue, nodes, cluster.running, NOW)
    for request in queue[:4]:
        reasons, unblock = explain_waiting(request.job, queue, nodes, cluster.running, NOW)
        assert all(reasons)
        assert reasons
        if request.job not in result.reasons:
            assert unblock == []
        for change in unblock:
            assert change["change"]
            if change["command"]:
                assert starts_after(change["command"], request.job, cluster, NOW), change


def test_a_job_with_room_starts_next() -> None:
    assert explain_waiting(1, [job(1)], [node("n1")], [], NOW) == (
        ["starts next: there is room for it now"],
        [],
    )


def test_a_job_that_does_not_wait_is_not_found() -> None:
    with pytest.raises(NotFound, match="j7 is not waiting"):
        explain_waiting(7, [job(1)], [node("n1")], [], NOW)


def test_too_many_gpus_for_now() -> None:
    nodes, running = [node("n1"), node("n2")], [holds(7, "n1", 5, ends=400.0), holds(8, "n2", 6)]
    reasons, unblock = explain_waiting(9, [job(9, gpus=8)], nodes, running, NOW)
    assert reasons == [
        "starts next: needs 8 GPUs on a node; n1 has the most free, 3",
        "n1 is kept for it; it starts in 5m at the latest",
    ]
    assert unblock == [
        Unblock(
            change="wait until j7 ends, in 5m at the latest",
            command="qd cancel j7",
        ),
        Unblock(
            change="ask for 3 GPUs a node instead of 8",
            command="qd submit ... --gpus 3",
        ),
    ]


def test_a_draining_node_would_do() -> None:
    nodes = [node("n1", gpus=2), node("n2", schedulable=False, why_not="draining")]
    reasons, unblock = explain_waiting(1, [job(1, gpus=8)], nodes, [], NOW)
    assert reasons == [
        "needs 8 GPUs and 1 CPU on a node; no node in service has as much; n2 is draining"
    ]
    assert unblock[0] == Unblock(change="take n2 back into service", command="qd undrain n2")


def test_the_fewest_nodes_are_brought_back() -> None:
    resting = [node(f"n{n}", schedulable=False, why_not="drained") for n in (1, 2, 3)]
    _, unblock = explain_waiting(1, [job(1, gpus=8, nodes=2)], resting, [], NOW)
    assert unblock == [
        Unblock(
            change="take n1 and n2 back into service",
            command="qd undrain n1 && qd undrain n2",
        )
    ]


def test_a_lost_node_cannot_be_undrained() -> None:
    resting = [node("n1", schedulable=False, why_not="lost")]
    _, unblock = explain_waiting(1, [job(1)], resting, [], NOW)
    assert unblock == [Unblock(change="bring back n1 (lost)", command="")]


def test_fewer_nodes_or_the_jobs_on_them() -> None:
    nodes = [node("n1"), node("n2"), node("n3")]
    running = [holds(7, "n1", 4), holds(8, "n1", 4), holds(9, "n2 n3", 8)]
    _, unblock = explain_waiting(10, [job(10, gpus=8, nodes=2)], nodes, running, NOW)
    assert unblock[0] == Unblock(
        change="wait until j9 ends, which has no time limit", command="qd cancel j9"
    )
    _, unblock = explain_waiting(10, [job(10, gpus=8, nodes=3)], nodes, running, NOW)
    assert unblock == [
        Unblock(
            change="wait until j7, j8 and j9 end",
            command="qd cancel j7 && qd cancel j8 && qd cancel j9",
        )
    ]


def test_many_jobs_in_the_way_are_counted() -> None:
    running = [Running(n, {"n1": Share(1, 1, 0, (f"GPU-{n}",))}, 50, NOW + n) for n in range(1, 17)]
    _, unblock = explain_waiting(99, [job(99, gpus=16)], [node("n1", gpus=16)], running, NOW)
    assert unblock == [
        Unblock(change="wait until j1, j2, j3 and 13 more end, in 16s at the latest", command="")
    ]


def test_cpus_are_named_where_they_are_scarce() -> None:
    running = [Running(7, {"n1": Share(60, 1, 0, ("GPU-a",))})]
    reasons, unblock = explain_waiting(9, [job(9, gpus=2, cpus=8)], [node("n1")], running, NOW)
    assert reasons[0] == "starts next: needs 8 CPUs on a node; n1 has the most free, 4"
    assert Unblock(
        change="ask for 4 CPUs a node instead of 8", command="qd submit ... --cpus 4"
    ) in (unblock)


def test_gpus_and_cpus_are_lowered_in_step_when_neither_alone_helps() -> None:
    running = [Running(7, {"n1": Share(32, 4, 0, tuple("abcd"))})]
    _, unblock = explain_waiting(9, [job(9, gpus=8, cpus=64)], [node("n1")], running, NOW)
    assert unblock == [
        Unblock(change="wait until j7 ends, which has no time limit", command="qd cancel j7"),
        Unblock(
            change="ask for 4 GPUs a node instead of 8, and 32 CPUs instead of 64",
            command="qd submit ... --gpus 4 --cpus 32",
        ),
    ]


def test_behind_the_head_of_the_queue() -> None:
    queue = [job(5, gpus=8, priority=90), job(9, gpus=2)]
    reasons, unblock = explain_waiting(9, queue, [node("n1")], [holds(7, "n1", 4)], NOW)
    assert reasons == [
        "behind j5 (priority 90), for which n1 is kept",
        "j7 on n1 has no time limit",
    ]
    assert (
        Unblock(
            change="raise its priority to 91, above j5 (90)", command="qd submit ... --priority 91"
        )
        in unblock
    )


def test_nothing_outranks_the_highest_priority() -> None:
    queue = [job(5, gpus=8, priority=100), job(9, gpus=2)]
    _, unblock = explain_waiting(9, queue, [node("n1")], [holds(7, "n1", 4)], NOW)
    assert (
        Unblock(change="wait until j5, which is ahead, is gone", command="qd cancel j5") in unblock
    )


def test_the_smallest_raise_is_suggested() -> None:
    queue = [*(job(n, gpus=1, priority=60 + n) for n in range(1, 9)), job(9, gpus=4)]
    _, unblock = explain_waiting(9, queue, [node("n1")], [], NOW)
    raised = [change for change in unblock if "--priority" in change["command"]]
    assert raised == [
        Unblock(
            change="raise its priority to 65, above j4 (64)", command="qd submit ... --priority 65"
        )
    ]


def test_a_pause_only_has_to_be_waited_for() -> None:
    paused = job(9, not_before=NOW + 12)
    assert explain_waiting(9, [paused], [node("n1")], [], NOW) == (
        ["its next attempt starts in 12s"],
        [Unblock(change="wait 12s for its next attempt", command="")],
    )
    reasons, unblock = explain_waiting(9, [paused], [node("n1")], [holds(7, "n1", 8)], NOW)
    assert reasons[:2] == [
        "its next attempt starts in 12s",
        "starts next: needs 1 GPU on a node; none is free",
    ]
    assert unblock == [
        Unblock(change="wait until j7 ends, which has no time limit", command="qd cancel j7")
    ]


def test_a_job_larger_than_any_node() -> None:
    reasons, unblock = explain_waiting(9, [job(9, gpus=16)], [node("n1")], [], NOW)
    assert reasons == ["asks for 16 GPUs on a node; the largest node (n1) has 8"]
    assert unblock == [
        Unblock(change="ask for 8 GPUs a node instead of 16", command="qd submit ... --gpus 8")
    ]


def test_the_number_of_passes_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    passes = 0
    decide = explain._Case.decide

    def counted(self: explain._Case) -> object:
        nonlocal passes
        passes += 1
        return decide(self)

    monkeypatch.setattr(explain._Case, "decide", counted)
    nodes = [node(f"n{n}", schedulable=n > 50, why_not="draining") for n in range(100)]
    running = [holds(100 + n, f"n{n}", 5) for n in range(100)]
    queue = [*(job(n, gpus=7, nodes=2, priority=n) for n in range(1, 99)), job(99, 8, 90, 64)]
    queue = [replace(r, priority=99 - r.priority) if r.job != 99 else r for r in queue]
    _, unblock = explain_waiting(99, queue, nodes, running, NOW)
    assert passes <= 4 * explain.TRIES + 4
    assert len(unblock) <= 4
