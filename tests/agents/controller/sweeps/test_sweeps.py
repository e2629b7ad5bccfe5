"""Sweeps on a real control plane: studies are asked and told once, whatever happens in between."""

from __future__ import annotations

import asyncio
import json
import math
import subprocess
import sys
from typing import Any

import pytest

from agents.controller.sweeps import sweeprun
from jobs.base.errors import Conflict, InvalidInput, NotFound
from jobs.life.lifecycle import Gone
from jobs.sweeps.spec import SweepSpec
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
study = optuna.load_study(study_name={name!r}, storage="sqlite:///{plane.root}/state/state.db")
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


async def restart_at(plane: Plane, name: str, *complete: int) -> None:
    """Another controller, each time that so many trials of a sweep are complete."""
    for wanted in complete:

        async def so_far(wanted: int = wanted) -> bool:
            view = await plane.get(f"/v1/sweeps/{name}")
            return bool(view["counts"]["complete"] >= wanted)

        await until(so_far)
        await plane.restart()


async def test_a_controller_that_comes_and_goes_tells_every_trial_once(plane: Plane) -> None:
    name = await sweep(plane, f"{ONE}; sleep 0.2", trials=12, parallel=3)
    await restart_at(plane, name, 1, 4, 8)
    view = await ended(plane, name)
    rows = await trials(plane, name)
    assert view["counts"]["complete"] == len(rows) == 12
    assert len({row["job"] for row in rows}) == 12
    assert (await plane.get("/v1/jobs"))["total"] == 12
    seen_by_optuna = study(plane, view["study"])
    assert [(t["number"], t["state"], t["params"]) for t in seen_by_optuna] == [
        (row["number"], "COMPLETE", row["params"]) for row in rows
    ]
    assert len({str(row["params"]["x"]) for row in rows}) == 12  # the seed did not begin again


@pytest.mark.parametrize("moment", ["asked", "told"])
async def test_a_crash_between_optuna_and_the_registry_loses_nothing(
    plane: Plane, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """The registry refuses one write, in which a new trial or an end would have been recorded."""
    crashes: list[list[int]] = []
    record = sweeprun.SweepRun._record

    async def failing(self: Any, found: Any, changes: Any) -> Any:
        due = changes.asked if moment == "asked" else changes.verdicts
        if due and len(crashes) < 2:
            crashes.append(
                [item.number if moment == "asked" else item[0].row.number for item in due]
            )
            raise RuntimeError("the controller is killed here")
        return await record(self, found, changes)

    monkeypatch.setattr(sweeprun.SweepRun, "_record", failing)
    monkeypatch.setattr(sweeprun, "RETRY", (0.01, 30.0))
    name = await sweep(plane, trials=6, parallel=2)
    view = await ended(plane, name)
    assert len(crashes) == 2
    rows = await trials(plane, name)
    assert view["counts"]["complete"] == len(rows) == 6
    assert [(t["number"], t["params"], t["values"]) for t in study(plane, view["study"])] == [
        (row["number"], row["params"], row["values"]) for row in rows
    ]


async def test_a_grid_is_exhaustive_and_ends_by_itself(plane: Plane) -> None:
    space = {
        "kind": {"choices": ["a", "b"]},
        "x": {"low": 0.0, "high": 0.2, "step": 0.1, "when": {"kind": "a"}},
        "n": {"low": 1, "high": 2},
    }
    command = logs("loss", 0, "{n}")
    name = await sweep(plane, command, space=space, sampler="grid", trials=None)
    view = await ended(plane, name)
    assert (view["trials"], view["state"]) == (8, "FINISHED")
    points = [tuple(sorted(row["params"].items())) for row in await trials(plane, name)]
    assert len(points) == len(set(points)) == 8


async def test_failures_nan_and_silence_are_told_apart(plane: Plane) -> None:
    command = (
        f"case {{kind}} in bad) echo broken; exit 3;; nan) {logs('loss', 0, 'null')};; "
        f"mute) {logs('acc', 0, '1')};; inf) {logs('loss', 0, 'Infinity')};; *) {ONE};; esac"
    )
    space = {"x": {"choices": [0.5]}, "kind": {"choices": ["ok", "bad", "nan", "mute", "inf"]}}
    name = await sweep(plane, command, space=space, sampler="grid", trials=None)
    view = await ended(plane, name)
    assert view["counts"] | {"open": 0} == {
        "open": 0, "complete": 2, "pruned": 0, "failed": 3, "cancelled": 0, "total": 5,
    }  # fmt: skip
    rows = {row["params"]["kind"]: row for row in await trials(plane, name)}
    reasons = {kind: row["reason"] for kind, row in rows.items()}
    infinite = rows["inf"]
    assert (infinite["values"], infinite["last"], infinite["reason"]) == ([math.inf], math.inf, "")
    assert view["best"]["values"] == [0.5]
    curves = await plane.get(f"/v1/sweeps/{name}/curves")
    assert {curve["number"]: curve["points"] for curve in curves}[infinite["number"]] == []
    slices = await plane.get(f"/v1/sweeps/{name}/slices")
    assert [[point["y"] for point in one["points"]] for one in slices] == [[0.5], [0.5]]
    assert (await plane.get(f"/v1/jobs/{infinite['job']}"))["metrics"]["loss"]["value"] == math.inf
    body, _ = await asyncio.to_thread(plane.client.raw, f"/v1/sweeps/{name}/trials")
    assert b'"values":["inf"]' in body
    assert reasons["ok"] == ""
    assert "3" in reasons["bad"]
    assert reasons["nan"] == "its 'loss' is not a number (NaN)"
    assert reasons["mute"] == "never logged 'loss'; it logged acc"
    states = {t["params"]["kind"]: t["state"] for t in study(plane, view["study"])}
    assert states == {
        "ok": "COMPLETE", "inf": "COMPLETE", "bad": "FAIL", "nan": "FAIL", "mute": "FAIL",
    }  # fmt: skip


async def test_an_objective_that_nobody_logs_ends_the_sweep(plane: Plane) -> None:
    name = await sweep(plane, logs("acc", 0, "{x}"), trials=50)
    view = await ended(plane, name)
    assert view["state"] == "FAILED"
    assert "trials succeeded, and none has logged the objective" in view["reason"]
    assert view["counts"]["total"] < 10
    assert any("s1" in event["message"] for event in await plane.lines("/v1/events", limit=100))


PRUNABLE = (
    f"""for step in 0 1 2 3; do {logs("loss", "$step", "{x}")}; sleep 0.3; done; sleep {{nap}}"""
)


async def test_a_pruner_stops_what_lags_and_a_person_may_too(plane: Plane) -> None:
    name = await sweep(
        plane,
        PRUNABLE,
        space={"x": {"low": 0.0, "high": 1.0}, "nap": {"choices": [0, 60]}},
        pruner={"threshold": {"upper": 0.5}},
        enqueue=[{"x": 0.9, "nap": 60}, {"x": 0.1, "nap": 60}, {"x": 0.2, "nap": 0}],
        trials=3,
    )

    async def only_the_long_one() -> bool:
        return [row["state"] for row in await trials(plane, name)] == [
            "PRUNED",
            "RUNNING",
            "COMPLETE",
        ]

    await until(only_the_long_one)
    found = await plane.post(f"/v1/sweeps/{name}/trials/1/prune")
    assert found["state"] == "STOPPING"
    with pytest.raises(NotFound):
        await plane.post(f"/v1/sweeps/{name}/trials/9/prune")
    view = await ended(plane, name)
    assert view["counts"]["pruned"] == 2
    with pytest.raises(Conflict):
        await plane.post(f"/v1/sweeps/{name}/trials/1/prune")
    seen = study(plane, view["study"])
    assert [t["state"] for t in seen] == ["PRUNED", "PRUNED", "COMPLETE"]
    assert seen[0]["values"] == [0.9]
    assert seen[0]["steps"][0] == [0, 0.9]


async def test_pause_steer_resume_stop(plane: Plane) -> None:
    name = await sweep(plane, f"{ONE}; exec sleep 60", trials=50, parallel=1)

    async def open_trials() -> int:
        return int((await plane.get(f"/v1/sweeps/{name}"))["counts"]["open"])

    async def one() -> bool:
        return await open_trials() == 1

    async def two() -> bool:
        return await open_trials() == 2

    await until(one)
    assert (await plane.post(f"/v1/sweeps/{name}/pause"))["state"] == "PAUSED"
    await plane.post(f"/v1/sweeps/{name}/extend", {"parallel": 2, "points": [{"x": 0.25}]})
    assert await open_trials() == 1
    assert (await plane.post(f"/v1/sweeps/{name}/resume"))["state"] == "RUNNING"
    await until(two)
    assert (await trials(plane, name))[1]["params"]["x"] == 0.25
    with pytest.raises(InvalidInput, match="no parameter of the space"):
        await plane.post(f"/v1/sweeps/{name}/extend", {"points": [{"y": 1}]})
    assert (await plane.post(f"/v1/sweeps/{name}/stop"))["state"] == "STOPPING"
    view = await ended(plane, name)
    assert view["reason"].startswith("stopped by ")
    assert view["counts"]["cancelled"] == 2
    await until(lambda: not plane.controller.reconciler.live)
    assert await plane.fabric.reservations() == set()


async def test_a_time_budget_ends_in_time_and_more_time_goes_on(plane: Plane) -> None:
    name = await sweep(
        plane, f"{ONE}; exec sleep 60", trials=None, parallel=2, budget={"time": "1h"}
    )

    async def busy() -> bool:
        return all(r["state"] == "RUNNING" for r in await trials(plane, name) or [{"state": ""}])

    await until(busy)
    plane.now.offset += 3600
    plane.clock.skip(3600)
    view = await ended(plane, name)
    assert (view["state"], view["reason"]) == ("FINISHED", "its time of 1h is used up")
    assert view["counts"]["cancelled"] == view["counts"]["total"] == 2
    with pytest.raises(InvalidInput, match="trials: found 1; allowed: at least 2, which are done"):
        await plane.post(f"/v1/sweeps/{name}/extend", {"trials": 1})
    again = await plane.post(f"/v1/sweeps/{name}/extend", {"time": 7200.0})
    assert again["state"] == "RUNNING"

    async def more() -> bool:
        return bool((await plane.get(f"/v1/sweeps/{name}"))["counts"]["total"] == 4)

    await until(more)
    await plane.post(f"/v1/sweeps/{name}/stop")
    await ended(plane, name)


async def test_a_lost_trial_runs_again_with_its_point(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its job fails for the infrastructure's sake: what the sampler is told comes from the second one."""
    command = f"test -e {plane.root}/go; seen=$?; {ONE}; [ $seen = 0 ] || exec sleep 60"
    name = await sweep(plane, command, trials=2, parallel=2)

    async def running() -> bool:
        return [row["last"] is not None for row in await trials(plane, name)] == [True] * 2

    await until(running)
    before = await trials(plane, name)
    (plane.root / "go").touch()
    lost = plane.controller.reconciler.live[int(before[0]["job"][1:])]
    monkeypatch.setattr("jobs.life.endings.MAX_LOSSES", 0)
    assert lost.job.attempt is not None
    await plane.controller.reconciler.apply(
        lost, Gone(lost.job.attempt.epoch, "n1", "no contact for longer than its lease")
    )

    async def again() -> bool:
        return bool((await trials(plane, name))[0]["losses"] == 1)

    await until(again)
    row = (await trials(plane, name))[0]
    assert row["job"] != before[0]["job"]
    assert row["params"] == before[0]["params"]
    await plane.post(f"/v1/jobs/{before[1]['job']}/cancel")
    view = await ended(plane, name)
    assert (view["counts"]["complete"], view["counts"]["cancelled"]) == (1, 1)
    assert [t["state"] for t in study(plane, view["study"])] == ["COMPLETE", "FAIL"]


async def test_watchers_see_trials_as_they_come(plane: Plane) -> None:
    name = await sweep(plane, trials=2, parallel=1)
    await ended(plane, name)
    lines: list[dict[str, Any]] = []

    def read() -> None:
        with plane.client.stream("/v1/watch", topics=f"sweeps,sweep:{name}") as stream:
            for delta in stream:
                lines.append(delta)
                if delta["op"] == "ready" and not delta["topic"]:
                    return

    await asyncio.to_thread(read)
    seen = {(line["topic"], line.get("key")) for line in lines if line["op"] == "put"}
    assert seen == {("sweeps", name), *((f"sweep:{name}", key) for key in (name, "0", "1"))}


async def test_what_a_sweep_cannot_be(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as bare:
        bare.setattr("importlib.util.find_spec", lambda _: None)
        for sampler, package in (("gp", "torch"), ("cmaes", "cmaes"), ("qmc", "scipy")):
            with pytest.raises(InvalidInput, match=f"needs the package {package}"):
                await sweep(plane, sampler=sampler)
        with pytest.raises(InvalidInput, match=r"sweep\.pruner: wilcoxon needs the package scipy"):
            await sweep(plane, pruner="wilcoxon")
    with pytest.raises(InvalidInput, match="no node can run this"):
        await sweep(plane, job={"resources": {"gpu": 4}})
    with pytest.raises(NotFound):
        await plane.get("/v1/sweeps/s1")
    first = await sweep(plane, trials=1)
    await ended(plane, first)
    with pytest.raises(Conflict):
        await plane.post(f"/v1/sweeps/{first}/pause")
