"""The parts of the fabric on Ray that need no Ray."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from pathlib import Path

import pytest

from agents.fabric.actor import actor_name, name_prefix
from agents.fabric.channel import Channel
from agents.fabric.ray import BULK_CALLS, Link, RayFabric, Target, driver_environment, target_of
from jobs.base.errors import Unreachable
from jobs.base.places import Places, places


@pytest.fixture
def where(tmp_path: Path) -> Places:
    here = places({"QD_HOME": str(tmp_path)})
    here.state.mkdir()
    return here


def write(where: Places, incarnation: int, *, up: bool) -> None:
    record = {
        "ray_address": "127.0.0.1:20001",
        "ray": {"process": {"pid": 1} if up else None, "incarnation": incarnation},
    }
    where.cluster_file.write_text(json.dumps(record))
    stamp = 1_700_000_000_000_000_000 + incarnation * 2 + up
    os.utime(where.cluster_file, ns=(stamp, stamp))  # two writes within one tick of the clock


def test_the_target_follows_what_the_supervisor_wrote(where: Places) -> None:
    find = target_of(where, {})
    assert find() is None, "not started yet"
    write(where, 1, up=True)
    assert find() == Target("127.0.0.1:20001", 1)
    write(where, 1, up=False)
    assert find() is None, "Ray is down"
    write(where, 2, up=True)
    assert find() == Target("127.0.0.1:20001", 2), "the same address, another cluster"


def test_an_address_in_the_environment_wins(where: Places) -> None:
    assert target_of(where, {"QD_RAY_ADDRESS": "head:6379"})() == Target("head:6379", 0)


def test_none_of_the_users_settings_for_ray_reach_the_driver(where: Places) -> None:
    env = driver_environment(where, {"RAY_ADDRESS": "x", "RAY_AUTH_MODE": "", "PATH": "/bin"})
    assert "RAY_ADDRESS" not in env
    assert env["RAY_AUTH_MODE"] == "token"
    assert env["RAY_AUTH_TOKEN_PATH"] == str(where.ray_token)
    real = {"QD_RAY_ADDRESS": "head:6379", "RAY_AUTH_TOKEN_PATH": "/etc/token"}
    assert driver_environment(where, real)["RAY_AUTH_TOKEN_PATH"] == "/etc/token"


def test_an_agents_name_tells_its_node_and_the_nodes_incarnation() -> None:
    assert actor_name("n1", "a" * 56) != actor_name("n1", "b" * 56)
    assert actor_name("n1", "a" * 56).startswith(name_prefix("n1"))
    assert not actor_name("n10", "a" * 56).startswith(name_prefix("n1"))


async def test_a_channel_carries_large_messages_whole_and_tells_its_end() -> None:
    one, other = socket.socketpair()
    left, right = await Channel.open(one), await Channel.open(other)
    message = (1, "put", (b"x" * 3_000_000, {"t": (1, 2.5)}))
    sending = asyncio.create_task(left.send(message))
    assert await right.receive() == message
    await sending
    await left.close()
    with pytest.raises(EOFError):
        await right.receive()
    await right.close()


async def test_a_fabric_without_a_cluster_says_so(where: Places) -> None:
    fabric = RayFabric(where, {})
    assert fabric.state == "connecting"
    with pytest.raises(Unreachable, match="not running") as caught:
        await fabric.connect()
    assert "qd up" in caught.value.hint
    with pytest.raises(Unreachable):
        await fabric.nodes()
    await fabric.close()


FAKE_DRIVER = """
import asyncio, os, socket, sys
from agents.fabric.channel import Channel

async def main():
    channel = await Channel.open(socket.socket(fileno=int(sys.argv[1])))
    if sys.argv[3] == "refuses":
        await channel.send((0, {"error": {"code": "unreachable", "message": "no head"}}))
        return
    await channel.send((0, {"value": None}))
    if sys.argv[3] == "quick":  # as on a link to a node that takes bytes more slowly than they come
        bulk = await Channel.open(socket.socket(fileno=int(sys.argv[2])))
        asyncio.create_task(answer(bulk))
    await answer(channel)

async def answer(channel):
    while True:
        number, operation, args = await channel.receive()
        if operation == "die":
            os._exit(1)
        if operation != "hang":
            await channel.send((number, {"value": [operation, *args]}))

asyncio.run(main())
"""


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A driver that answers with the question, hangs, or dies; Ray is not imported."""
    program = tmp_path / "python"
    (tmp_path / "driver.py").write_text(FAKE_DRIVER)
    # Stands in for the interpreter and drops `-P qd_start.py agents.fabric.driver`.
    program.write_text(f'#!/bin/sh\nshift 3\nexec {sys.executable} {tmp_path}/driver.py "$@"\n')
    program.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(program))


@pytest.mark.usefixtures("driver")
async def test_a_driver_that_dies_is_told_to_everyone_who_waits() -> None:
    link = await Link.start(Target("here:1", 1), os.environ)
    assert await link.request(5, "echo", 1, 2) == ["echo", 1, 2]
    waiting = asyncio.create_task(link.request(60, "hang"))
    await asyncio.sleep(0)
    for dead in (link.request(5, "die"), waiting, link.request(5, "echo")):
        with pytest.raises(Unreachable):
            await dead
    assert not link.alive
    await link.close()


@pytest.mark.usefixtures("driver")
async def test_a_driver_that_hangs_costs_its_timeout_and_others_go_on() -> None:
    link = await Link.start(Target("here:1", 1), os.environ)
    with pytest.raises(Unreachable, match=r"'hang' in 0\.05 s"):
        await link.request(0.05, "hang")
    assert await link.request(5, "echo") == ["echo"]
    await link.close()


@pytest.mark.usefixtures("driver")
async def test_a_driver_that_cannot_join_says_why_and_is_gone() -> None:
    with pytest.raises(Unreachable, match="no head"):
        await Link.start(Target("refuses", 1), os.environ)


@pytest.mark.usefixtures("driver")
async def test_megabytes_that_nobody_takes_hold_up_nothing_else() -> None:
    link = await Link.start(Target("slow:1", 1), os.environ)  # never reads the pipe for megabytes
    data = bytes(8 << 20)
    stuck = [asyncio.create_task(link.carry(60, "call", "n1", "id", "put", data)) for _ in range(9)]
    await asyncio.sleep(0.05)
    started = asyncio.get_running_loop().time()
    for _ in range(20):
        assert await link.request(5, "sync") == ["sync"]
    assert asyncio.get_running_loop().time() - started < 2, "leases do not wait"
    assert len(link._waiting) == BULK_CALLS, "the others wait for their turn and hold nothing"
    for task in stuck:
        task.cancel()
    await asyncio.gather(*stuck, return_exceptions=True)
    await link.close()


@pytest.mark.usefixtures("driver")
async def test_megabytes_come_back_whole_by_their_own_way() -> None:
    link = await Link.start(Target("quick", 1), os.environ)
    data = os.urandom(8 << 20)
    answers = await asyncio.gather(*(link.carry(30, "echo", data, n) for n in range(9)))
    assert answers == [["echo", data, n] for n in range(9)]
    await link.close()
