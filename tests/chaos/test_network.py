"""Calls between controller and agents that get lost, before or after they acted."""

from __future__ import annotations

import asyncio
import random
import sys
from typing import Any

import pytest

from agents.controller.nodes import links
from agents.node import agent as agent_module
from jobs.base.errors import Unreachable
from jobs.wire.messages import PROTOCOL
from tests.agents.controller.conftest import Plane, guards_of, until
from tests.chaos.faults import Lossy, Patched

JOBS = 10


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_a_quarter_of_all_calls_is_lost(
    plane: Plane, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No double launch, no lost stop, no lost line or point."""
    monkeypatch.setattr(links, "BACKOFF", (0.02, 0.05))
    ledger = plane.root / "ledger"
    node = plane.fabric.node("n1")
    lossy = Lossy(node.agent, random.Random(seed))
    node.agent = lossy
    metric = "import quarterdeck; quarterdeck.log(n=1, step=1); print('told')"
    command = f'echo $QD_RUN >> {ledger}; {sys.executable} -c "{metric}"'
    jobs = [await plane.submit(command, resources={"cpu": 0.1}) for _ in range(JOBS)]
    endless = [await plane.submit("exec sleep 300", resources={"cpu": 0.1}) for _ in range(3)]
    for job in endless:
        await plane.wait(job, "RUNNING")
        await plane.post(f"/v1/jobs/{job}/cancel")
    for job in [*jobs, *endless]:
        view = await plane.wait(job)
        expected = "CANCELLED" if job in endless else "SUCCEEDED"
        assert (view["state"], len(view["attempts"])) == (expected, 1), f"{job}, {lossy.lost}"
    for job in jobs:
        assert [line["line"] for line in await plane.lines(f"/v1/jobs/{job}/logs")] == ["told"]
        assert [p["step"] for p in await plane.lines(f"/v1/jobs/{job}/metrics")] == [1]
    assert sorted(ledger.read_text().split()) == sorted(f"{job}.1" for job in jobs)
    lossy.share = 0.0
    await until(lambda: not list((plane.root / "n1" / "attempts").iterdir()))
    await until(lambda: not guards_of(plane.root))
    assert await plane.fabric.reservations() == set()
    assert lossy.lost.total() > 0


async def test_a_job_that_ended_before_anybody_heard_that_it_ran(plane: Plane) -> None:
    """Its metrics are taken though no report of its running ranks ever came."""
    node = plane.fabric.node("n1")

    async def launch(real: Any, request: Any) -> Any:
        node.reachable = False
        await real(request)
        folder = plane.root / "n1" / "attempts" / request["key"]
        await until(lambda: (folder / "exit.json").exists())
        node.reachable = True
        raise Unreachable("lost")

    node.agent = Patched(node.agent, "launch", launch)
    metric = "import quarterdeck; quarterdeck.log(n=1, step=1); print('told')"
    job = await plane.submit(f'{sys.executable} -c "{metric}"')
    view = await plane.wait(job)
    assert (view["state"], len(view["attempts"])) == ("SUCCEEDED", 1)
    assert [p["step"] for p in await plane.lines(f"/v1/jobs/{job}/metrics")] == [1]
    assert view["metrics"]["n"]["value"] == 1


async def test_an_agent_of_another_version_is_refused_in_words(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What runs goes on meanwhile, and is taken over again by the right version."""
    gate = plane.root / "gate"
    job = await plane.submit(f"while ! test -e {gate}; do sleep 0.05; done")
    await plane.wait(job, "RUNNING")
    monkeypatch.setattr(agent_module, "PROTOCOL", PROTOCOL + 1)

    async def told() -> bool:
        status = await plane.get("/v1/status")
        return any("speaks protocol" in problem["what"] for problem in status["problems"])

    await until(told)
    waiting = await plane.submit("true", resources={"cpu": 0.5})
    await asyncio.sleep(0.5)
    assert (await plane.get(f"/v1/jobs/{job}"))["state"] == "RUNNING"
    assert (await plane.get(f"/v1/jobs/{waiting}"))["state"] != "RUNNING"
    monkeypatch.undo()
    gate.touch()
    assert (await plane.wait(job))["state"] == "SUCCEEDED"
    assert (await plane.wait(waiting))["state"] == "SUCCEEDED"
    assert (await plane.get(f"/v1/jobs/{job}"))["attempt"] == 1
