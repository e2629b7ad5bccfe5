"""`on_node_loss: wait`: no time that passes starts a gang again, only proof that its node has gone down."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from agents.controller.nodes.cluster import LOST_AFTER
from agents.node import machine
from agents.node.guard.records import boot_clock
from jobs.base.errors import Conflict, NotFound
from jobs.life.boots import named
from tests.agents.controller.conftest import Plane, until

LEASE = 20.0


async def gang(plane: Plane, **fields: Any) -> str:
    """A gang of two nodes that runs until the file `gate` is there."""
    command = f"while ! test -e {plane.root / 'gate'}; do sleep 0.05; done"
    job: str = await plane.submit(command, nodes=2, lease=LEASE, grace=1.0, **fields)
    await plane.wait(job, "RUNNING")
    return job


async def lose(plane: Plane, name: str, seconds: float = 10 * LEASE) -> None:
    """Cut a node off, for as long as that on the controller's clock."""
    plane.fabric.node(name).member = False
    await until(lambda: plane.controller.links.links[name].agent is None)
    plane.clock.skip(seconds)
    passes = plane.controller.reconciler.passes
    await until(lambda: plane.controller.reconciler.passes > passes + 2)


async def finish(plane: Plane, job: str) -> dict[str, Any]:
    (plane.root / "gate").touch()
    for node in plane.nodes:
        plane.fabric.node(node).member = True
    view: dict[str, Any] = await plane.wait(job)
    return view


async def attempts(plane: Plane, job: str) -> int:
    return len((await plane.get(f"/v1/jobs/{job}"))["attempts"])


async def test_no_lease_ends_it_and_no_time_starts_it_again(
    make_plane: Callable[..., Any],
) -> None:
    plane: Plane = await make_plane(nodes=2)
    job = await gang(plane, on_node_loss="wait")
    (held,) = plane.nodes["n2"]._holdings
    assert held.lease - boot_clock() > 365 * 86_400
    await lose(plane, "n2", 30 * 86_400)
    assert (await plane.get(f"/v1/jobs/{job}"))["state"] == "RUNNING"
    (problem,) = [one for one in (await plane.get("/v1/status"))["problems"] if "n2" in one["what"]]
    assert f"and {job} wait for it" in problem["what"]
    assert "qd confirm-dead n2" in problem["fix"]
    explained = await plane.get(f"/v1/jobs/{job}/explain")
    assert "no contact with n2" in explained["reasons"][0]
    assert explained["unblock"][0]["command"] == "qd confirm-dead n2"
    await plane.restart()
    plane.clock.skip(30 * 86_400)
    assert (await finish(plane, job))["state"] == "SUCCEEDED"
    assert await attempts(plane, job) == 1


async def test_the_clusters_choice_holds_for_jobs_that_leave_it_open(
    make_plane: Callable[..., Any],
) -> None:
    plane: Plane = await make_plane(nodes=2)
    plane.controller.reconciler._waiting = True
    job = await gang(plane)
    plane.controller.reconciler._waiting = False  # what was placed keeps what it was placed with
    await lose(plane, "n2")
    assert (await plane.get(f"/v1/jobs/{job}"))["state"] == "RUNNING"
    assert (await finish(plane, job))["state"] == "SUCCEEDED"


async def test_a_persons_word_starts_it_again(make_plane: Callable[..., Any]) -> None:
    plane: Plane = await make_plane(nodes=2)
    job = await gang(plane, on_node_loss="wait", max_restarts=1)
    with pytest.raises(Conflict, match="answers"):
        await plane.post("/v1/nodes/n2/confirm-dead")
    await lose(plane, "n2", LOST_AFTER - 15)
    with pytest.raises(Conflict, match="silent for only"):
        await plane.post("/v1/nodes/n2/confirm-dead")
    await lose(plane, "n2")
    assert await attempts(plane, job) == 1
    await plane.post("/v1/nodes/n2/confirm-dead")

    async def again() -> bool:
        return bool((await plane.get(f"/v1/jobs/{job}"))["state"] != "RUNNING")

    await until(again)
    actions = [row["action"] for row in await plane.lines("/v1/audit")]
    assert actions.count("node.confirm-dead") == 1
    with pytest.raises(NotFound):
        await plane.post("/v1/nodes/n9/confirm-dead")
    with pytest.raises(Conflict, match="nothing that has not ended"):
        await plane.post("/v1/nodes/n2/confirm-dead")
    # The word was wrong: the copy is stopped as soon as its node is back, before another begins there.
    plane.fabric.node("n2").member = True
    await plane.wait(job, "RUNNING")
    assert await attempts(plane, job) == 2
    assert (await finish(plane, job))["state"] == "SUCCEEDED"


@pytest.mark.parametrize("same", [True, False], ids=["the machine", "another machine"])
async def test_a_machine_that_was_restarted_and_has_lost_its_disk(
    make_plane: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, same: bool
) -> None:
    """Its boot id proves that nothing of it runs; that of another machine under its name does not."""
    monkeypatch.setattr(machine, "boot", lambda: named("m", "boot-1"))
    plane: Plane = await make_plane(nodes=2)
    job = await gang(plane, on_node_loss="wait")
    reconciler = plane.controller.reconciler
    boot = named("m" if same else "other", "boot-2")
    await reconciler.losses.restarted("n2", boot, {"c-j1.1"})
    assert ((await plane.get(f"/v1/jobs/{job}"))["state"] != "RUNNING") is same
    view = await finish(plane, job)
    assert view["state"] == "SUCCEEDED"
    assert await attempts(plane, job) == (2 if same else 1)
