"""The head's maintenance: leases are granted ahead, and nothing is given up or started meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from agents.controller.commands import maintaining
from agents.node.guard.records import boot_clock
from jobs.base.errors import Conflict, InvalidInput
from tests.agents.controller.conftest import Plane, until

LEASE = 20.0


async def gang(plane: Plane) -> str:
    """A gang of two nodes that runs until the file `gate` is there."""
    command = f"while ! test -e {plane.root / 'gate'}; do sleep 0.05; done"
    job: str = await plane.submit(command, nodes=2, lease=LEASE, grace=1.0)
    await plane.wait(job, "RUNNING")
    return job


def ranks(plane: Plane) -> dict[str, float]:
    """By node, until when the guard of what it holds lets that run."""
    return {
        node: attempt.lease - boot_clock()
        for node, agent in plane.nodes.items()
        for attempt in agent._holdings
        if attempt.live
    }


async def look_again(plane: Plane) -> None:
    """Until the reconciler has looked at everything twice."""
    passes = plane.controller.reconciler.passes
    await until(lambda: plane.controller.reconciler.passes > passes + 2)


async def finish(plane: Plane, job: str) -> dict[str, Any]:
    (plane.root / "gate").touch()
    view: dict[str, Any] = await plane.wait(job)
    return view


async def test_leases_last_to_its_end_and_are_confirmed(make_plane: Callable[..., Any]) -> None:
    plane: Plane = await make_plane(nodes=2)
    job = await gang(plane)
    assert await plane.get("/v1/maintenance") is None
    view = await plane.post("/v1/maintenance", {"seconds": 600, "reason": "kernel"})
    assert (view["attempts"], view["unanswered"], view["reason"]) == (1, [], "kernel")
    left = ranks(plane)
    assert sorted(left) == ["n1", "n2"]
    assert all(600 < seconds <= 600 + LEASE for seconds in left.values())
    assert (await plane.get("/v1/status"))["maintenance"]["left"] > 590
    await plane.post("/v1/maintenance/end")
    assert await plane.get("/v1/maintenance") is None
    assert (await finish(plane, job))["state"] == "SUCCEEDED"
    actions = [row["action"] for row in await plane.lines("/v1/audit")]
    assert [one for one in actions if one.startswith("maint")] == [
        "maintenance.begin",
        "maintenance.end",
    ]


async def test_a_node_that_does_not_answer_is_named(
    make_plane: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maintaining, "PATIENCE", 0.5)
    plane: Plane = await make_plane(nodes=2)
    job = await gang(plane)
    plane.fabric.node("n2").member = False
    await until(lambda: plane.controller.links.links["n2"].agent is None)
    view = await plane.post("/v1/maintenance", {"seconds": 600})
    assert view["unanswered"] == [{"node": "n2", "jobs": [job]}]
    plane.fabric.node("n2").member = True

    async def confirmed() -> bool:
        return bool((await plane.get("/v1/maintenance"))["unanswered"] == [])

    await until(confirmed)  # it is asked again when it is back
    await finish(plane, job)


async def test_nothing_is_given_up_or_started_until_it_is_over(
    make_plane: Callable[..., Any],
) -> None:
    plane: Plane = await make_plane(nodes=2)
    job = await gang(plane)
    await plane.post("/v1/maintenance", {"seconds": 600})
    plane.fabric.node("n2").member = False
    await until(lambda: plane.controller.links.links["n2"].agent is None)
    plane.clock.skip(500)
    later = await plane.submit("true")
    await look_again(plane)
    assert (await plane.get(f"/v1/jobs/{job}"))["state"] == "RUNNING"
    waiting = await plane.get(f"/v1/jobs/{later}")
    assert waiting["state"] == "QUEUED"
    assert "maintenance" in waiting["reason"]
    plane.clock.skip(110)
    assert (await plane.wait(later))["state"] == "SUCCEEDED"
    kinds = [event["kind"] for event in await plane.lines("/v1/events")]
    assert "maintenance.ended" in kinds
    plane.fabric.node("n2").member = True
    await finish(plane, job)


async def test_a_controller_that_begins_reckons_with_what_was_granted(
    make_plane: Callable[..., Any],
) -> None:
    """Also when the wall clock says that all is over, which the ranks know nothing of."""
    plane: Plane = await make_plane(nodes=2)
    job = await gang(plane)
    await plane.post("/v1/maintenance", {"seconds": 600})
    await plane.stop()
    plane.fabric.node("n2").member = False
    plane.now.offset += 86_400
    await plane.start()
    assert await plane.get("/v1/maintenance") is None
    plane.clock.skip(600)
    await look_again(plane)
    assert (await plane.get(f"/v1/jobs/{job}"))["state"] == "RUNNING"
    plane.clock.skip(LEASE + 1.0 + 10.0)

    async def given_up() -> bool:
        return bool((await plane.get(f"/v1/jobs/{job}"))["state"] != "RUNNING")

    await until(given_up)
    plane.fabric.node("n2").member = True
    await plane.post(f"/v1/jobs/{job}/cancel")
    await plane.wait(job)


async def test_what_is_no_maintenance_is_refused(make_plane: Callable[..., Any]) -> None:
    plane: Plane = await make_plane(nodes=1)
    with pytest.raises(Conflict, match="not in maintenance"):
        await plane.post("/v1/maintenance/end")
    for seconds in (0, 59, 86_401):
        with pytest.raises(InvalidInput, match=r"a maintenance of .*; allowed: 1m to 1d"):
            await plane.post("/v1/maintenance", {"seconds": seconds})
