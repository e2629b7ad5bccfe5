"""Sweeps with registry and studies on a real PostgreSQL server."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from typing import Any

import pytest

from tests.agents.controller.conftest import Plane, until
from tests.agents.controller.sweeps.test_populations import PBT, TRAIN
from tests.agents.controller.sweeps.test_populations import SPACE as RATES
from tests.agents.controller.sweeps.test_sweeps import (
    ONE,
    PRUNABLE,
    ended,
    restart_at,
    sweep,
    trials,
)

pytestmark = pytest.mark.postgres


@pytest.fixture
def plane(postgres_plane: Plane) -> Plane:
    return postgres_plane


def plain(plane: Plane, name: str) -> list[list[Any]]:
    """A study as a plain Optuna in another process sees it."""
    program = """
import json, optuna, sys
study = optuna.load_study(study_name=sys.argv[1], storage=sys.argv[2])
print(json.dumps([[t.number, t.state.name, t.params, t.values] for t in study.trials]))
"""
    done = subprocess.run(
        [sys.executable, "-c", program, name, str(plane.database_url)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: list[list[Any]] = json.loads(done.stdout)
    return found


async def test_a_sweep_whose_controller_comes_and_goes(plane: Plane) -> None:
    name = await sweep(plane, f"{ONE}; sleep 0.2", trials=12, parallel=3)
    await restart_at(plane, name, 2, 7)
    view = await ended(plane, name)
    rows = await trials(plane, name)
    assert view["counts"]["complete"] == len(rows) == 12
    seen_by_optuna = await asyncio.to_thread(plain, plane, view["study"])
    assert seen_by_optuna == [
        [row["number"], "COMPLETE", row["params"], row["values"]] for row in rows
    ]
    curves = await plane.get(f"/v1/sweeps/{name}/curves")
    assert [item["points"] for item in curves] == [[[0, row["values"][0]]] for row in rows]
    assert sum((await plane.get(f"/v1/sweeps/{name}/importance")).values()) == pytest.approx(1.0)


async def test_pruning_pins_constraints_and_reruns(plane: Plane) -> None:
    name = await sweep(
        plane,
        PRUNABLE,
        space={"x": {"low": 0.0, "high": 1.0}, "nap": {"choices": [0, 60]}},
        pruner={"threshold": {"upper": 0.5}},
        constraints=["x + nap <= 60.95", "loss * 2 <= 1"],
        enqueue=[{"x": 0.9, "nap": 60}, {"x": 0.7, "nap": 0}],
        trials=2,
    )
    await until_open(plane, name, 1)
    await plane.post(f"/v1/sweeps/{name}/trials/1/pin")
    view = await ended(plane, name)
    rows = await trials(plane, name)
    assert [(row["state"], row["feasible"]) for row in rows] == [
        ("PRUNED", False),
        ("COMPLETE", False),
    ]
    assert view["best"] is None
    assert (await plane.post(f"/v1/sweeps/{name}/trials/1/rerun"))["state"] == "RUNNING"
    await until_open(plane, name, 2)
    await plane.post(f"/v1/sweeps/{name}/trials/2/prune")
    await ended(plane, name)
    last = (await trials(plane, name))[2]
    assert (last["origin"], last["parent"], last["state"]) == ("rerun", 1, "PRUNED")


async def until_open(plane: Plane, name: str, trial: int) -> None:
    async def look() -> bool:
        return any(
            row["number"] == trial and row["state"] == "RUNNING"
            for row in await trials(plane, name)
        )

    await until(look)


async def test_a_population_and_a_warm_start(plane: Plane) -> None:
    objective = {"metric": "score", "goal": "maximize"}
    first = await sweep(
        plane,
        TRAIN,
        job={"resources": {"cpu": 0.25}, "params": {"epochs": 0}},
        space=RATES,
        sampler={"pbt": PBT | {"population": 3, "generations": 2}},
        objective=objective,
        trials=None,
    )
    view = await ended(plane, first)
    assert view["counts"]["complete"] == 6
    assert {row["generation"] for row in await trials(plane, first)} == {0, 1}
    second = await sweep(
        plane,
        TRAIN.replace("{epochs}", "2"),
        space=RATES,
        objective=objective,
        warm_start=first,
        trials=2,
    )
    await ended(plane, second)
    assert [row["number"] for row in await trials(plane, second)] == [6, 7]
    plane.now.offset += 2 * 86_400
    told = await plane.post("/v1/blobs/prune", {"dry_run": True})
    assert told == {**await plane.post("/v1/blobs/prune", {}), "dry_run": True}
    assert told["checkpoints"] == 3, "the first generation's: a score grows with each turn"
