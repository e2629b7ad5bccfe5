"""The switches of the fabric that tests use."""

from __future__ import annotations

from typing import Any, cast

import pytest

from agents.controller.nodes.fabric import Bundle
from agents.fabric.local import LocalFabric, LocalNode
from jobs.base.errors import Unreachable
from jobs.wire.messages import AgentClient


class Counting:
    """An agent that counts its greetings."""

    def __init__(self) -> None:
        self.calls = 0

    async def hello(self) -> Any:
        self.calls += 1
        return {"node": "n1"}


async def connected(agent: Counting) -> LocalFabric:
    fabric = LocalFabric([LocalNode("n1", 2, 1, cast(AgentClient, agent))])
    await fabric.connect()
    return fabric


async def test_an_unreachable_agent_is_not_called() -> None:
    agent = Counting()
    fabric = await connected(agent)
    client = await fabric.agent((await fabric.nodes())[0])
    await client.hello()
    fabric.node("n1").reachable = False
    with pytest.raises(Unreachable):
        await client.hello()
    assert agent.calls == 1
    assert len(await fabric.nodes()) == 1, "silent is not dead"
    fabric.node("n1").reachable = True
    await client.hello()


async def test_a_fabric_that_forgot_is_another_one() -> None:
    fabric = await connected(Counting())
    (before,) = await fabric.nodes()
    assert await fabric.reserve("a", [Bundle("n1", 0.1, 1)])
    fabric.forget()
    assert fabric.state == "connecting"
    with pytest.raises(Unreachable):
        await fabric.reservations()
    await fabric.connect()
    assert await fabric.reservations() == set()
    (after,) = await fabric.nodes()
    assert after.id != before.id


async def test_nothing_is_reserved_on_a_node_that_left() -> None:
    fabric = await connected(Counting())
    fabric.node("n1").member = False
    assert await fabric.nodes() == []
    assert not await fabric.reserve("a", [Bundle("n1", 1, 0)])


async def test_while_it_is_down_nothing_answers() -> None:
    fabric = await connected(Counting())
    fabric.down = True
    assert fabric.state == "connecting"
    for call in (fabric.connect, fabric.nodes, fabric.reservations):
        with pytest.raises(Unreachable):
            await call()
    fabric.down = False
    await fabric.connect()
    assert fabric.state == "connected"


async def test_small_shares_add_up_exactly() -> None:
    fabric = await connected(Counting())
    for number in range(10):
        assert await fabric.reserve(f"r{number}", [Bundle("n1", 0.2, 0.1)])
    assert not await fabric.reserve("more", [Bundle("n1", 0, 0.1)])
