"""`qd runs`, `qd compare` and `qd reproduce`, against a controller that says what docs/api.md says."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.console.fake_controller import FakeController, Reply, Request
from tests.console.sample_views import detail, job

OLD, NEW = "a" * 64, "b" * 64


def run(number: int, **over: Any) -> dict[str, Any]:
    found = {
        "id": f"j{number}.1",
        "job": f"j{number}",
        "name": "digits",
        "user": "jane",
        "state": "SUCCEEDED",
        "params": {"lr": 0.1 * number, "same": 1},
        "metrics": {"acc": 0.5},
        "tags": {},
        "data": {"train": "d@1"},
        "seed": None,
        "commit": "",
        "dirty": False,
        "snapshot": None,
        "submitted_at": "2026-01-01T00:00:00Z",
        "started_at": "2026-01-01T00:00:00Z",
        "ended_at": "2026-01-01T00:01:00Z",
    }
    return found | over


def metric(value: float) -> dict[str, Any]:
    return {"value": value, "step": 1, "at": "2026-01-01T00:00:00Z"}


def finished(number: int, **over: Any) -> dict[str, Any]:
    spec = {"command": "python train.py", "params": {"lr": 0.1 * number}, "seed": 1}
    return detail(number, "SUCCEEDED", spec=spec, snapshot=None, git=None, **over)


def test_runs_show_what_differs(qd: Any, controller: FakeController) -> None:
    asked: list[Request] = []

    def page(request: Request) -> dict[str, Any]:
        asked.append(request)
        return {"runs": [run(2), run(1)], "next": "j1", "total": 9}

    controller.on("GET /v1/runs", page)
    told = qd("runs", "--filter", "acc > 0.1", "--sort", "-acc")
    assert (asked[0].one("filter"), asked[0].one("sort")) == ("acc > 0.1", "-acc")
    assert "param.lr" in told.out and "param.same" not in told.out and "acc" in told.out
    assert "2 of 9 runs" in told.err and "--before j1" in told.err
    assert "d@1" in qd("runs", "-c", "data.train", "-c", "nothing").out
    assert [one["job"] for one in json.loads(qd("runs", "--json").out)] == ["j2", "j1"]


def test_compare(qd: Any, controller: FakeController) -> None:
    controller.on("GET /v1/jobs/j1", finished(1, metrics={"acc": metric(0.5), "f1": metric(1)}))
    controller.on("GET /v1/jobs/j2", finished(2, metrics={"acc": metric(0.6), "f1": metric(1)}))
    for number, digest in ((1, OLD), (2, NEW)):
        file = {"path": "train.py", "bytes": 9, "sha256": digest, "link": None}
        controller.on(f"GET /v1/jobs/j{number}/code", [file])
        body = f"lr = {number}\x1b[2J\nsame\n".encode()
        controller.on(f"GET /v1/jobs/j{number}/code/{digest}", Reply(body=body))
    told = qd("compare", "j1", "j2", "--code")
    assert told.code == 0
    for text in ("train.py", "-lr = 1", "+lr = 2", "param.lr", "acc", "0.5", "0.6"):
        assert text in told.out
    assert "\x1b[2J" not in told.out and "f1" not in told.out
    found = json.loads(qd("compare", "j1", "j2", "--json").out)
    assert found["metrics"] == [{"what": "acc", "values": [0.5, 0.6]}]
    assert [one["what"] for one in found["code"]] == ["train.py"]
    assert qd("compare", "j1").code == 2


@pytest.mark.parametrize(
    ("acc", "state", "code"), [(0.5, "SUCCEEDED", 0), (0.50001, "SUCCEEDED", 1), (0.5, "FAILED", 1)]
)
def test_reproduce(qd: Any, controller: FakeController, acc: float, state: str, code: int) -> None:
    sent: list[dict[str, Any]] = []

    def submit(request: Request) -> dict[str, Any]:
        sent.append(request.json)
        return {"id": "j2", "state": "QUEUED", "created": True, "reason": ""}

    controller.on("GET /v1/jobs/j1", finished(1, metrics={"acc": metric(0.5)}))
    controller.on("POST /v1/jobs", submit)
    controller.on("GET /v1/jobs/j2/wait", job(2, state, exit_code=0 if state == "SUCCEEDED" else 1))
    controller.on(
        "GET /v1/jobs/j2", finished(1, metrics={"acc": metric(acc)}) | {"id": "j2", "state": state}
    )
    told = qd("reproduce", "j1")
    assert told.code == code
    assert sent[0]["spec"]["tags"] == {"reproduces": "j1"}
    assert sent[0]["spec"]["seed"] == 1
    if code == 0:
        assert "1 of 1 metric the same to the bit" in told.out


def test_what_measures_time_is_left_out_and_a_run_that_goes_on_refused(
    qd: Any, controller: FakeController
) -> None:
    metrics = {"acc": metric(0.5), "step_time": metric(1.0)}
    controller.on("GET /v1/jobs/j1", finished(1, metrics=metrics))
    submitted = {"id": "j2", "state": "QUEUED", "created": True, "reason": ""}
    controller.on("POST /v1/jobs", submitted)
    controller.on("GET /v1/jobs/j2/wait", job(2, "SUCCEEDED", exit_code=0))
    new = finished(1, metrics={**metrics, "step_time": metric(2.0)}) | {"id": "j2"}
    controller.on("GET /v1/jobs/j2", new)
    assert qd("reproduce", "j1").code == 1
    told = qd("reproduce", "j1", "--ignore", "step_time")
    assert (told.code, "1 of 1 metric the same" in told.out) == (0, True)
    controller.on("GET /v1/jobs/j1", detail(1, "RUNNING"))
    assert qd("reproduce", "j1").code == 6
