"""What a sweep's engine learns from elsewhere, demands of results, and says when it cannot go on."""

from __future__ import annotations

from typing import Any

import pytest

from agents.controller.sweeps import studies, sweeprun
from jobs.base.errors import InvalidInput, NotFound
from tests.agents.controller.conftest import Plane, until
from tests.agents.controller.sweeps.test_sweeps import ONE, ended, logs, study, sweep, trials


async def test_the_best_meets_the_constraints(plane: Plane) -> None:
    command = f"{ONE}; {logs('latency', 0, '{kind}')}; {logs('latency', 1, '{kind}')}"
    name = await sweep(
        plane,
        command,
        space={"x": {"choices": [1, 2, 3]}, "kind": {"choices": [4, 8]}},
        constraints=["latency <= 5", "x * kind <= 16"],
        sampler="grid",
        trials=None,
    )
    view = await ended(plane, name)
    assert (view["trials"], view["counts"]["complete"]) == (5, 5)
    rows = await trials(plane, name)
    assert {(row["params"]["x"], row["params"]["kind"], row["feasible"]) for row in rows} == {
        (1, 4, True), (2, 4, True), (3, 4, True), (1, 8, False), (2, 8, False),
    }  # fmt: skip
    assert all(row["constraints"] == {"latency <= 5": row["params"]["kind"] - 5} for row in rows)
    assert view["best"]["params"] == {"x": 1, "kind": 4}
    assert [item["params"] for item in view["front"]] == [view["best"]["params"]]
    silent = await sweep(plane, constraints=["latency <= 5"], trials=9)
    view = await ended(plane, silent)
    assert view["state"] == "FAILED"
    assert (await trials(plane, silent))[0]["reason"] == "never logged 'latency'; it logged loss"


async def test_a_space_without_an_admissible_point_fails_in_words(plane: Plane) -> None:
    view = await ended(plane, await sweep(plane, constraints=["x >= 2"]))
    assert view["state"] == "FAILED"
    assert view["reason"] == "of 500 points that were drawn, each breaks a constraint"
    assert view["counts"]["total"] == 0


async def test_a_sweep_starts_from_an_earlier_one(plane: Plane) -> None:
    first = await sweep(plane, trials=5)
    await ended(plane, first)
    second = await sweep(plane, trials=3, warm_start="last")
    view = await ended(plane, second)
    assert view["counts"]["complete"] == 3
    assert [row["number"] for row in await trials(plane, second)] == [5, 6, 7]
    assert view["spec"]["warm_start"] == [first]
    seen = study(plane, view["study"])
    assert [t["values"] for t in seen[:5]] == [row["values"] for row in await trials(plane, first)]
    events = await plane.lines("/v1/events", limit=200)
    assert [e["message"] for e in events if e["kind"] == "sweep.warm"] == [
        f"{second} starts from 5 trials of {first}"
    ]
    with pytest.raises(NotFound):
        await sweep(plane, warm_start="s9")
    with pytest.raises(InvalidInput, match=r"sweep.warm_start: s1 minimizes loss; allowed"):
        await sweep(plane, warm_start="s1", objective={"metric": "loss", "goal": "maximize"})


async def test_an_engine_that_cannot_go_on_says_so_until_it_can(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeprun, "RETRY", (0.05, 30.0))
    ask = studies.Study.ask

    def broken(self: Any) -> Any:
        raise RuntimeError("no such sampler")

    monkeypatch.setattr(studies.Study, "ask", broken)
    name = await sweep(plane, trials=3)

    async def told() -> Any:
        status = await plane.get("/v1/status")
        return [item for item in status["problems"] if item["what"].startswith(f"sweep {name}: ")]

    [problem] = await until(told)
    assert "no such sampler" in problem["what"]
    assert "qd sweep-stop" in problem["fix"]
    assert (await plane.get("/v1/status"))["state"] == "degraded"
    monkeypatch.setattr(studies.Study, "ask", ask)
    view = await ended(plane, name)
    assert view["counts"]["complete"] == 3
    assert await told() == []
    events = [e for e in await plane.lines("/v1/events", limit=200) if e["kind"][:6] == "sweep."]
    assert [(e["kind"], e["severity"]) for e in events] == [
        ("sweep.started", "info"),
        ("sweep.trouble", "error"),
        ("sweep.well", "info"),
        ("sweep.finished", "info"),
    ]


async def test_a_gpu_budget_ends_the_sweep_and_more_of_it_goes_on(
    make_plane: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeprun, "LOOK_EVERY", 0.1)
    plane: Plane = await make_plane(gpus=2)
    name = await sweep(
        plane,
        f"{ONE}; exec sleep 60",
        job={"resources": {"cpu": 0.5, "gpu": 1}},
        trials=None,
        parallel=2,
        budget={"gpu_hours": 0.002},
    )

    async def busy() -> bool:
        return all(r["state"] == "RUNNING" for r in await trials(plane, name) or [{"state": ""}])

    await until(busy)
    view = await ended(plane, name)
    assert (view["state"], view["reason"]) == ("FINISHED", "its 0.002 GPU hours are used up")
    assert view["counts"]["cancelled"] == 2
    await until(lambda: not plane.controller.reconciler.live)
    assert await plane.fabric.reservations() == set()
    again = await plane.post(f"/v1/sweeps/{name}/extend", {"gpu_hours": 4.0})
    assert (again["state"], again["gpu_hours_budget"]) == ("RUNNING", 4.0)

    async def more() -> bool:
        return bool((await plane.get(f"/v1/sweeps/{name}"))["counts"]["total"] > 2)

    await until(more)
    await plane.post(f"/v1/sweeps/{name}/extend", {"gpu_hours": 0.003})  # a smaller one, as it runs
    assert (await ended(plane, name))["reason"] == "its 0.003 GPU hours are used up"
