"""What MLflow's clients send, and what hostile ones might."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from agents.node.tracking import journal
from tests.agents.node.tracking.conftest import FILES, Home

AT = 1_795_955_589_313  # unix time in ms


def metric(key: str, value: Any, step: int = 0) -> dict[str, Any]:
    return {"key": key, "value": value, "timestamp": AT, "step": step}


def test_the_first_run_is_the_jobs_own_and_others_are_named(home: Home) -> None:
    client = home.client()
    own = client.run(run_name="main", tags=[{"key": "team", "value": "vision"}])
    client.call("POST", "runs/log-parameter", run_id=own, key="lr", value="0.1")
    client.call("POST", "runs/log-metric", run_id=own, **metric("loss", 0.5, 3))
    parent = [{"key": "mlflow.parentRunId", "value": own}]
    names = []
    for _ in range(2):
        child = client.run(run_name="fold 1", tags=parent)
        client.call("POST", "runs/log-metric", run_id=child, **metric("loss", 2.0))
        client.call("POST", "runs/log-parameter", run_id=child, key="depth", value="3")
        names.append(client.call("GET", f"runs/get?run_id={child}")["run"]["info"]["run_name"])
    assert names == ["fold 1", "fold 1"]
    nameless = client.call("POST", "runs/create", experiment_id="0")["run"]
    assert nameless["info"]["run_name"] == "run-4"
    assert (
        client.call("POST", "runs/log-metric", run_id=nameless["info"]["run_id"], **metric("x", 1))
        == {}
    )
    assert home.points().pop() == ("run-4/x", 0, 1.0)
    assert home.points()[:3] == [
        ("loss", 3, 0.5),
        ("fold 1/loss", 0, 2.0),
        ("fold 1-2/loss", 0, 2.0),
    ]
    assert home.facts() == [
        ("tag", "team", "vision"),
        ("param", "lr", "0.1"),
        ("param", "fold 1/depth", "3"),
        ("param", "fold 1-2/depth", "3"),
    ]
    data = client.call("GET", f"runs/get?run_id={child}")["run"]["data"]
    assert [point["key"] for point in data["metrics"]] == ["loss"]


def test_each_rank_has_the_own_run_and_its_own_file(home: Home) -> None:
    first, second = home.client("rank-0"), home.client("rank-1")
    own = first.run()
    first.call("POST", "runs/log-batch", run_id=own, params=[{"key": "rank", "value": "0"}])
    assert second.run() == own
    batch = {"params": [{"key": "rank", "value": "1"}], "metrics": [metric("loss", 1)]}
    second.call("POST", "runs/log-batch", run_id=own, **batch)
    assert (home.points(0), home.points(1)) == ([], [("loss", 0, 1.0)])


def test_a_later_attempt_goes_on_with_the_own_run(home: Home) -> None:
    """A script that has its id from a checkpoint, and an experiment of its own."""
    client = home.client()
    number = client.call("POST", "experiments/create", name="digits")["experiment_id"]
    own = home._server.RequestHandlerClass.tracker.runs.own  # type: ignore[union-attr]
    info = client.call("GET", f"runs/get?run_id={own}")["run"]["info"]
    assert (info["run_id"], info["experiment_id"], info["status"]) == (own, number, "RUNNING")


def test_what_was_acknowledged_is_there_for_the_next_tracker(home: Home) -> None:
    client = home.client()
    number = client.call("POST", "experiments/create", name="digits")["experiment_id"]
    own = client.run()
    odd = [metric("bad", "NaN"), metric("big", "Infinity"), metric("loss", 0.25, 7)]
    client.call("POST", "runs/log-batch", run_id=own, metrics=odd)
    client.call("POST", "runs/set-tag", run_id=own, key="k", value="ü\ud800")
    client.call("POST", "runs/update", run_id=own, status="FINISHED", end_time=AT)
    before = client.call("GET", f"runs/get?run_id={own}")
    home.begin()
    client = home.client()
    assert client.call("GET", f"runs/get?run_id={own}")["run"]["info"] == before["run"]["info"]
    after = client.call("GET", f"runs/get?run_id={own}")["run"]["data"]
    assert after["metrics"] == before["run"]["data"]["metrics"]
    assert [point["value"] for point in after["metrics"]] == ["NaN", "Infinity", 0.25]
    assert client.call("GET", "experiments/get-by-name?experiment_name=digits") == {
        "experiment": client.call("GET", f"experiments/get?experiment_id={number}")["experiment"]
    }
    assert [value for _, _, value in home.points()] == [None, None, 0.25]


def test_a_request_that_is_repeated_adds_nothing_twice(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tracker is killed in the middle of a write, before it has answered; the client asks again."""
    own = home.client().run()
    batch = {"run_id": own, "metrics": [metric("loss", 1.0, step) for step in range(50)]}
    write = os.write

    def torn(file: int, data: bytes) -> int:
        return write(file, data[: len(data) // 2]) if b'"loss"' in data else write(file, data)

    monkeypatch.setattr("agents.node.tracking.journal.os.write", torn)
    assert home.client().refused("POST", "runs/log-batch", batch)[0] == 507
    monkeypatch.undo()
    assert 0 < (home.folder / "metrics-0.jsonl").read_text().count("\n") < 50
    home.begin()
    for _ in range(2):
        home.client().call("POST", "runs/log-batch", **batch)
    text = (home.folder / "metrics-0.jsonl").read_text().splitlines()
    steps = []
    for line in text:
        try:
            steps.append(json.loads(line)["s"])
        except ValueError:  # the one that was cut, which nobody reads
            continue
    assert steps == list(range(50))
    history = home.client().call("GET", f"metrics/get-history?run_id={own}&metric_key=loss")
    assert len(history["metrics"]) == 50


def test_facts_that_a_killed_tracker_did_not_pass_on_are_passed_on(home: Home) -> None:
    own = home.client().run()
    home.client().call("POST", "runs/log-parameter", run_id=own, key="lr", value="0.1")
    home.end()
    (home.folder / "metrics-0.jsonl").write_text("")
    home.begin()
    assert home.facts() == [("param", "lr", "0.1")]


def test_parameters_never_change(home: Home) -> None:
    client = home.client()
    own = client.run()
    for _ in range(2):
        client.call("POST", "runs/log-parameter", run_id=own, key="lr", value="0.1")
    status, code, words = client.refused(
        "POST", "runs/log-parameter", {"run_id": own, "key": "lr", "value": "0.2"}
    )
    assert (status, code) == (400, "INVALID_PARAMETER_VALUE")
    assert "Changing param values is not allowed" in words


def test_searches(home: Home) -> None:
    client = home.client()
    for value in (1.0, 3.0, 2.0):
        run = client.run(run_name=f"r{value:g}")
        params = [{"key": "opt", "value": "adam" if value < 3 else "sgd"}]
        client.call(
            "POST", "runs/log-batch", run_id=run, metrics=[metric("x", value)], params=params
        )

    def found(wanted: str, *order: str, **more: Any) -> list[str]:
        args = {"experiment_ids": ["0"], "filter": wanted, "order_by": list(order), **more}
        return [
            run["info"]["run_name"] for run in client.call("POST", "runs/search", **args)["runs"]
        ]

    assert found("metrics.x > 1", "metrics.x DESC") == ["r3", "r2"]
    assert found("params.opt = 'adam' and metrics.x < 2.5", "metrics.x ASC") == ["r1", "r2"]
    assert found("run_name LIKE 'r%' AND params.opt != \"adam\"") == ["r3"]
    assert found("", max_results=1, page_token="1") == ["r3"]
    for name in "ba":
        client.call("POST", "experiments/create", name=name)
    for order, wanted in ([], "abD"), (["name DESC"], "baD"):
        answer = client.call("POST", "experiments/search", order_by=order)
        assert [entry["name"][0] for entry in answer["experiments"]] == list(wanted)
    refused = client.refused("POST", "runs/search", {"filter": "'; drop table runs"})
    assert refused[:2] == (400, "INVALID_PARAMETER_VALUE")


def test_artifacts_go_to_the_work_folder(home: Home) -> None:
    client = home.client()
    own = client.run()
    root = f"0/{own}/artifacts"
    assert client.raw("PUT", f"{FILES}/{root}/dir/a%20b.txt", b"hello")[0] == 200
    assert (home.folder / "work/mlartifacts/dir/a b.txt").read_bytes() == b"hello"
    assert client.raw("GET", f"{FILES}/{root}/dir/a%20b.txt") == (200, b"hello")
    files = json.loads(client.raw("GET", f"{FILES}?path={root}/dir")[1])["files"]
    assert files == [{"path": "a b.txt", "is_dir": False, "file_size": 5}]
    assert json.loads(client.raw("GET", f"{FILES}?path={root}/none")[1]) == {"files": []}
    listed = client.call("GET", f"artifacts/list?run_id={own}&path=dir")["files"]
    assert [file["path"] for file in listed] == ["dir/a b.txt"]


def test_a_model_is_logged_registered_and_found(home: Home) -> None:
    client = home.client()
    own = client.run()
    args = {"experiment_id": "0", "name": "model", "source_run_id": own}
    info = client.call("POST", "logged-models", **args)["model"]["info"]
    client.call("POST", "runs/outputs", run_id=own, models=[{"model_id": info["model_id"]}])
    root = info["artifact_uri"].removeprefix("mlflow-artifacts:/")
    assert client.raw("PUT", f"{FILES}/{root}/MLmodel", b"flavors: {}")[0] == 200
    path = f"logged-models/{info['model_id']}"
    done = client.call("PATCH", path, status="LOGGED_MODEL_READY")["model"]["info"]["status"]
    assert done == "LOGGED_MODEL_READY"
    assert (home.folder / "work/mlartifacts/model/MLmodel").exists()
    client.call("POST", "registered-models/create", name="digits")
    assert client.refused("POST", "registered-models/create", {"name": "digits"})[1] == (
        "RESOURCE_ALREADY_EXISTS"
    )
    version = {"name": "digits", "source": f"models:/{info['model_id']}", "run_id": own}
    client.call("POST", "model-versions/create", **version)
    client.call("POST", "registered-models/alias", name="digits", alias="best", version="1")
    found = client.call("GET", "registered-models/alias?name=digits&alias=best")["model_version"]
    assert (found["version"], found["aliases"]) == ("1", ["best"])
    uri = client.call("GET", "model-versions/get-download-uri?name=digits&version=1")
    assert uri == {"artifact_uri": info["artifact_uri"]}
    missing = client.refused("GET", "registered-models/get?name=other", b"")
    assert missing[:2] == (404, "RESOURCE_DOES_NOT_EXIST")
    assert "qd model pull" in missing[2]


def test_what_it_does_not_speak_is_said_in_mlflows_words(home: Home) -> None:
    client = home.client()
    for path in ("/api/3.0/mlflow/traces", "/v1/traces", "/graphql", "/api/2.0/mlflow/none"):
        assert client.refused("POST", path, b"{}")[:2] == (404, "ENDPOINT_NOT_FOUND")
    assert client.raw("GET", "/health") == (200, b"OK")


def test_another_jobs_credential_is_refused(home: Home) -> None:
    for client in (home.client(password="other"), home.client(password="")):
        status, code, words = client.refused("POST", "runs/create", {"experiment_id": "0"})
        assert (status, code) == (401, "UNAUTHENTICATED")
        assert "one job" in words
    assert not (home.folder / "tracking.jsonl").exists()


HOSTILE = {
    "deep lists": (b"[" * 500_000, "no JSON"),
    "deep objects": (b'{"a":' * 100_000, "no JSON"),
    "no object": (b"[1]", "no JSON object"),
    "many": (b'{"run_id":"RUN","metrics":[%s]}' % b",".join([b"{}"] * 1_000_000), "1000 metrics"),
    "escape": (
        b'{"run_id":"RUN","metrics":[{"key":"a\\u001b[2J","value":1}]}',
        "Invalid metric name",
    ),
    "path": (b'{"run_id":"RUN","metrics":[{"key":"../x","value":1}]}', "Invalid metric name"),
    "text": (b'{"run_id":"RUN","metrics":[{"key":"a","value":"x"}]}', "valid double"),
    "step": (
        b'{"run_id":"RUN","metrics":[{"key":"a","value":1,"timestamp":1,"step":1e300}]}',
        "'step'",
    ),
    "no time": (b'{"run_id":"RUN","metrics":[{"key":"a","value":1}]}', "'timestamp'"),
    "shape": (b'{"run_id":"RUN","metrics":[7]}', "list of objects"),
    "long": (b'{"run_id":"RUN","params":[{"key":"a","value":"%s"}]}' % (b"x" * 7000), "7000"),
    "no run id": (b'{"metrics":[]}', "Missing value for required parameter 'run_id'"),
    "odd run id": (b'{"run_id":31}', "Invalid value 31 for parameter 'run_id' supplied"),
    "no run": (b'{"run_id":"none"}', "not found"),
}


@pytest.mark.parametrize("which", HOSTILE)
def test_hostile_batches(home: Home, which: str) -> None:
    body, words = HOSTILE[which]
    client = home.client()
    own = client.run()
    answer = client.refused("POST", "runs/log-batch", body.replace(b"RUN", own.encode()))
    assert words in answer[2]
    client.call("POST", "runs/log-metric", run_id=own, **metric("loss", 1))
    assert home.points() == [("loss", 0, 1.0)]


def test_a_body_that_is_too_large_is_not_read(home: Home) -> None:
    client = home.client()
    client.connection.putrequest("POST", "/api/2.0/mlflow/runs/log-batch")
    client.connection.putheader("Authorization", f"Basic {client.credential}")
    client.connection.putheader("Content-Length", str(1 << 40))
    client.connection.endheaders()
    assert client.connection.getresponse().status == 413


@pytest.mark.parametrize("path", ["../x", "a/../../x", "a%00b", "a\\b", "%1b[2J", "link/x"])
def test_artifacts_cannot_leave_their_folder(home: Home, path: str) -> None:
    client = home.client()
    root = f"{FILES}/0/{client.run()}/artifacts"
    client.raw("PUT", f"{root}/here", b"")
    (home.folder / "work/mlartifacts/link").symlink_to(home.folder)
    quoted = path.replace("/", "%2f").replace("\\", "%5c")
    assert client.refused("PUT", f"{root}/{quoted}", b"no")[0] == 400
    assert client.refused("GET", f"{root}/{quoted}", b"")[0] in (400, 404)
    assert sorted(entry.name for entry in home.folder.iterdir()) == ["tracking.jsonl", "work"]
    assert {entry.name for entry in (home.folder / "work/mlartifacts").iterdir()} == {
        "here",
        "link",
    }


def test_a_full_disk_is_said_in_words(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    client = home.client()
    own = client.run()

    def full(path: Path, data: bytes, *, durable: bool) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(journal, "append", full)
    args = {"run_id": own, **metric("loss", 1)}
    status, _, words = client.refused("POST", "runs/log-metric", args)
    assert (status, words) == (507, "Nothing was recorded: the disk of this node is full")
    monkeypatch.undo()
    client.call("POST", "runs/log-metric", **args)
    assert home.points() == [("loss", 0, 1.0)]
