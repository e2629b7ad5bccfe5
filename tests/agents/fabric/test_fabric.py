"""The contract of a fabric, held by the real one and by the one that tests use."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agents.controller.nodes.fabric import Bundle, Fabric, FabricNode
from agents.fabric.local import LocalFabric, LocalNode
from agents.fabric.ray import RayFabric
from agents.node.agent import NodeAgent
from agents.node.config import AgentConfig
from jobs.base.errors import NotFound, Unreachable
from jobs.wire.messages import LaunchRequest, StopRequest

from .conftest import Cluster


def stop_request(key: str) -> StopRequest:
    return {"key": key, "epoch": 1, "grace": 1.0, "reason": "cancelled"}


def launch_request(key: str) -> LaunchRequest:
    return {
        "key": key,
        "epoch": 1,
        "master_addr": "127.0.0.1",
        "master_port": 1,
        "node_addresses": ["127.0.0.1"],
        "secrets": {},
        "lease_until": 0.0,
    }


async def joined(fabric: Fabric, seconds: float = 40.0) -> FabricNode:
    """Connect as the controller does, again and again, until the one node is there."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            await fabric.connect()
            return (await fabric.nodes())[0]
        except (Unreachable, IndexError):
            assert time.monotonic() < deadline, "it never connected"
            await asyncio.sleep(0.1)


async def nothing_reserved(fabric: Fabric) -> None:
    """Release what an earlier test has left."""
    for name in await fabric.reservations():
        await fabric.release(name)


@pytest.fixture(params=["local", pytest.param("ray", marks=pytest.mark.ray)])
async def fabric(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Fabric]:
    """A connected fabric of one node n1 with 4 CPUs and 2 GPUs, nothing reserved."""
    made: Fabric
    agent: NodeAgent | None = None
    if request.param == "ray":
        cluster: Cluster = request.getfixturevalue("cluster")
        made = RayFabric(cluster.where, cluster.environ)
    else:
        agent = NodeAgent(AgentConfig(tmp_path / "n", "n1", "c", simulate_gpus=2))
        await agent.start()
        made = LocalFabric([LocalNode("n1", 4, 2, agent)])
    assert made.state == "connecting"
    await joined(made)
    await nothing_reserved(made)
    yield made
    await made.close()
    if agent is not None:
        await agent.close()


async def test_the_node_is_there_with_what_it_has(fabric: Fabric) -> None:
    (node,) = await fabric.nodes()
    assert (node.name, node.cpus, node.gpus) == ("n1", 4.0, 2.0)
    assert node.id
    assert node.address
    assert fabric.state == "connected"


async def test_reservations_are_all_or_nothing_and_idempotent(fabric: Fabric) -> None:
    whole = [Bundle("n1", 1, 2)]
    assert await fabric.reserve("a", whole)
    assert await fabric.reserve("a", whole), "asked twice, granted once"
    assert not await fabric.reserve("b", [Bundle("n1", 1, 1)]), "no GPU is left"
    assert not await fabric.reserve("c", [Bundle("n1", 1, 0), Bundle("gone", 1, 0)])
    assert await fabric.reservations() == {"a"}, "what was not granted leaves nothing behind"
    await fabric.release("a")
    await fabric.release("a")
    assert await fabric.reserve("b", [Bundle("n1", 1, 0.5), Bundle("n1", 0, 0.5)])
    assert await fabric.reservations() == {"b"}


async def test_agents_answer_and_their_errors_come_through(fabric: Fabric) -> None:
    (node,) = await fabric.nodes()
    agent = await fabric.agent(node)
    hello = await agent.hello()
    assert hello["node"] == "n1"
    assert len(hello["facts"]["gpus"]) == 2
    key = f"c-j{time.monotonic_ns()}.1"
    with pytest.raises(NotFound, match=key):
        await agent.launch(launch_request(key))
    assert (await agent.stop(stop_request(key)))["outcome"] == "refused"
    again = await (await fabric.agent(node)).hello()
    assert key in [attempt["key"] for attempt in again["attempts"]], "it is the same agent"


async def test_nothing_can_be_asked_once_closed(fabric: Fabric) -> None:
    (node,) = await fabric.nodes()
    agent = await fabric.agent(node)
    await fabric.close()
    assert fabric.state == "connecting"
    calls: list[Any] = [fabric.nodes, fabric.reservations, agent.hello]
    for call in calls:
        with pytest.raises(Unreachable):
            await call()
    await fabric.connect()
    assert (await agent.hello())["node"] == "n1", "a client outlives the connection"


async def test_a_reservation_goes_on_to_the_next_that_wants_the_same(fabric: Fabric) -> None:
    whole = [Bundle("n1", 4, 2)]
    assert await fabric.reserve("c", whole)
    for name, next_name in (("c", "d"), ("d", "e"), ("e", "f")):
        await fabric.release(name)
        assert await fabric.reserve(next_name, whole)
        assert await fabric.reservations() == {next_name}
    await fabric.release("f")
    assert await fabric.reserve("g", [Bundle("n1", 1, 0)]), "what is kept is in nobody's way"
    assert await fabric.reservations() == {"g"}


@pytest.mark.ray
async def test_a_new_driver_hands_on_what_it_did_not_make(cluster: Cluster) -> None:
    whole = [Bundle("n1", 4, 2)]
    first = RayFabric(cluster.where, cluster.environ)
    await joined(first)
    await nothing_reserved(first)
    assert await first.reserve("h", whole)
    await first.release("h")
    assert await first.reserve("i", whole)
    await first.close()
    second = RayFabric(cluster.where, cluster.environ)
    await joined(second)
    assert await second.reservations() == {"h"}, "the name that Ray has for it"
    await second.release("h")  # as the controller does with what nobody wants
    assert await second.reserve("i", whole)
    assert await second.reservations() == {"i"}
    await second.close()


@pytest.mark.ray
async def test_a_killed_agent_is_back_with_what_it_held(cluster: Cluster) -> None:
    fabric = RayFabric(cluster.where, cluster.environ)
    node = await joined(fabric)
    agent = await fabric.agent(node)
    key = f"c-j{time.monotonic_ns()}.1"
    await agent.hello()
    await agent.stop(stop_request(key))
    first = cluster.pid("ray::AgentActor")
    os.kill(first, 9)
    deadline = time.monotonic() + 20
    while True:
        try:
            hello = await agent.hello()
            break
        except Unreachable:
            assert time.monotonic() < deadline
    assert key in [attempt["key"] for attempt in hello["attempts"]]
    assert cluster.pid("ray::AgentActor") != first
    assert fabric.state == "connected", "one agent's death says nothing about Ray"
    await fabric.close()


@pytest.mark.ray
async def test_ray_dies_and_everything_is_back(cluster: Cluster) -> None:
    """The head comes back at the same address and knows nothing. Ray would end a process that talks
    to it as to the old one; this process lives through it."""
    fabric = RayFabric(cluster.where, cluster.environ)
    node = await joined(fabric)
    agent = await fabric.agent(node)
    await agent.hello()
    await nothing_reserved(fabric)
    assert await fabric.reserve("before", [Bundle("n1", 1, 1)])
    address = cluster.record()["ray_address"]
    os.kill(cluster.pid("gcs_server"), 9)
    deadline = time.monotonic() + 20
    while fabric.state == "connected":
        assert time.monotonic() < deadline, "it did not notice"
        await asyncio.sleep(0.05)
    with pytest.raises(Unreachable):
        await fabric.nodes()
    with pytest.raises(Unreachable):
        await agent.hello()
    back = await joined(fabric)
    assert cluster.record()["ray_address"] == address
    assert back.id != node.id
    assert await fabric.reservations() == set(), "a new cluster; the controller reserves again"
    agent = await fabric.agent(back)
    assert (await agent.hello())["node"] == "n1"
    await fabric.close()


@pytest.mark.ray
async def test_a_supervisor_that_is_killed_changes_nothing(cluster: Cluster) -> None:
    before = cluster.record()
    fabric = RayFabric(cluster.where, cluster.environ)
    await joined(fabric)
    os.kill(before["supervisor"]["pid"], 9)
    await asyncio.sleep(0)
    answer = cluster.start()
    assert answer["started"]
    after = cluster.record()
    assert after["supervisor"] != before["supervisor"]
    assert after["ray"] == before["ray"]
    assert after["controller"]["process"] == before["controller"]["process"]
    assert fabric.state == "connected"
    assert not cluster.start("--simulate-gpus", "2")["started"], "the lock lets one in"
    assert cluster.start("--cpus", "1")["error"]["code"] == "conflict"
    await fabric.close()
