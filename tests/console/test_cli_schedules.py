"""`qd schedule` and `qd schedules` against a fake controller."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from jobs.base.errors import NotFound
from tests.console.fake_controller import FakeController


def schedule(state: str = "ACTIVE", **changes: Any) -> dict[str, Any]:
    view = {
        "name": "nightly", "user": "ada", "pipeline": "probe", "state": state,
        "schedule": {"catch_up": "once", "overlap": "skip"}, "told": "30 2 * * * Europe/Berlin",
        "params": {}, "next": ["2026-11-23T01:30:00.000Z"] * 5, "fired": 3,
        "firings": [{"moment": "2026-11-22T01:30:00.000Z", "state": "STARTED", "reason": "",
                     "pipeline": "p3", "at": "2026-11-22T01:30:00.100Z"}],
        "added_at": "2026-11-20T01:30:00.000Z",
    }  # fmt: skip
    return view | changes


@pytest.fixture
def files(home: Path, controller: FakeController, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(home)
    (home / "work").mkdir()
    step = '{job: {command: "x {n}", workdir: work}, params: {n: "${params.n}"}}'
    text = f"name: probe\nparams: {{n: 1}}\nsteps: {{a: {step}}}\n"
    (home / "p.yaml").write_text(text + 'schedule: {cron: "30 2 * * *", zone: Europe/Berlin}\n')
    (home / "job.yaml").write_text("name: j\ncommand: x\nworkdir: work\n")
    (home / "s.yaml").write_text(
        "name: s\njob: {command: x, workdir: work}\nspace: {x: {choices: [1]}}\nsampler: grid\n"
        "objective: {metric: loss, goal: minimize}\n"
    )
    controller.on("POST /v1/schedules", schedule())
    return home


def test_adding(qd: Any, files: Path, controller: FakeController) -> None:
    result = qd("schedule", "add", "p.yaml", "--set", "n=2", "--jitter", "5m")
    assert result.out == "nightly\n"
    assert "next: 2026-11-23" in result.err
    assert qd("schedule", "add", "p.yaml", "--every", "6h", "--name", "often").code == 0
    first, second = (request.json for request in controller.asked("POST /v1/schedules"))
    assert (first["name"], first["params"]) == ("probe", {"n": 2})
    assert first["schedule"]["cron"] == "30 2 * * *"
    assert first["schedule"]["jitter"] == 300.0
    assert second["name"] == "often"
    assert (second["schedule"]["cron"], second["schedule"]["every"]) == (None, 21600.0)


def test_jobs_and_sweeps_become_pipelines_of_one_step(
    qd: Any, files: Path, controller: FakeController
) -> None:
    assert qd("schedule", "add", "job.yaml", "--every", "1h").code == 0
    assert qd("schedule", "add", "s.yaml", "--every", "1h", "--overlap", "queue").code == 0
    job, sweep = (request.json for request in controller.asked("POST /v1/schedules"))
    assert (job["name"], sweep["name"]) == ("j", "s")
    assert job["spec"]["steps"]["run"]["job"]["command"] == "x"
    assert job["spec"]["steps"]["run"]["cache"] is False
    assert sweep["spec"]["steps"]["run"]["sweep"]["sampler"] == {"grid": {}}


def test_nothing_is_added_of_a_bad_one(qd: Any, files: Path, controller: FakeController) -> None:
    assert "there is no schedule for job.yaml" in qd("schedule", "add", "job.yaml").err
    result = qd("schedule", "add", "job.yaml", "--cron", "0 0 31 2 *")
    assert result.code == 2
    assert "schedule.cron" in result.err
    told = qd("schedule", "add", "p.yaml", "--zone", "Europe/Berln").err
    assert "did you mean Europe/Berlin" in told
    path = files / "p.yaml"
    path.write_text(path.read_text().replace("30 2", "70 2"))
    assert "p.yaml:4: schedule.cron: found '70 2 * * *'" in qd("schedule", "add", "p.yaml").err
    assert controller.asked("POST /v1/schedules") == []


def test_showing_and_steering(qd: Any, controller: FakeController) -> None:
    controller.on("GET /v1/schedules", [schedule()])
    assert "30 2 * * * Europe/Berlin" in qd("schedules").out
    assert json.loads(qd("schedules", "--json").out)[0]["fired"] == 3
    controller.on("GET /v1/schedules/nightly", schedule())
    assert qd("schedule", "show", "nightly").out.count("next ") == 5
    controller.on("POST /v1/schedules/nightly/pause", schedule("PAUSED", next=[]))
    assert qd("schedule", "pause", "nightly").out == "nightly PAUSED\n"
    controller.on("POST /v1/schedules/nightly/run", schedule())
    assert qd("schedule", "run", "nightly").out == "p3\n"
    controller.on("POST /v1/schedules/nightly/remove", NotFound("there is no schedule"))
    assert qd("schedule", "rm", "nightly").code == 3
