"""Killed at a certain moment: exactly one launch, whatever had been said or done by then."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from agents.node.agent import NodeAgent
from agents.node.guard import records
from agents.node.guard.forkserver import ForkServer
from tests.agents.controller.conftest import Plane, until
from tests.chaos.faults import Apart, Held


def ledger(plane: Plane) -> list[str]:
    """One line for each start of a rank, written by the ranks themselves."""
    path = plane.root / "ledger"
    return path.read_text().split() if path.exists() else []


async def submit(plane: Plane, **fields: Any) -> str:
    command = f"echo $QD_RUN/$RANK >> {plane.root}/ledger; sleep 0.2"
    return await plane.submit(command, procs_per_node=2, **fields)


@pytest.mark.parametrize("method", ["stage", "launch"])
@pytest.mark.parametrize("before", [True, False])
async def test_the_controller_dies_around_a_call(plane: Plane, method: str, before: bool) -> None:
    node = plane.fabric.node("n1")
    held = Held(node.agent, method, before=before)
    node.agent = held
    job = await submit(plane)
    async with asyncio.timeout(10):
        await held.reached.wait()
    await plane.restart()
    view = await plane.wait(job)
    assert (view["state"], len(view["attempts"])) == ("SUCCEEDED", 1)
    assert sorted(ledger(plane)) == [f"{job}.1/0", f"{job}.1/1"]


async def test_the_controller_dies_between_the_launch_and_the_handle_on_disk(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached, go_on = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    spawn = ForkServer.spawn

    def slow(fork_server: ForkServer, folder: Path) -> None:
        loop.call_soon_threadsafe(reached.set)
        asyncio.run_coroutine_threadsafe(go_on.wait(), loop).result(20)
        spawn(fork_server, folder)

    monkeypatch.setattr(ForkServer, "spawn", slow)
    job = await submit(plane)
    async with asyncio.timeout(10):
        await reached.wait()
    (folder,) = (plane.root / "n1" / "attempts").iterdir()
    assert not (folder / records.HANDLE).exists()
    await plane.restart()  # and asks for the launch again, which waits for the first to be done
    await asyncio.sleep(0.3)
    go_on.set()
    view = await plane.wait(job)
    assert (view["state"], len(view["attempts"])) == ("SUCCEEDED", 1)
    assert sorted(ledger(plane)) == [f"{job}.1/0", f"{job}.1/1"]


@pytest.mark.parametrize("left", ["nothing", "started"])
async def test_the_agent_dies_between_the_launch_and_the_handle_on_disk(
    plane: Plane, monkeypatch: pytest.MonkeyPatch, left: str
) -> None:
    """With `started` the guard had begun, and was killed as well before it said who it is."""
    reached = asyncio.Event()
    loop = asyncio.get_running_loop()

    spawn = ForkServer.spawn

    def killed(fork_server: ForkServer, folder: Path) -> None:
        (folder / records.LOG).touch()
        if left == "started":
            (folder / records.STARTED).touch()
        loop.call_soon_threadsafe(reached.set)
        asyncio.run_coroutine_threadsafe(asyncio.sleep(0.2), loop).result(20)
        raise OSError(9, "killed")

    monkeypatch.setattr(ForkServer, "spawn", killed)
    plane.fabric.node("n1").agent = Apart(plane.nodes["n1"])
    job = await submit(plane)
    async with asyncio.timeout(10):
        await reached.wait()
    node, old = plane.fabric.node("n1"), plane.nodes["n1"]
    node.reachable = False
    await old.close()
    monkeypatch.setattr(ForkServer, "spawn", spawn)
    plane.nodes["n1"] = NodeAgent(old._config)
    await plane.nodes["n1"].start()
    node.agent, node.reachable = plane.nodes["n1"], True
    view = await plane.wait(job)
    states = [attempt["state"] for attempt in view["attempts"]]
    run = f"{job}.{len(states)}"
    assert states == (["SUCCEEDED"] if left == "nothing" else ["LOST", "SUCCEEDED"])
    assert sorted(ledger(plane)) == [f"{run}/0", f"{run}/1"]


async def test_what_was_staged_and_given_up_is_let_go(plane: Plane) -> None:
    """The node was away when its gang was cancelled: it must not keep the GPUs for it for ever."""
    node = plane.fabric.node("n1")
    held = Held(node.agent, "stage", before=False)
    node.agent = held
    job = await submit(plane)
    async with asyncio.timeout(10):
        await held.reached.wait()
    node.reachable = False
    await until(lambda: not plane.controller.links.links["n1"].online)
    await plane.post(f"/v1/jobs/{job}/cancel")
    assert (await plane.wait(job))["state"] == "CANCELLED"
    node.reachable = True
    await until(lambda: not list((plane.root / "n1" / "attempts").iterdir()))
    assert ledger(plane) == []
