"""A node that is gone for good leaves the books, and only such a one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from jobs.base.errors import Conflict, NotFound
from tests.agents.controller.conftest import Plane, until


async def lost(plane: Plane, name: str) -> None:
    """Switch a node off, and wait until it is said to be LOST."""
    plane.fabric.node(name).member = False

    async def state() -> bool:
        plane.clock.skip(10)
        return bool((await plane.get(f"/v1/nodes/{name}"))["state"] == "LOST")

    await until(state)
    await until(lambda: plane.controller.cluster.nodes[name].fabric is None)


async def test_a_node_that_is_lost_is_forgotten(make_plane: Callable[..., Any]) -> None:
    plane: Plane = await make_plane(nodes=2)
    await plane.wait(await plane.submit("true", nodes=2))
    await plane.post("/v1/nodes/n2/drain", {"reason": "old"})
    with pytest.raises(Conflict, match="n2 is"):
        await plane.post("/v1/nodes/n2/forget")
    await lost(plane, "n2")
    assert (await plane.post("/v1/nodes/n2/forget"))["name"] == "n2"
    assert [node["name"] for node in await plane.get("/v1/nodes")] == ["n1"]
    assert "n2" not in str((await plane.get("/v1/status"))["problems"])
    with pytest.raises(NotFound):
        await plane.post("/v1/nodes/n2/forget")
    events = await plane.lines("/v1/events")
    assert [event["kind"] for event in events][-1] == "node.forgotten"
    await plane.restart()
    await until(lambda: plane.controller.cluster.nodes)
    assert "n2" not in plane.controller.cluster.nodes

    plane.fabric.node("n2").member = True

    async def back() -> bool:
        found = {node["name"]: node for node in await plane.get("/v1/nodes")}
        return "n2" in found and found["n2"]["state"] == "READY"

    await until(back)
    assert (await plane.get("/v1/nodes/n2"))["reason"] == "", "as a new node: not drained"


async def test_a_node_that_an_attempt_may_still_run_on_is_kept(
    make_plane: Callable[..., Any],
) -> None:
    plane: Plane = await make_plane(nodes=2)
    gate = plane.root / "gate"
    job = await plane.submit(f"while ! test -e {gate}; do sleep 0.05; done", nodes=2, lease=600)
    await plane.wait(job, "RUNNING")
    await lost(plane, "n2")
    with pytest.raises(Conflict, match=job):
        await plane.post("/v1/nodes/n2/forget")
    plane.fabric.node("n2").member = True
    gate.touch()
    assert (await plane.wait(job))["state"] == "SUCCEEDED"
