"""Sweeps on real clusters: starting them, and the account that must be given of them afterwards."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from agents.fabric.ray import RayFabric
from console.client import Client
from jobs.base.errors import QuarterdeckError
from jobs.base.places import Places
from jobs.sweeps.spec import SweepSpec

LOSS = """printf '{"n":"loss","s":0,"t":1,"v":%s}\\n' {x} >> "$QD_METRICS_FILE"; """
"""Shell that logs a trial's `x` as its loss, without an interpreter to start."""


def start(client: Client, command: str, **fields: Any) -> str:
    """Submit a sweep over x in [0, 1] that minimizes the metric `loss`; its id. `job` has fields of its
    own."""
    job = {"command": command, "notice": 0, "grace": 1, "resources": {"cpu": 0.5}}
    spec = SweepSpec.from_json(
        {
            "name": "probe",
            "job": job | fields.pop("job", {}),
            "space": {"x": {"low": 0.0, "high": 1.0}},
            "objective": {"metric": "loss", "goal": "minimize"},
            "seed": 7,
        }
        | fields
    )
    body = {"spec": spec.to_json(), "key": os.urandom(8).hex()}
    sweep: str = client.act("/v1/sweeps", body)["id"]
    return sweep


def ended(client: Client, sweep: str, patience: float = 120.0) -> dict[str, Any]:
    """The sweep once it is over; a control plane that is away meanwhile is waited for."""
    deadline = time.monotonic() + patience
    while True:
        seen: Any = None
        try:
            seen = client.get(f"/v1/sweeps/{sweep}")
            if seen["state"] in ("FINISHED", "FAILED"):
                return dict(seen)
        except QuarterdeckError as error:
            seen = error
        assert time.monotonic() < deadline, f"{sweep} has not ended in {patience:g} s: {seen}"
        time.sleep(0.1)


def trials(client: Client, sweep: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = client.get(f"/v1/sweeps/{sweep}/trials")
    return found


def study(registry: Path, name: str) -> list[dict[str, Any]]:
    """All trials of a study, as a plain Optuna in another process reads them."""
    program = f"""
import json, optuna
study = optuna.load_study(study_name={name!r}, storage="sqlite:///{registry}")
print(json.dumps([[t.number, t.state.name, t.params, t.values] for t in study.trials]))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    names = ("number", "state", "params", "values")
    return [dict(zip(names, item, strict=True)) for item in json.loads(done.stdout)]


def check_told_once(client: Client, registry: Path, sweep: str) -> list[dict[str, Any]]:
    """Assert that the sampler was told of every trial, of each what it came to; gives the trials."""
    view, rows = client.get(f"/v1/sweeps/{sweep}"), trials(client, sweep)
    words = {"COMPLETE": "COMPLETE", "PRUNED": "PRUNED", "FAILED": "FAIL", "CANCELLED": "FAIL"}
    told = study(registry, view["study"])
    assert [(t["number"], t["state"], t["params"]) for t in told] == [
        (row["number"], words[row["state"]], row["params"]) for row in rows
    ]
    complete = [number for number, row in enumerate(rows) if row["state"] == "COMPLETE"]
    assert all(told[number]["values"] == rows[number]["values"] for number in complete)
    return rows


def reservations(places: Places, environ: dict[str, str]) -> set[str]:
    """Our placement groups that Ray holds."""

    async def ask() -> set[str]:
        fabric = RayFabric(places, environ)
        await fabric.connect()
        try:
            return await fabric.reservations()
        finally:
            await fabric.close()

    return asyncio.run(ask())
