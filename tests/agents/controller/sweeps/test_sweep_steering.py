"""Steering a sweep trial by trial, and what its charts are drawn from."""

from __future__ import annotations

from typing import Any

import pytest

from jobs.base.errors import Conflict, InvalidInput, NotFound
from tests.agents.controller.conftest import Plane, until
from tests.agents.controller.sweeps.test_sweeps import ended, logs, sweep, trials


async def test_a_pinned_trial_is_left_alone_by_the_pruner(plane: Plane) -> None:
    gate = plane.root / "gate"
    command = (
        f"while ! test -e {gate}; do sleep 0.02; done; "
        f"for step in 0 1 2; do {logs('loss', '$step', '{x}')}; sleep 0.1; done; "
        f"while ! test -e {gate}2; do sleep 0.02; done"
    )
    name = await sweep(
        plane,
        command,
        job={"resources": {"cpu": 0.1}},
        pruner={"threshold": {"upper": 0.5}},
        enqueue=[{"x": 0.8}, {"x": 0.9}],
        trials=2,
        parallel=2,
    )

    async def running() -> bool:
        return {row["state"] for row in await trials(plane, name)} == {"RUNNING"}

    await until(running)
    pinned = await plane.post(f"/v1/sweeps/{name}/trials/0/pin")
    assert pinned["pinned"]
    gate.touch()

    async def one_is_pruned() -> bool:
        return bool((await trials(plane, name))[1]["state"] == "PRUNED")

    await until(one_is_pruned)
    assert (await trials(plane, name))[0]["state"] == "RUNNING"
    assert not (await plane.post(f"/v1/sweeps/{name}/trials/0/unpin"))["pinned"]
    await plane.post(f"/v1/sweeps/{name}/trials/0/pin")
    with pytest.raises(NotFound):
        await plane.post(f"/v1/sweeps/{name}/trials/7/pin")
    (plane.root / "gate2").touch()
    view = await ended(plane, name)
    assert (view["counts"]["complete"], view["counts"]["pruned"]) == (1, 1)
    with pytest.raises(Conflict):
        await plane.post(f"/v1/sweeps/{name}/trials/0/pin")


async def test_a_trial_runs_again_also_when_the_sweep_is_over(plane: Plane) -> None:
    name = await sweep(plane, trials=3, parallel=1, enqueue=[{"x": 0.25}])
    await ended(plane, name)
    again = await plane.post(f"/v1/sweeps/{name}/trials/1/rerun")
    assert (again["state"], again["trials"]) == ("RUNNING", 4)
    view = await ended(plane, name)
    rows = await trials(plane, name)
    assert [(row["origin"], row["parent"]) for row in rows] == [
        ("enqueued", None),
        ("drawn", None),
        ("drawn", None),
        ("rerun", 1),
    ]
    assert rows[3]["params"] == rows[1]["params"]
    assert rows[3]["job"] != rows[1]["job"]
    assert view["counts"]["complete"] == 4
    with pytest.raises(NotFound):
        await plane.post(f"/v1/sweeps/{name}/trials/9/rerun")


async def test_a_point_of_a_grid_runs_again(plane: Plane) -> None:
    space = {"x": {"choices": [0.1, 0.2]}}
    name = await sweep(plane, space=space, sampler="grid", trials=None)
    await ended(plane, name)
    assert (await plane.post(f"/v1/sweeps/{name}/trials/0/rerun"))["trials"] == 3
    await ended(plane, name)
    assert [row["params"]["x"] for row in await trials(plane, name)] == [0.1, 0.2, 0.1]


async def test_curves_and_slices(plane: Plane) -> None:
    command = f"for step in 0 1 2 3; do {logs('loss', '$step', '{x}')}; done; {logs('acc', 5, '1')}"
    name = await sweep(plane, command, trials=3, parallel=1)
    await ended(plane, name)
    rows = await trials(plane, name)
    curves: list[dict[str, Any]] = await plane.get(f"/v1/sweeps/{name}/curves")
    assert curves == [
        {
            "number": row["number"],
            "state": "COMPLETE",
            "points": [[step, row["params"]["x"]] for step in range(4)],
        }
        for row in rows
    ]
    two = await plane.get(f"/v1/sweeps/{name}/curves", limit=2, metric="acc")
    assert [(item["number"], item["points"]) for item in two] == [(1, [[5, 1.0]]), (2, [[5, 1.0]])]
    one = await plane.get(f"/v1/sweeps/{name}/curves", trial=1)
    assert one == [curves[1]]
    x, kind = await plane.get(f"/v1/sweeps/{name}/slices")
    assert (x["name"], x["low"], x["high"], x["log"]) == ("x", 0.0, 1.0, False)
    assert x["points"] == [
        {"number": row["number"], "x": row["params"]["x"], "y": row["values"][0]} for row in rows
    ]
    assert (kind["choices"], [point["x"] for point in kind["points"]]) == (
        ["a", "b"],
        [row["params"]["kind"] for row in rows],
    )
    with pytest.raises(InvalidInput):
        await plane.get(f"/v1/sweeps/{name}/slices", objective=1)
