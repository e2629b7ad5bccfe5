"""What is looked at before a gang starts, and what is said when it is not well."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

import pytest

from agents.node.staging import rendezvous
from agents.node.staging.preflight import Condition, Unfit, check, complaint
from agents.node.staging.rendezvous import Meetings, reach
from jobs.wire.messages import GpuSample, Meeting, NodeSample
from tests.agents.node.conftest import Node, end_all, plan_of

GIB = 2**30


def gpu(index: int, **changes: Any) -> GpuSample:
    fields: dict[str, Any] = dict.fromkeys(GpuSample.__annotations__)
    values = {
        "index": index,
        "uuid": f"G{index}",
        "error": "",
        "mem_used": 0,
        "mem_total": 80 * GIB,
        "processes": [],
    }
    return GpuSample(**{**fields, **values, **changes})  # type: ignore[typeddict-item]


def node_with(*gpus: GpuSample, memory: int = 8 * GIB) -> Condition:
    sample: dict[str, Any] = dict.fromkeys(NodeSample.__annotations__)
    return Condition(NodeSample(**{**sample, "gpus": list(gpus)}), memory)  # type: ignore[typeddict-item]


TAKEN = {"mem_used": 60 * GIB, "processes": [{"pid": 42, "gpu": "G1", "memory": 60 * GIB}]}


@pytest.mark.parametrize(
    ("plan", "gpus", "condition", "words"),
    [
        ({}, [], node_with(), ""),
        ({"memory": 8 * GIB}, [], node_with(), ""),
        (
            {"memory": 8 * GIB},
            [],
            Condition(None, 3 * GIB),
            "asks for 8 GiB of memory; 3 GiB are available",
        ),
        ({"gpus": 1}, ["G0"], node_with(gpu(0), gpu(1, **TAKEN)), ""),
        (
            {"gpus": 1},
            ["G1"],
            node_with(gpu(0), gpu(1, **TAKEN)),
            "GPU 1 has 60 GiB of 80 GiB in use already by process 42, which no job here started",
        ),
        (
            {"gpus": 1},
            ["G0"],
            node_with(gpu(0, mem_used=41 * GIB)),
            "GPU 0 has 41 GiB of 80 GiB in use already",
        ),
        ({"gpus": 1}, ["G0"], node_with(gpu(0, mem_used=None)), ""),
        ({"gpus": 0.5}, ["G1"], node_with(gpu(1, **TAKEN)), ""),  # it is there to be shared
        (
            {"gpus": 2},
            ["G0", "G1"],
            node_with(gpu(0), gpu(1, error="GPU is lost")),
            "GPU 1 cannot be read: GPU is lost",
        ),
        ({"gpus": 2}, ["G0", "G7"], node_with(gpu(0)), "GPU G7 is not visible"),
        ({"gpus": 1}, ["G0"], Condition(None, GIB), ""),  # nothing was measured yet
        ({"gpus": 1}, ["G0"], node_with(), ""),
    ],
)
def test_complaints(plan: Any, gpus: list[str], condition: Condition, words: str) -> None:
    assert complaint(plan_of(**plan), gpus, condition) == words


async def test_what_passes_by_itself_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agents.node.staging.preflight.AGAIN", 0.001)
    looks = [node_with(gpu(1, **TAKEN)), node_with(gpu(1, **TAKEN)), node_with(gpu(1))]
    told: list[str] = []
    await check(plan_of(gpus=1), ["G1"], lambda: looks.pop(0), told.append)
    assert looks == []
    assert told[0].startswith("waits: GPU 1 has 60 GiB")


async def test_what_does_not_pass_is_told() -> None:
    taken = node_with(gpu(1, **TAKEN))
    with pytest.raises(Unfit, match="GPU 1 has 60 GiB"):
        await check(plan_of(gpus=1), ["G1"], lambda: taken, lambda _: None, patience=0.0)


async def test_the_node_is_to_blame_for_what_it_has_not_and_the_job_for_what_it_asks(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agents.node.staging.preflight.PATIENCE", 0.0)
    monkeypatch.setattr(check, "__kwdefaults__", {"patience": 0.0})
    reply = await node.stage(plan_of("c-j1.1", 1, memory=2**60))
    assert (reply["state"], reply["blame"]) == ("failed", "node")
    assert "of memory;" in reply["detail"]
    reply = await node.stage(plan_of("c-j2.1", 2, gpus=1))
    assert (reply["state"], reply["blame"]) == ("failed", "node")
    reply = await node.stage(plan_of("c-j3.1", 3, python="/no/such/python"))
    assert (reply["state"], reply["blame"]) == ("failed", "job")


# -- where a gang meets ---------------------------------------------------------------------------


def first_of_two(**changes: Any) -> dict[str, Any]:
    return {"nnodes": 2, "world_size": 2, **changes}


def second_of_two(meet: Meeting | None = None) -> dict[str, Any]:
    changes = first_of_two(node_rank=1, first_rank=1)
    return {**changes, "meet": meet} if meet else changes


@pytest.fixture
async def other(tmp_path: Path) -> Any:
    """A second node, for node rank 1."""
    node = Node(tmp_path / "other")
    await node.agent.start()
    yield node
    await end_all(node)


def place(port: int | None) -> Meeting:
    assert port is not None
    return Meeting(node="n1", address="127.0.0.1", port=port)


async def test_nodes_of_a_gang_meet_while_they_are_staged(node: Node, other: Node) -> None:
    port = (await node.stage(plan_of("c-j1.1", 1, **first_of_two())))["port"]
    assert (await other.stage(plan_of("c-j1.1", 1, **second_of_two())))["state"] == "ready"
    meet = place(port)
    for _ in range(2):
        reply = await other.stage(plan_of("c-j1.1", 1, **second_of_two(meet)))
        assert reply["state"] == "ready", reply
    await node.restart()
    reply = await other.stage(plan_of("c-j1.1", 1, **second_of_two(meet)))
    assert reply["state"] == "ready", "the next agent holds the place too"


async def test_the_ranks_get_the_port_at_once(node: Node, other: Node) -> None:
    script = (
        "import os, socket; s = socket.socket(); "
        "s.bind(('', int(os.environ['MASTER_PORT']))); print('bound')"
    )
    argv = ("python3", "-c", script)
    port = (await node.stage(plan_of("c-j1.1", 1, *argv, **first_of_two())))["port"]
    await other.stage(plan_of("c-j1.1", 1, **second_of_two()))
    await other.stage(plan_of("c-j1.1", 1, **second_of_two(place(port))))
    await node.agent.launch(node.request(master_port=port))
    # A request that comes late does not take it back.
    await node.stage(plan_of("c-j1.1", 1, *argv, **first_of_two()))
    assert (await node.end())["outcome"] == "done"
    assert (node.folder() / "rank-0.log").read_text() == "bound\n"


async def test_a_stopped_staging_gives_the_port_back(node: Node) -> None:
    port = (await node.stage(plan_of("c-j1.1", 1, **first_of_two())))["port"]
    assert port is not None
    with pytest.raises(OSError, match="in use"), socket.socket() as rival:
        rival.bind(("", port))
    await node.stop()
    with socket.socket() as rival:
        rival.bind(("", port))


async def test_a_place_that_cannot_be_reached_is_told_with_its_node(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reach, "__kwdefaults__", {"patience": 0.5})
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # taken, but nobody listens
        meet = place(closed.getsockname()[1])
        await node.stage(plan_of("c-j1.1", 1, **second_of_two()))
        reply = await node.stage(plan_of("c-j1.1", 1, **second_of_two(meet)))
    assert (reply["state"], reply["blame"]) == ("failed", "node")
    assert reply["detail"] == (
        f"cannot reach n1 at 127.0.0.1:{meet['port']}, where the ranks are to meet: "
        "Connection refused"
    )


async def test_a_place_that_does_not_answer_or_is_another_ones(
    unused_ports: list[int],
) -> None:
    silent, alien = unused_ports
    listening = socket.create_server(("127.0.0.1", silent))
    with listening, pytest.raises(Unfit, match=rf"n1 at 127\.0\.0\.1:{silent}.*: no answer"):
        await reach(place(silent), "c-j1.1", patience=0.4)
    meetings = Meetings()
    await meetings.host("c-j2.1", alien)
    try:
        with pytest.raises(Unfit, match="something else answers there"):
            await reach(place(alien), "c-j1.1", patience=0.4)
        with pytest.raises(Unfit, match=f"port {alien} was taken"):
            await Meetings().host("c-j3.1", alien)
    finally:
        meetings.close()


@pytest.fixture
def unused_ports() -> list[int]:
    with socket.socket() as one, socket.socket() as two:
        for probe in (one, two):
            probe.bind(("127.0.0.1", 0))
        return [one.getsockname()[1], two.getsockname()[1]]


async def test_a_place_that_is_taken_up_a_little_late_is_waited_for(
    unused_ports: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rendezvous, "AGAIN", 0.01)
    meetings = Meetings()
    waiting = asyncio.create_task(reach(place(unused_ports[0]), "c-j1.1"))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    await meetings.host("c-j1.1", unused_ports[0])
    await waiting
    meetings.close()
