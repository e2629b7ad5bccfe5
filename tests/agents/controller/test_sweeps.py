"""Sweeps on a real control plane: studies are asked and told once, whatever happens in between."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from jobs.sweepspec import SweepSpec
from tests.agents.controller.conftest import Plane, until


def logs(name: str, step: int | str, value: str) -> str:
    """Shell that logs a metric, without an interpreter to start."""
    line = f'{{"n":"{name}","s":%s,"t":1,"v":%s}}\\n'
    return f"printf '{line}' {step} {value} >> \"$QD_METRICS_FILE\""


ONE = logs("loss", 0, "{x}")
SPACE = {"x": {"low": 0.0, "high": 1.0}, "kind": {"choices": ["a", "b"]}}


async def sweep(plane: Plane, command: str = ONE, **fields: Any) -> str:
    job = {"command": command, "notice": 0, "grace": 1, "resources": {"cpu": 0.5}}
    spec = SweepSpec.from_json(
        {
            "name": "probe",
            "job": job | fields.pop("job", {}),
            "space": SPACE,
            "objective": {"metric": "loss", "goal": "minimize"},
            "trials": 6,
            "parallel": 3,
            "seed": 7,
        }
        | fields
    )
    answer = await plane.post("/v1/sweeps", {"spec": spec.to_json(), "key": None})
    name: str = answer["id"]
    return name


async def ended(plane: Plane, name: str) -> dict[str, Any]:
    async def look() -> dict[str, Any] | None:
        view: dict[str, Any] = await plane.get(f"/v1/sweeps/{name}")
        return view if view["state"] in ("FINISHED", "FAILED") else None

    found: dict[str, Any] = await until(look, what=lambda: f"the end of {name}")
    return found


async def trials(plane: Plane, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = await plane.get(f"/v1/sweeps/{name}/trials")
    return found


def study(plane: Plane, name: str) -> list[dict[str, Any]]:
    """The study as a plain Optuna in another process sees it, while the controller has it open."""
    program = f"""
import json, optuna
study = optuna.load_study(study_name={name!r}, storage="sqlite:///{plane.root}/state/registry.db")
print(json.dumps([
    [t.number, t.state.name, t.params, t.values, sorted(t.intermediate_values.items())]
    for t in study.trials
]))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    names = ("number", "state", "params", "values", "steps")
    return [dict(zip(names, item, strict=True)) for item in json.loads(done.stdout)]


async def test_a_sweep_runs_to_its_end_and_optuna_reads_the_same(plane: Plane) -> None:
    name = await sweep(plane, trials=20, parallel=4)
    view = await ended(plane, name)
    assert (view["state"], view["reason"]) == ("FINISHED", "all 20 trials are done")
    assert view["counts"]["complete"] == view["counts"]["total"] == 20
    rows = await trials(plane, name)
    assert [row["number"] for row in rows] == list(range(20))
    assert all(row["state"] == "COMPLETE" for row in rows)
    best = min(rows, key=lambda row: row["values"][0])
    assert view["best"] == {
        "number": best["number"],
        "values": best["values"],
        "params": best["params"],
        "job": best["job"],
    }
    seen = study(plane, view["study"])
    assert [(t["number"], t["params"], t["values"]) for t in seen] == [
        (row["number"], row["params"], row["values"]) for row in rows
    ]
    assert {t["state"] for t in seen} == {"COMPLETE"}
    assert all(t["steps"] == [[0, t["values"][0]]] for t in seen)
    job = await plane.get(f"/v1/jobs/{best['job']}")
    assert job["tags"] == {"sweep": name, "trial": str(best["number"])}
    assert job["spec"]["params"] == best["params"]
    importance = await plane.get(f"/v1/sweeps/{name}/importance")
    assert sum(importance.values()) == pytest.approx(1.0)
    assert await plane.fabric.reservations() == set()
    assert not plane.controller.reconciler.live
    assert not plane.controller.sweeps._runs
