"""`qd monitor` and `qd feedback` against a fake controller."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.console.fake_controller import FakeController

MONITOR = "POST /v1/deployments/digits/monitor"
FEEDBACK = "POST /v1/deployments/digits/feedback"


def run(status: str, state: str = "DONE", **report: Any) -> dict[str, Any]:
    return {
        "id": 7, "service": "digits", "target": "production", "version": "3", "scheduled": False,
        "since": "2026-11-29T08:00:00.000Z", "until": "2026-11-29T09:00:00.000Z", "user": "ada",
        "requests": 900, "job": "j4", "state": state, "status": status, "reason": "",
        "drifted": [], "report": report,
    }  # fmt: skip


def feature(name: str, **more: Any) -> dict[str, Any]:
    return {
        "name": name, "family": "inputs", "kind": "number", "p": 0.5, "q": 0.9, "drift": False,
        "size": 0.02, "psi": 0.01, "statistic": 0.1, "missing": [0, 0], "new": [],
        "histogram": {"edges": [0], "before": [0.5, 0.5], "after": [0.0, 1.0]}, **more,
    }  # fmt: skip


def test_a_window_is_followed_and_its_drift_is_shown(qd: Any, controller: FakeController) -> None:
    features = [
        feature("age", drift=True, q=1e-9, size=0.61, missing=[0, 0.1]),
        feature("city", kind="category", new=[{"value": "z\x1b[2J", "share": 0.05}]),
        feature("few", p=None, q=None, size=None, psi=None, histogram=None),
    ]
    report: dict[str, Any] = {
        "features": features, "level": 1 / 30, "rows": 900, "reference_rows": 5000,
        "joint": {"accuracy": 0.61, "p": 1e-9, "rows": 400, "drift": True},
    }  # fmt: skip
    controller.on(MONITOR, run("", "RUNNING"))
    controller.on("GET /v1/monitor-runs/7", run("drift", **report))
    result = qd("monitor", "digits", "--last", "1h")
    assert result.code == 1
    assert controller.asked(MONITOR)[0].json["last"] == 3600
    assert "digits@production 3 drift" in result.out
    assert "0.61 SD" in result.out
    assert "0.0% > 10.0%" in result.out
    assert "not enough data" in result.out
    assert "\x1b" not in result.out
    assert "900 rows against 5000; a false alarm in 30 looks at most" in result.err


def test_only_a_window_without_drift_is_code_0(qd: Any, controller: FakeController) -> None:
    for status, code in (("ok", 0), ("reference", 0), ("not enough data", 1), ("", 1)):
        controller.on(MONITOR, run(status, "DONE" if status else "FAILED"))
        assert qd("monitor", "digits").code == code
    controller.on("GET /v1/monitor-runs/7", run("ok"))
    assert json.loads(qd("monitor", "digits", "--window", "7", "--json").out)["status"] == "ok"


def test_truths_are_sent_and_what_is_not_joined_is_said(
    qd: Any, controller: FakeController, tmp_path: Path
) -> None:
    file = tmp_path / "truths.jsonl"
    file.write_text('{"id": "a", "truth": 3}\n\n{"id": "b", "truth": "cat"}\n')
    interval = {"value": 0.9, "low": 0.8, "high": 0.95}
    seen = {"truths": 60, "accuracy": interval, "error": None}
    view = {
        "joined": 1, "unknown": ["b"], "unknown_count": 1, "refused": [], "missing": [],
        "versions": {"3": seen},
    }  # fmt: skip
    controller.on(FEEDBACK, view)
    result = qd("feedback", "digits", str(file), "--as", "class")
    assert result.code == 1
    assert controller.asked(FEEDBACK)[0].json == {
        "truths": {"a": 3, "b": "cat"}, "output": None, "kind": "class",
    }  # fmt: skip
    assert "1 of 2 joined" in result.out
    assert "digits 3 right in 90.0% (80.0% to 95.0%) of 60 answers with feedback" in result.out
    assert "1 are in no log, such as b" in result.err
    file.write_text('{"id": "a"}\n')
    result = qd("feedback", "digits", str(file))
    assert result.code == 2
    assert "line 1: found" in result.err
