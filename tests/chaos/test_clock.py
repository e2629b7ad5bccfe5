"""The controller's clock is set to another hour: nothing that counts seconds may believe it."""

from __future__ import annotations

from typing import Any

import pytest

from agents.controller.sweeps import sweeprun
from jobs.base.times import parse_time
from tests.agents.controller.conftest import Plane, until

HOUR = 3600.0


async def attempts(plane: Plane, job: str) -> int:
    number: int = (await plane.get(f"/v1/jobs/{job}"))["attempt"]
    return number


@pytest.mark.parametrize("jump", [HOUR, -HOUR])
async def test_a_running_job_feels_nothing(plane: Plane, jump: float) -> None:
    gate = plane.root / "gate"
    job = await plane.submit(
        f"echo one; while ! test -e {gate}; do sleep 0.05; done; echo two", timeout=1800.0
    )
    await plane.wait(job, "RUNNING")
    plane.now.offset = jump
    plane.clock.skip(3.0)  # some passes of the reconciler
    other = await plane.submit("true", resources={"cpu": 0.5})
    assert (await plane.wait(other))["state"] == "SUCCEEDED"
    assert (await plane.get(f"/v1/jobs/{job}"))["state"] == "RUNNING"
    gate.touch()
    view = await plane.wait(job)
    assert (view["state"], len(view["attempts"])) == ("SUCCEEDED", 1)
    lines = [line["line"] for line in await plane.lines(f"/v1/jobs/{job}/logs")]
    assert lines == ["one", "two"]


async def test_a_timeout_comes_in_its_time_though_the_clock_was_set_back(plane: Plane) -> None:
    job = await plane.submit("exec sleep 300", timeout=600.0)
    await plane.wait(job, "RUNNING")
    plane.now.offset = -HOUR
    plane.clock.skip(601.0)
    view = await plane.wait(job)
    assert view["state"] == "FAILED"
    assert "timeout" in view["reason"]


async def test_a_restart_waits_its_seconds_and_not_an_hour(plane: Plane) -> None:
    ledger = plane.root / "ledger"
    job = await plane.submit(f"echo x >> {ledger}; test $(wc -l < {ledger}) = 3", max_restarts=2)

    async def waits_for_its_third() -> bool:
        view = await plane.get(f"/v1/jobs/{job}")
        return bool(view["attempt"] == 2 and view["state"] == "QUEUED")

    await until(waits_for_its_third)
    plane.now.offset = -HOUR
    plane.clock.skip(6.0)
    assert (await plane.wait(job))["state"] == "SUCCEEDED"
    assert await attempts(plane, job) == 3


@pytest.mark.parametrize("jump", [HOUR, -HOUR])
async def test_a_restart_of_the_controller_believes_no_clock_either(
    plane: Plane, jump: float
) -> None:
    """The clock is set while no controller runs: what a job has run is what its node has counted."""
    gate = plane.root / "gate"
    job = await plane.submit(
        f"while ! test -e {gate}; do sleep 0.05; done", timeout=1800.0, grace=1.0
    )
    late = await plane.submit("exec sleep 300", timeout=600.0, grace=1.0, resources={"cpu": 0.5})
    for each in (job, late):
        await plane.wait(each, "RUNNING")
    await plane.stop()
    plane.now.offset = jump
    await plane.start()
    plane.clock.skip(3.0)

    async def counted() -> bool:
        view = await plane.get(f"/v1/jobs/{job}")
        since = plane.now() - parse_time(view["started_at"])
        return bool(view["state"] == "RUNNING" and 0 <= since < 120)

    await until(counted)
    gate.touch()
    view = await plane.wait(job)
    assert view["state"] == "SUCCEEDED", view["reason"]
    assert 0 <= parse_time(view["ended_at"]) - parse_time(view["started_at"]) < 120
    plane.clock.skip(601.0)
    view = await plane.wait(late)
    assert (view["state"], view["exit_code"]) == ("FAILED", 124), "and its limit holds"


@pytest.mark.parametrize(
    "budget", [{"time": 1800.0}, {"gpu_hours": 0.4}], ids=["time", "gpu_hours"]
)
@pytest.mark.parametrize("jump", [HOUR, -HOUR])
async def test_a_budget_of_a_sweep_counts_the_seconds_that_passed(
    make_plane: Any, monkeypatch: pytest.MonkeyPatch, budget: dict[str, float], jump: float
) -> None:
    monkeypatch.setattr(sweeprun, "LOOK_EVERY", 0.1)
    plane: Plane = await make_plane(gpus=2)
    job = {"command": "exec sleep 300", "resources": {"cpu": 0.5, "gpu": 1}, "grace": 0.5}
    space, goal = {"x": {"low": 0.0, "high": 1.0}}, {"metric": "loss", "goal": "minimize"}
    spec = {"job": job, "space": space, "objective": goal, "parallel": 1, "budget": budget}
    await plane.post("/v1/sweeps", {"spec": {**spec, "sampler": "random", "trials": None}})

    async def runs() -> bool:
        jobs = (await plane.get("/v1/jobs"))["jobs"]
        return [job["state"] for job in jobs] == ["RUNNING"]

    await until(runs)
    plane.now.offset = jump
    plane.clock.skip(60.0)  # passes of the sweep and of the reconciler
    for _ in range(3):
        other = await plane.submit("true", resources={"cpu": 0.25})
        await plane.wait(other)
    view = await plane.get("/v1/sweeps/s1")
    assert (view["state"], view["reason"]) == ("RUNNING", "")
    assert view["gpu_hours"] < 0.1
    await plane.post("/v1/sweeps/s1/stop")
