"""`qd deploy` and its kin against a fake controller."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from console.cli.batches import progress
from jobs.base.errors import Conflict
from tests.console.fake_controller import FakeController

FILE = "name: hello\ncommand: python server.py\nready: /ready\nresources: {cpu: 2}\n"
NO_EVIDENCE = {"old_seen": 0, "old_bad": 0, "new_seen": 0, "new_bad": 0, "e_value": 1, "limit": 40}


def rollout(phase: str, **changes: Any) -> dict[str, Any]:
    view = {
        "version": "2", "before": "1", "phase": phase, "steps": [5, 50], "step": 0, "share": 5.0,
        "since": "2026-11-29T08:00:00.000Z", "seen": 7, "least": 20, "reason": "", "edge": None,
        "errors": NO_EVIDENCE, "slow": NO_EVIDENCE,
    }  # fmt: skip
    return view | changes


def deployment(phase: str, *, settled: bool = True, **changes: Any) -> dict[str, Any]:
    version = {
        "release": 2, "version": "2", "state": "starting", "traffic": 5.0, "replicas": 2,
        "healthy": 1, "jobs": ["j4", "j5"], "requests": 12, "errors": 3, "p50": 0.0042,
        "p95": 0.02, "p99": None,
    }  # fmt: skip
    before = version | {"release": 1, "version": "1", "state": "live", "traffic": 95.0}
    return {
        "name": "hello", "target": "production", "user": "ada", "url": "http://127.0.0.1:8600",
        "live": "1", "versions": [before, version], "rollout": rollout(phase, **changes),
        "changed_at": "2026-11-29T08:00:00.000Z", "settled": settled, "problem": "",
        "keyed": False, "certificate_until": None, "scaling": None,
    }  # fmt: skip


@pytest.fixture
def file(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "service.yaml").write_text(FILE)
    return folder / "service.yaml"


def test_a_file_is_sent_with_its_folder_and_options_override_it(
    qd: Any, controller: FakeController, file: Path
) -> None:
    controller.on("POST /v1/blobs/missing", {"missing": []})
    controller.on("POST /v1/deployments", deployment("starting"))
    result = qd(
        "deploy", str(file), "--canary", "5,50%", "--rest", "2m", "--gpus", "1", "--to", "staging",
        "--replicas", "3", "--json",
    )  # fmt: skip
    assert (result.code, json.loads(result.out)["name"]) == (0, "hello")
    body = controller.asked("POST /v1/deployments")[0].json
    assert (body["target"], body["snapshot"][:7]) == ("staging", "sha256:")
    spec = body["spec"]
    assert (spec["canary"], spec["rest"], spec["replicas"]) == ([5, 50], 120, 3)
    assert spec["resources"] == {"gpu": 1, "cpu": 2}


def test_a_model_is_sent_by_its_name(qd: Any, controller: FakeController) -> None:
    controller.on("POST /v1/deployments", deployment("starting"))
    assert qd("deploy", "digits@best", "--cpus", "0.5").code == 0
    assert controller.asked("POST /v1/deployments")[0].json == {
        "model": "digits@best",
        "spec": {"resources": {"cpu": 0.5}},
        "target": "production",
    }


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["nothing.yaml"], "there is no file nothing.yaml"),
        (["digits:1", "--canary", "some"], "--canary: found 'some'"),
        (["digits:1", "--to", "moon"], "--to: found 'moon'"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_sent(
    qd: Any, controller: FakeController, words: list[str], says: str
) -> None:
    result = qd("deploy", *words)
    assert result.code == 2
    assert says in result.err


@pytest.mark.parametrize(("phase", "code"), [("done", 0), ("rolled_back", 1), ("aborted", 1)])
def test_waiting_ends_with_how_the_rollout_ended(
    qd: Any, controller: FakeController, clock: Any, phase: str, code: int
) -> None:
    controller.on("POST /v1/deployments", deployment("starting"))
    controller.on(
        "GET /v1/deployments/hello",
        deployment("stepping"),
        deployment(phase, settled=False, share=0, reason="because"),  # decided, and not yet done
        deployment(phase, share=0, reason="because"),
    )
    result = qd("deploy", "hello:2", "--wait")
    assert (result.code, result.out) == (code, f"hello {phase}\n")
    assert "2 has 5 % of the requests (step 1 of 2, 7 of 20 requests)" in result.err
    assert result.err.count("because") == 1
    assert len(controller.asked("GET /v1/deployments/hello")) == 3


def test_versions_are_listed_with_their_numbers(qd: Any, controller: FakeController) -> None:
    errors = {**NO_EVIDENCE, "old_seen": 200, "old_bad": 1, "new_seen": 10, "new_bad": 3}
    slow = {**NO_EVIDENCE, "old_seen": 200, "old_bad": 8, "new_seen": 10}
    view = deployment("paused", errors=errors, slow=slow, edge=0.0126, reason="inconclusive")
    controller.on("GET /v1/deployments", [view | {"problem": "j5 is queued: needs 1 GPU"}])
    result = qd("deployments")
    heading, first, second = result.out.splitlines()
    assert heading.split() == [
        "NAME", "TARGET", "VERSION", "STATE", "TRAFFIC", "READY", "REQUESTS", "ERRORS", "P50",
        "P99", "URL",
    ]  # fmt: skip
    assert first.split()[2:6] == ["1", "live", "95%", "1/2"]
    assert second.split()[2:11] == [
        "2", "starting", "5%", "1/2", "12", "3", "4.2ms", "-", "http://127.0.0.1:8600",
    ]  # fmt: skip
    assert "errors 30.0 % of 10 against 0.5 % of 200" in result.err
    assert "over 12.6ms 0.0 % of 10 against 4.0 % of 200; paused: inconclusive" in result.err
    assert "j5 is queued: needs 1 GPU" in result.err


def test_nothing_deployed_says_how_to_begin(qd: Any, controller: FakeController) -> None:
    controller.on("GET /v1/deployments", [])
    result = qd("deployments")
    assert (result.code, result.out) == (0, "")
    assert "qd deploy FILE" in result.err


def test_a_rollback_waits_until_the_front_does_it(
    qd: Any, controller: FakeController, clock: Any
) -> None:
    controller.on("POST /v1/deployments/hello/rollback", deployment("rolled_back", settled=False))
    controller.on(
        "GET /v1/deployments/hello",
        deployment("rolled_back", settled=False),
        deployment("rolled_back", reason="rolled back by ada"),
    )
    result = qd("rollback", "hello")
    assert (result.code, result.out) == (0, "hello production http://127.0.0.1:8600\n")
    assert "2 is rolled back: rolled back by ada" in result.err


def test_steering_names_its_verb(qd: Any, controller: FakeController) -> None:
    controller.on("POST /v1/deployments/hello/pause", Conflict("nothing to pause"))
    assert qd("rollout", "hello", "pause").code == 6
    assert qd("rollout", "hello", "dance").code == 2


@pytest.mark.parametrize(("status", "code"), [(200, 0), (404, 1)])
def test_predict_prints_the_answer(
    qd: Any, controller: FakeController, tmp_path: Path, status: int, code: int
) -> None:
    answer = {"status": status, "type": "application/json", "seconds": 0.004, "body": '{"y":\n 1}'}
    controller.on("POST /v1/deployments/hello/predict", answer)
    (tmp_path / "request.json").write_text('{"x": 1}')
    result = qd("predict", "hello", str(tmp_path / "request.json"))
    assert (result.code, result.out) == (code, '{"y": 1}\n')
    assert f"{status} in 4ms" in result.err
    asked = controller.asked("POST /v1/deployments/hello/predict")[0].json
    assert asked["body"] == '{"x": 1}'
    assert "path" not in asked


def batch_job(state: str, **metrics: float) -> dict[str, Any]:
    found = {name: {"value": value, "step": 1, "at": "2026-11-29T08:00:00.000Z"}
             for name, value in metrics.items()}  # fmt: skip
    return {"id": "j7", "state": state, "reason": "", "metrics": found, "attempts": []}


def test_files_are_predicted_by_a_job_that_is_followed(
    qd: Any, controller: FakeController, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    controller.on("POST /v1/predictions", {"id": "j7", "state": "QUEUED"})
    done = {"batch_percent": 100.0, "batch_rows": 1000.0, "batch_bad": 3.0, "batch_rows_per_s": 5e4}
    controller.on("GET /v1/jobs/j7", batch_job("SUCCEEDED", **done))
    words = ["predict", "digits:3", "--batch", "a.csv", "b.csv", "--out", "res", "--ranks", "2"]
    told = qd(*words, "--features", "p,q")
    assert told.code == 0
    assert told.out.split()[:2] == ["j7", "SUCCEEDED"]
    assert "997 rows" in told.err and "3 bad ones" in told.err
    body = controller.asked("POST /v1/predictions")[0].json
    assert body.pop("key")
    assert body == {
        "model": "digits:3",
        "files": [str(tmp_path / "a.csv"), str(tmp_path / "b.csv")],
        "out": str(tmp_path / "res"),
        "ranks": 2,
        "features": ["p", "q"],
    }
    view = json.loads(qd(*words, "--json").out)
    assert view == {
        "id": "j7",
        "state": "SUCCEEDED",
        "out": str(tmp_path / "res"),
        "rows": 997,
        "bad": 3,
    }


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--batch", "a.csv"], "--batch needs --out"),
        (["--out", "o"], "--out and its options need --batch"),
        (["--batch", "a.csv", "--out", "o", "--path", "/x"], "--path and --to do not apply"),
        (["a.json", "b.json"], "one request has one body"),
    ],
)
def test_what_is_of_a_batch_and_what_of_a_request(
    qd: Any, controller: FakeController, words: list[str], says: str
) -> None:
    told = qd("predict", "digits", *words)
    assert (told.code, says in told.err) == (2, True)


def test_the_progress_has_rate_and_rest() -> None:
    view: Any = batch_job(
        "RUNNING",
        batch_percent=41.7,
        batch_rows=120_000,
        batch_rows_per_s=51_234.5,
        batch_left_s=75,
    )
    assert progress(view) == "42 %, 120,000 rows, 51,234 rows/s, 1m15s left"
    assert progress(batch_job("QUEUED")) == "j7 is queued"  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("words", "percent"),
    [(["--shadow", "--wait"], 10), (["--shadow", "25%"], 25), (["--least", "5", "--shadow"], 10)],
)
def test_a_shadow_needs_no_number(
    qd: Any, controller: FakeController, words: list[str], percent: float
) -> None:
    controller.on("POST /v1/deployments", deployment("done"))
    controller.on("GET /v1/deployments/hello", deployment("done"))
    assert qd("deploy", "digits:4", *words, "--agree", "99").code == 0
    spec = controller.asked("POST /v1/deployments")[0].json["spec"]
    assert (spec["shadow"], spec["agree"]) == (percent, 99)
    assert qd("deploy", "digits:4", "--shadow", "many").code == 2


def test_what_a_shadow_has_shown_is_said(qd: Any, controller: FakeController) -> None:
    output = {"name": "label", "rows": 200, "same": 197, "mean": 0.03, "most": 2.0}
    shadow = {
        "percent": 10, "copies": 200, "dropped": 3, "agree": 0.985, "wanted": 99.0,
        "outputs": [output, output | {"name": "none", "rows": 0}], "old_p50": 0.001, "old_p95": 0.002,
        "new_p50": 0.001, "new_p95": 0.003,
    }  # fmt: skip
    seen = NO_EVIDENCE | {"old_seen": 200, "new_seen": 200, "new_bad": 1}
    more: dict[str, Any] = {"shadow": shadow, "errors": seen, "edge": 0.004, "slow": seen}
    controller.on("GET /v1/deployments", [deployment("shadowing", **more)])
    said = " ".join(qd("deployments").err.split())
    assert "2 is a shadow; 200 copies of 10 % of the requests compared, 3 dropped" in said
    assert "p95 3 ms against 2 ms" in said
    assert "label the same in 98.5 % of 200 rows, 0.03 apart on average, 2 at most" in said
    assert "99 % must be the same; errors 0.5 % of 200 against 0.0 % of 200" in said
    assert "over 4ms 0.5 % of 200 against" in said and "none" not in said
    controller.on("GET /v1/deployments", [deployment("rolled_back", **more)])
    assert "2 is rolled back; as a shadow: 200 copies" in " ".join(qd("deployments").err.split())
