"""`qd sweep` and its kin against a fake controller."""

from __future__ import annotations

import csv
import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from jobs.base.errors import Conflict
from jobs.wire.sweepviews import SweepView, TrialView
from tests.console.fake_controller import CUT, FakeController, Reply

SWEEP = """
name: probe
job: {command: "python train.py --lr {lr}", workdir: work}
space: {lr: {low: 0.001, high: 0.1, log: true}, kind: {choices: [a, null]}}
objective: {metric: acc, goal: maximize}
trials: 4
"""


def trial(number: int, state: str = "COMPLETE", **changes: Any) -> TrialView:
    view = {
        "number": number,
        "state": state,
        "params": {"lr": 0.01, "kind": None},
        "values": [0.5 + number / 10] if state == "COMPLETE" else None,
        "job": f"j{number + 1}",
        "job_state": "SUCCEEDED",
        "reason": "",
        "last": 0.5,
        "step": 3,
        "losses": 0,
        "gpus": [],
        "nodes": ["n1"],
        "asked_at": "2026-11-23T06:00:00.000Z",
        "started_at": "2026-11-23T06:00:00.000Z",
        "ended_at": "2026-11-23T06:00:09.000Z",
        "gpu_hours": 0.0,
    }
    return view | changes  # type: ignore[return-value]


def sweep(state: str = "RUNNING", **changes: Any) -> SweepView:
    view = {
        "id": "s1",
        "name": "probe",
        "user": "ada",
        "state": state,
        "reason": "all 2 trials are done" if state == "FINISHED" else "",
        "objectives": [{"metric": "acc", "goal": "maximize"}],
        "sampler": "tpe",
        "pruner": "none",
        "trials": 4,
        "parallel": 1,
        "counts": {
            "open": 1, "complete": 1, "pruned": 0, "failed": 0, "cancelled": 0, "total": 2,
        },
        "best": {"number": 1, "values": [0.6], "params": {"lr": 0.01, "kind": None}, "job": "j2"},
        "time_budget": None,
        "gpu_hours_budget": None,
        "gpu_hours": 0.0,
        "submitted_at": "2026-11-23T06:00:00.000Z",
        "ended_at": None,
    }  # fmt: skip
    return view | changes  # type: ignore[return-value]


def detail() -> dict[str, Any]:
    spec: dict[str, Any] = {"space": {"lr": {}, "kind": {}}}
    return {
        **sweep(),
        "spec": spec,
        "snapshot": None,
        "study": "s1-probe",
        "front": [sweep()["best"]],
    }


@pytest.fixture
def file(home: Path, monkeypatch: pytest.MonkeyPatch, controller: FakeController) -> Path:
    (home / "work").mkdir()
    (home / "work" / "train.py").write_text("print('hi')\n")
    path = home / "sweep.yaml"
    path.write_text(SWEEP)
    monkeypatch.chdir(home)
    controller.on("POST /v1/blobs/missing", lambda r: Reply.of({"missing": r.json["digests"]}))
    controller.on("POST /v1/blobs", {"stored": 2})
    accepted = {"id": "s1", "state": "RUNNING", "created": True, "reason": ""}
    controller.on("POST /v1/sweeps", accepted)
    return path


def test_a_sweep_is_sent_with_its_code(qd: Any, file: Path, controller: FakeController) -> None:
    assert qd("sweep", "sweep.yaml").out == "s1\n"
    [request] = controller.asked("POST /v1/sweeps")
    assert request.json["snapshot"].startswith("sha256:")
    assert request.json["spec"]["job"]["command"] == "python train.py --lr {lr}"
    assert request.json["spec"]["trials"] == 4
    assert len(request.json["key"]) == 36


def test_a_dry_run_sends_no_code(qd: Any, file: Path, controller: FakeController) -> None:
    told = {"id": "", "state": "RUNNING", "created": False, "reason": "4 trials, 1 at a time"}
    controller.on("POST /v1/sweeps", told)
    result = qd("sweep", "sweep.yaml", "--dry-run")
    assert result.out == ""
    assert "well-formed" in result.err
    assert "4 trials" in result.err
    assert not controller.asked("POST /v1/blobs")


def test_a_bad_file_is_refused_here(qd: Any, file: Path, controller: FakeController) -> None:
    file.write_text(SWEEP.replace("high: 0.1", "high: 0.0001"))
    result = qd("sweep", "sweep.yaml")
    assert result.code == 2
    assert "sweep.yaml:4: space.lr.high: found 0.0001; allowed: at least low" in result.err
    assert not controller.requests


@pytest.mark.parametrize(("state", "code"), [("FINISHED", 0), ("FAILED", 1)])
def test_watch_tells_each_trial_once_and_lives_through_a_restart(
    qd: Any, file: Path, controller: FakeController, clock: Any, state: str, code: int
) -> None:
    def put(key: str, value: Any) -> dict[str, Any]:
        return {"rev": 1, "op": "put", "topic": "sweep:s1", "key": key, "value": value}

    first = [put("0", trial(0)), put("1", trial(1, "RUNNING")), put("s1", sweep())]
    second = [put("0", trial(0)), put("1", trial(1, "FAILED", reason="rank 0 exited with 1"))]
    controller.on(
        "GET /v1/watch",
        Reply.stream(first, cut=True),
        CUT,
        Reply.stream([*second, put("s1", sweep(state))]),
    )
    controller.on("GET /v1/sweeps/s1/trials", [trial(0), trial(1, "FAILED"), trial(2, "PRUNED")])
    result = qd("sweep", "sweep.yaml", "--watch")
    assert result.code == code
    assert [line.split()[:3] for line in result.out.splitlines()] == [
        ["s1"],
        ["trial", "0", "COMPLETE"],
        ["trial", "1", "FAILED"],
        ["trial", "2", "PRUNED"],
    ]
    assert "lr=0.01 kind=null" in result.out
    assert "connected again" in result.err
    assert "best: trial 1, acc = 0.6" in result.err


def test_lists(qd: Any, controller: FakeController) -> None:
    controller.on("GET /v1/sweeps", [sweep()])
    controller.on("GET /v1/sweeps/s1/trials", [trial(0), trial(1, "RUNNING", ended_at=None)])
    assert "1/4" in qd("sweeps").out
    assert json.loads(qd("sweeps", "--json").out)[0]["id"] == "s1"
    lines = qd("trials", "s1").out.splitlines()
    assert lines[0].split() == [
        "TRIAL",
        "STATE",
        "VALUE",
        "STEP",
        "lr",
        "kind",
        "JOB",
        "RAN",
        "REASON",
    ]
    assert lines[1].split() == ["0", "COMPLETE", "0.5", "3", "0.01", "null", "j1", "9.0s"]
    assert json.loads(qd("trials", "s1", "--json").out)[1]["state"] == "RUNNING"


def test_best_says_what_mattered(qd: Any, controller: FakeController) -> None:
    controller.on("GET /v1/sweeps/s1", detail())
    controller.on("GET /v1/sweeps/s1/importance", {"lr": 0.9, "kind": 0.1})
    out = qd("best", "s1").out
    assert "trial 1 (j2): acc = 0.6" in out
    assert "importance: lr 90%, kind 10%" in out
    assert json.loads(qd("best", "s1", "--json").out)["importance"] == {"lr": 0.9, "kind": 0.1}


@pytest.mark.parametrize("verb", ["stop", "pause", "resume"])
def test_steering(qd: Any, controller: FakeController, verb: str) -> None:
    controller.on(f"POST /v1/sweeps/s1/{verb}", sweep("STOPPING", reason="stopped by ada"))
    assert qd(f"sweep-{verb}", "s1").out == "s1 STOPPING stopped by ada\n"
    controller.on(f"POST /v1/sweeps/s1/{verb}", Conflict("s1 is over"))
    assert qd(f"sweep-{verb}", "s1").code == 6


def test_extend_and_prune(qd: Any, controller: FakeController) -> None:
    controller.on("POST /v1/sweeps/s1/extend", sweep())
    words = ["--trials", "80", "--time", "2h", "--point", '{"lr": 0.02}']
    assert qd("sweep-extend", "s1", *words).code == 0
    [request] = controller.asked("POST /v1/sweeps/s1/extend")
    assert request.json["trials"] == 80
    assert request.json["time"] == 7200
    assert request.json["points"] == [{"lr": 0.02}]
    assert qd("sweep-extend", "s1").code == 2
    assert "is not a point" in qd("sweep-extend", "s1", "--point", "lr=1").err
    controller.on("POST /v1/sweeps/s1/trials/3/prune", trial(3, "STOPPING"))
    assert qd("trial-prune", "s1", "3").out == "trial 3 STOPPING\n"


def test_export(qd: Any, controller: FakeController) -> None:
    controller.on("GET /v1/sweeps/s1", detail())
    controller.on("GET /v1/sweeps/s1/trials", [trial(0), trial(1, "PRUNED")])
    rows = list(csv.DictReader(io.StringIO(qd("export", "sweep", "s1").out)))
    assert [(row["number"], row["value.acc"], row["param.lr"]) for row in rows] == [
        ("0", "0.5", "0.01"),
        ("1", "", "0.01"),
    ]
    document = json.loads(qd("export", "sweep", "s1", "--format", "json").out)
    assert document["sweep"]["study"] == "s1-probe"
    assert len(document["trials"]) == 2
    assert qd("export", "models", "s1").code == 2
    assert qd("export", "sweep", "s1", "--format", "xml").code == 2


def test_export_to_a_file(qd: Any, controller: FakeController, tmp_path: Path) -> None:
    controller.on("GET /v1/sweeps/s1", detail())
    bounded: dict[str, Any] = {
        "feasible": False,
        "constraints": {"ms <= 5": 1.5},
        "origin": "copied",
        "parent": 0,
    }
    controller.on("GET /v1/sweeps/s1/trials", [trial(0), trial(1, **bounded)])
    place = tmp_path / "trials.csv"
    assert qd("export", "sweep", "s1", "-o", str(place)).out == ""
    rows = list(csv.DictReader(io.StringIO(place.read_text())))
    assert [(row["origin"], row["parent"], row["feasible"]) for row in rows] == [
        ("", "", ""),
        ("copied", "0", "False"),
    ]
    nowhere = qd("export", "sweep", "s1", "-o", str(tmp_path / "no" / "trials.csv"))
    assert (nowhere.code, "cannot write" in nowhere.err) == (2, True)


def test_parquet_needs_a_package_and_says_which(
    qd: Any, controller: FakeController, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    controller.on("GET /v1/sweeps/s1", detail())
    controller.on("GET /v1/sweeps/s1/trials", [trial(0)])
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    place = tmp_path / "trials.parquet"
    refused = qd("export", "sweep", "s1", "--format", "parquet", "-o", str(place))
    assert refused.code == 2
    assert "pip install 'quarterdeck[parquet]'" in refused.err
    assert not place.exists()


def test_parquet_has_the_same_columns(qd: Any, controller: FakeController, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    mixed = {"params": {"lr": 1, "kind": "a"}}
    controller.on("GET /v1/sweeps/s1", detail())
    controller.on("GET /v1/sweeps/s1/trials", [trial(0), trial(1, "PRUNED", **mixed)])
    place = tmp_path / "trials.parquet"
    assert qd("export", "sweep", "s1", "--format", "parquet", "-o", str(place)).code == 0
    table = parquet.read_table(place).to_pydict()
    assert table["number"] == [0, 1]
    assert table["value.acc"] == [0.5, None]
    assert table["param.lr"] == [0.01, 1.0]
    assert table["param.kind"] == [None, "a"]


def test_curves_are_small_lines_on_one_scale(qd: Any, controller: FakeController) -> None:
    curves = [
        {"number": 0, "state": "COMPLETE", "points": [[0, 0.0], [1, 1.0]]},
        {"number": 1, "state": "QUEUED", "points": []},
    ]
    controller.on("GET /v1/sweeps/s1/curves", curves)
    lines = qd("trials", "s1", "--curves").out.splitlines()
    assert lines[1].split() == ["0", "COMPLETE", "▁█", "2", "0", "1"]
    assert lines[2].split() == ["1", "QUEUED", "0", "-", "-"]
    assert json.loads(qd("trials", "s1", "--curves", "--json").out) == curves


def test_trials_are_pinned_and_run_again(qd: Any, controller: FakeController) -> None:
    controller.on("POST /v1/sweeps/s1/trials/3/pin", trial(3, "RUNNING", pinned=True))
    controller.on("POST /v1/sweeps/s1/trials/3/unpin", trial(3, "RUNNING", pinned=False))
    controller.on("POST /v1/sweeps/s1/trials/3/rerun", sweep())
    assert "its pruner leaves it alone" in qd("trial-pin", "s1", "3").out
    assert "not pinned any more" in qd("trial-pin", "s1", "3", "--off").out
    assert qd("trial-rerun", "s1", "3").out.strip() == "s1 RUNNING"


def test_a_population_is_told_with_its_lineage(qd: Any, controller: FakeController) -> None:
    rows = [
        trial(0, member=0, generation=0, parent=None, origin="enqueued"),
        trial(1, member=1, generation=0, parent=None, origin="drawn"),
        trial(2, member=1, generation=1, parent=0, origin="copied"),
    ]
    front = [{"number": 2, "values": [0.7], "params": {"lr": 0.01}, "job": "j3"}]
    controller.on("GET /v1/sweeps/s1", detail() | {"sampler": "pbt", "front": front})
    controller.on("GET /v1/sweeps/s1/importance", {})
    controller.on("GET /v1/sweeps/s1/trials", rows)
    lines = qd("trials", "s1").out.splitlines()
    assert lines[0].split()[:4] == ["TRIAL", "MEMBER", "TURN", "FROM"]
    assert [line.split()[:4] for line in lines[1:]] == [
        ["0", "0", "0", "-"],
        ["1", "1", "0", "-"],
        ["2", "1", "1", "0"],
    ]
    told = qd("best", "s1").out
    assert "lineage:\n  trial 0 (member 0, enqueued): 0.5" in told
    assert "\n  trial 2 (member 1, copied): 0.7" in told
    assert "trial 1 " not in told


def test_a_turn_that_ran_again_has_the_lineage_of_the_one_before(
    qd: Any, controller: FakeController
) -> None:
    rows = [
        trial(0, member=0, generation=0, parent=None, origin="drawn"),
        trial(1, member=0, generation=1, parent=0, origin="continued"),
        trial(2, member=0, generation=1, parent=1, origin="rerun"),
        trial(3, member=0, generation=1, parent=2, origin="rerun"),
        trial(4, member=0, generation=2, parent=3, origin="continued"),
    ]
    front = [{"number": 4, "values": [0.9], "params": {"lr": 0.01}, "job": "j5"}]
    controller.on("GET /v1/sweeps/s1", detail() | {"sampler": "pbt", "front": front})
    controller.on("GET /v1/sweeps/s1/importance", {})
    controller.on("GET /v1/sweeps/s1/trials", rows)
    lineage = qd("best", "s1").out.partition("lineage:\n")[2]
    assert [line.split()[1] for line in lineage.splitlines()] == ["0", "3", "4"]


def test_remarks_say_what_is_broken_pinned_or_run_again(
    qd: Any, controller: FakeController
) -> None:
    remarkable: dict[str, Any] = {
        "constraints": {"ms <= 5": 1.5, "mb <= 9": -1},
        "feasible": False,
        "pinned": True,
    }
    again: dict[str, Any] = {"origin": "rerun", "parent": 0}
    controller.on("GET /v1/sweeps/s1/trials", [trial(0, **remarkable), trial(1, **again)])
    out = qd("trials", "s1").out
    assert "breaks ms <= 5, by 1.5; pinned" in out
    assert "mb <= 9" not in out
    assert "runs trial 0 again" in out
