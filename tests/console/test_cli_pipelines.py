"""`qd pipeline` and `qd pipelines` against a fake controller."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from jobs.base.errors import Conflict
from tests.console.fake_controller import CUT, FakeController, Reply

FILE = """\
name: probe
params: {epochs: 3}
steps:
  data: {job: {command: make, workdir: work, outputs: {o: o.txt}}}
  train:
    job: {command: "train {n}", workdir: work, secrets: [TOKEN]}
    params: {n: "${params.epochs}"}
    needs: [data]
  word: {notify: "mail {failed}", on_failure: true}
"""


def task(step: str, state: str = "WAITING", **changes: Any) -> dict[str, Any]:
    view = {
        "step": step, "number": 0, "matrix": {}, "kind": "job", "left": {}, "needs": [], "state": state,
        "job_state": "", "reason": "", "tries": 1, "job": "j1", "sweep": None, "taken_from": None,
        "started_at": "2026-11-23T06:00:00.000Z", "ended_at": "2026-11-23T06:00:09.000Z",
    }  # fmt: skip
    return view | changes


def pipeline(state: str = "RUNNING", **changes: Any) -> dict[str, Any]:
    view = {
        "id": "p1", "name": "probe", "user": "ada", "state": state, "reason": "",
        "params": {"epochs": 3}, "counts": {"SUCCEEDED": 1, "RUNNING": 1, "total": 3},
        "running": ["train"], "submitted_at": "2026-11-23T06:00:00.000Z", "ended_at": None,
    }  # fmt: skip
    return view | changes


def detail(*tasks: dict[str, Any], state: str = "RUNNING", **changes: Any) -> dict[str, Any]:
    return {**pipeline(state, **changes), "spec": {}, "tasks": list(tasks)}


@pytest.fixture
def file(home: Path, controller: FakeController, monkeypatch: pytest.MonkeyPatch) -> Path:
    (home / "work").mkdir()
    (home / "work" / "make.sh").write_text("true\n")
    path = home / "probe.yaml"
    path.write_text(FILE)
    monkeypatch.setenv("TOKEN", "s3cret")
    monkeypatch.chdir(home)
    controller.on("POST /v1/blobs/missing", {"missing": []})
    accepted = {"id": "p1", "state": "RUNNING", "created": True, "reason": "", "plan": []}
    controller.on("POST /v1/pipelines", accepted)
    return path


def test_a_pipeline_is_sent_with_its_code(qd: Any, file: Path, controller: FakeController) -> None:
    assert qd("pipeline", "run", "probe.yaml", "--set", "epochs=7").out == "p1\n"
    [request] = controller.asked("POST /v1/pipelines")
    body = request.json
    assert body["params"] == {"epochs": 7}
    assert body["secrets"] == {"TOKEN": "s3cret"}
    assert body["code"].keys() == {"data", "train"}
    assert body["code"]["data"] == body["code"]["train"]
    assert len(controller.asked("POST /v1/blobs/missing")) == 1  # one folder, sent once
    assert body["cache"] is True


def test_nothing_is_sent_of_a_bad_file(qd: Any, file: Path, controller: FakeController) -> None:
    file.write_text(FILE.replace("needs: [data]", "needs: [dat]"))
    result = qd("pipeline", "run", "probe.yaml")
    assert result.code == 2
    assert "probe.yaml:8: steps.train.needs[0]: there is no step 'dat'; did you mean data" in (
        result.err
    )
    file.write_text(FILE)
    assert "did you mean epochs" in qd("pipeline", "run", "probe.yaml", "--set", "epoch=7").err
    assert qd("pipeline", "run", "none.yaml").code == 2
    assert qd("pipeline", "start", "probe.yaml").code == 2
    assert controller.asked("POST /v1/pipelines") == []


def test_a_dry_run_shows_its_plan(qd: Any, file: Path, controller: FakeController) -> None:
    plan = [
        {
            "step": "data",
            "number": 0,
            "needs": [],
            "kind": "job",
            "plan": "cached",
            "told": "as p1",
        },
        {"step": "train", "number": 0, "needs": ["data"], "kind": "job", "plan": "run", "told": ""},
    ]
    told = {"id": "", "state": "RUNNING", "created": False, "reason": "1 of 2", "plan": plan}
    controller.on("POST /v1/pipelines", told)
    result = qd("pipeline", "run", "probe.yaml", "--dry-run")
    assert [line.split() for line in result.out.splitlines()] == [
        ["STEP", "KIND", "PLAN", "AFTER", "WHY"], ["data", "job", "cached", "-", "as", "p1"],
        ["train", "job", "run", "data"],
    ]  # fmt: skip
    assert "nothing was started" in result.err


@pytest.mark.parametrize(("state", "code"), [("SUCCEEDED", 0), ("FAILED", 1), ("CANCELLED", 1)])
def test_watching(qd: Any, file: Path, controller: FakeController, state: str, code: int) -> None:
    def put(key: str, value: Any) -> dict[str, Any]:
        return {"rev": 1, "op": "put", "topic": "pipeline:p1", "key": key, "value": value}

    controller.on(
        "GET /v1/watch",
        Reply.stream([put("data/0", task("data", "RUNNING", ended_at=None))], cut=True),
        CUT,
        Reply.stream([put("data/0", task("data", "SUCCEEDED")), put("p1", pipeline(state))]),
    )
    done = detail(task("data", "SUCCEEDED"), task("train", "FAILED", reason="no"), state=state)
    controller.on("GET /v1/pipelines/p1", done)
    result = qd("pipeline", "run", "probe.yaml", "--watch")
    assert result.code == code
    assert [line.split()[:2] for line in result.out.splitlines()] == [
        ["p1"], ["data", "RUNNING"], ["data", "SUCCEEDED"], ["train", "FAILED"],
    ]  # fmt: skip
    assert f"p1 {state}" in result.err


def test_waiting(qd: Any, file: Path, controller: FakeController) -> None:
    controller.on(
        "GET /v1/pipelines/p1/wait", pipeline(), pipeline("FAILED", reason="train failed")
    )
    result = qd("pipeline", "run", "probe.yaml", "--wait")
    assert (result.code, result.out) == (1, "p1\n")
    assert "p1 FAILED: train failed" in result.err


def test_showing(qd: Any, controller: FakeController) -> None:
    controller.on("GET /v1/pipelines", [pipeline()])
    assert "2/3" in qd("pipelines").out
    assert json.loads(qd("pipelines", "--json").out)[0]["id"] == "p1"
    controller.on(
        "GET /v1/pipelines/last",
        detail(
            task("data", "SUCCEEDED"),
            task("train", "CACHED", needs=["data"], matrix={"x": 1}, taken_from="p0"),
            task("train", "RUNNING", needs=["data"], matrix={"x": 2}, number=1),
            task("test", "WAITING", needs=["data", "train"]),
            task("other", "WAITING", needs=["data"]),
        ),
    )
    shown = qd("pipeline", "show", "last").out
    assert "epochs = 3" in shown
    assert "train[x=2]" in shown
    assert qd("pipeline", "graph", "last").out.splitlines() == [
        "data SUCCEEDED",
        "├─ train 1 CACHED, 1 RUNNING",
        "│  └─ test WAITING (also after data)",
        "└─ other WAITING",
    ]


def test_steering(qd: Any, controller: FakeController) -> None:
    controller.on("POST /v1/pipelines/p1/cancel", pipeline("STOPPING", reason="cancelled by ada"))
    assert qd("pipeline", "cancel", "p1").out == "p1 STOPPING cancelled by ada\n"
    controller.on("POST /v1/pipelines/p1/retry", Conflict("p1 is not over"))
    assert qd("pipeline", "retry", "p1").code == 6


def test_what_a_step_waits_for_is_said(qd: Any, controller: FakeController) -> None:
    waits = "approval of digits:3 by 1 approver: qd model approve digits:3"
    steps = (
        task("register", "SUCCEEDED", kind="register", left={"model": "digits:3"}),
        task("approval", "RUNNING", kind="approval", needs=["register"], reason=waits),
    )
    controller.on("GET /v1/pipelines/last", detail(*steps))
    shown = " ".join(qd("pipeline", "show", "last").out.split())
    assert "digits:3" in shown
    assert "waits for approval of digits:3 by 1 approver: qd model approve digits:3" in shown
    drawn = qd("pipeline", "graph", "last").out
    assert f"└─ approval (approval) RUNNING: waits for {waits}" in drawn
