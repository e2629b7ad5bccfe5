"""Pre-flight, seen from the controller: nothing starts on nodes that cannot run it, and the job waits
for better ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from agents.node.agent import NodeAgent
from agents.node.staging.preflight import check
from agents.node.staging.rendezvous import Meetings, reach
from jobs.base.errors import NotFound
from jobs.wire.messages import AttemptReport, LaunchRequest
from tests.agents.controller.conftest import Plane, until


async def lost(plane: Plane, job: str, attempt: int = 1) -> dict[str, Any]:
    """The job once an attempt was lost."""

    async def look() -> dict[str, Any] | None:
        view: dict[str, Any] = await plane.get(f"/v1/jobs/{job}")
        states = [attempt["state"] for attempt in view["attempts"]]
        return view if states[attempt - 1 : attempt] == ["LOST"] else None

    view: dict[str, Any] = await until(look, what=lambda: f"{job}.{attempt} lost")
    return view


async def test_the_nodes_of_a_gang_meet_before_its_ranks_do(
    make_plane: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    plane: Plane = await make_plane(nodes=3, cpus=1)
    met: list[tuple[str, str]] = []
    for name, agent in plane.nodes.items():

        async def spy(plan: Any, name: str = name, stage: Any = agent.stage) -> Any:
            answer = await stage(plan)
            if "meet" in plan:
                met.append((name, f"{plan['meet']['node']} {answer['state']}"))
            return answer

        monkeypatch.setattr(agent, "stage", spy)
    job = await plane.submit("echo $RANK", nodes=3, resources={"cpu": 1.0})
    assert (await plane.wait(job))["state"] == "SUCCEEDED"
    assert sorted(met) == [("n2", "n1 ready"), ("n3", "n1 ready")]


async def test_nodes_that_cannot_reach_each_other_are_both_named_and_all_is_released(
    make_plane: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def deaf(self: Meetings, key: str, port: int) -> None:
        pass

    monkeypatch.setattr(reach, "__kwdefaults__", {"patience": 0.3})
    plane: Plane = await make_plane(nodes=2, cpus=1)
    with monkeypatch.context() as wall:
        wall.setattr(Meetings, "host", deaf)
        job = await plane.submit("true", nodes=2, resources={"cpu": 1.0})
        view = await lost(plane, job)
    failure = view["attempts"][0]["first_failure"]
    assert (failure["node"], failure["rank"]) == ("n2", None)
    assert failure["reason"].startswith("cannot reach n1 at 127.0.0.1:")
    assert failure["reason"].endswith("where the ranks are to meet: Connection refused")
    assert not any(rank["pid"] for rank in view["attempts"][0]["ranks"])
    assert (await plane.wait(job))["state"] == "SUCCEEDED", "the wall is gone"
    assert await until(lambda: plane.controller.reconciler.live == {})
    assert await plane.fabric.reservations() == set()


async def test_a_job_waits_for_memory_that_others_hold(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "__kwdefaults__", {"patience": 0.0})
    with monkeypatch.context() as full:
        full.setattr("agents.node.meter.memory", lambda: (2**30, 2**30 + 5))
        job = await plane.submit("true", resources={"memory": "64MiB"})
        view = await lost(plane, job)
    assert view["attempts"][0]["reason"] == "asks for 64 MiB of memory; 5 B are available"
    story = await plane.get(f"/v1/jobs/{job}/explain")
    assert any("n1: asks for 64 MiB" in line for line in story["story"])
    view = await plane.wait(job)
    assert (view["state"], view["restarts"] > 0) == ("SUCCEEDED", True)


async def test_a_node_that_has_lost_what_it_staged_costs_the_job_no_restart(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its power was cut before the folder was on disk: a loss, and not a failure of the job."""
    launch, forgotten = NodeAgent.launch, list[str]()

    async def launch_after_a_power_cut(self: NodeAgent, request: LaunchRequest) -> AttemptReport:
        if not forgotten:
            forgotten.append(request["key"])
            raise NotFound(f"{request['key']} was not staged on this node")
        return await launch(self, request)

    monkeypatch.setattr(NodeAgent, "launch", launch_after_a_power_cut)
    job = await plane.submit("true", max_restarts=0)
    view = await plane.wait(job)
    assert (view["state"], view["attempt"]) == ("SUCCEEDED", 2)
