"""`qd evaluate`, `qd evaluations`, `qd evaluation` as people and scripts see them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from console.cli.evaluationview import confusion_lines
from jobs.models.digests import digest_of
from tests.console.fake_controller import FakeController

AT = "2026-11-29T08:00:00.000Z"
DIGEST, DATA = "sha256:" + "ab" * 32, "sha256:" + "cd" * 32


def ends(value: float, low: float | None = None, high: float | None = None) -> dict[str, Any]:
    return {"value": value, "low": low, "high": high}


def report(**over: Any) -> dict[str, Any]:
    """Of two classes."""
    return {
        "task": "classification", "rows": 100, "target": "label", "output": "logits",
        "scores": "softmax of logits", "classes": ["no", "yes"], "positive": "yes", "level": 0.95,
        "metrics": {"accuracy": ends(0.9, 0.84, 0.95), "roc_auc": ends(0.97)},
        "slices": [
            {"column": "sex", "value": "f", "rows": 40, "metrics": {"accuracy": ends(0.85, 0.7, 0.9)}},
            {"column": "sex", "value": "m", "rows": 60, "metrics": {"accuracy": ends(0.93, 0.9, 1)}},
        ],
        "fairness": [
            {
                "column": "sex", "groups": {"f": 40, "m": 60},
                "metrics": {"demographic_parity_difference": ends(0.08, 0.01, 0.2)},
            }
        ],
        "confusion": [[50, 4], [6, 40]], "per_class": [],
        "calibration": [{"from": 0.9, "to": 1.0, "rows": 100, "confidence": 0.95, "accuracy": 0.9}],
        "latency": {
            "calls": 200, "p50_ms": 0.1, "p95_ms": 0.2, "p99_ms": 0.3, "rows": 100, "rows_per_s": 5e4,
        },
        "noise": [{"level": 0.1, "metrics": {"accuracy": 0.88}}],
        "explanation": {
            "method": "SHAP", "rows": 100, "unit": "mean |SHAP value|",
            "features": [{"name": f"f{n}", "importance": 1 / (n + 1)} for n in range(30)],
            "examples": [
                {
                    "row": 7, "of": "yes", "score": 0.8, "base": 0.5,
                    "features": [{"name": "f0", "value": 3.0, "effect": 0.3}],
                }
            ],
        },
        "pairing": "p", "samples": "sha256:s",
    } | over  # fmt: skip


def view(**over: Any) -> dict[str, Any]:
    """An EvaluationDetail."""
    document = {"report": report(), "version": "digits:3"}
    return {
        "id": "e3", "model": "digits:3", "digest": DIGEST, "data": "test@2", "data_digest": DATA,
        "job": "j9", "state": "DONE", "reason": "", "evidence": digest_of(document),
        "task": "classification", "rows": 100, "metrics": report()["metrics"], "user": "ann",
        "created_at": AT, "ended_at": AT, "asked": {"data": "test"}, "sound": True,
        "document": document,
    } | over  # fmt: skip


FAILED: dict[str, Any] = {
    "state": "FAILED", "reason": "there is no column 'nose'", "document": None, "evidence": None,
    "task": None, "rows": None, "metrics": {},
}  # fmt: skip


def test_it_asks_waits_and_shows(qd: Any, controller: FakeController) -> None:
    running = view(**FAILED | {"state": "RUNNING", "reason": ""})
    controller.on("POST /v1/models/digits:3/evaluate", running)
    controller.on("GET /v1/evaluations/e3", view())
    result = qd(
        "evaluate", "digits:3", "--data", "test", "--group-by", "sex", "--slices", "age,sex",
        "--explain", "1", "--target", "label",
    )  # fmt: skip
    assert result.code == 0
    sent = controller.requests[0].json
    assert sent["asked"] == {
        "data": "test", "target": "label", "groups": ["sex"], "slices": ["age", "sex"], "explain": 1,
    }  # fmt: skip
    assert len(sent["key"]) > 10
    assert "e3: j9 measures digits:3 on test@2" in result.err
    lines = result.out.splitlines()
    assert "accuracy    0.9      0.84  0.95" in lines
    assert "roc_auc    0.97         -     -" in lines
    assert "truth   no  yes" in lines and "yes      6   40" in lines
    assert lines.index(next(line for line in lines if line.startswith("sex=f"))) < lines.index(
        next(line for line in lines if line.startswith("sex=m"))
    )
    assert "fairness by sex: f (40), m (60); a yes is yes" in lines
    assert "and 10 more (--all)" in lines
    assert "row 7: score of yes 0.8, 0.5 on average" in lines
    assert "was changed" not in result.out


def test_what_failed_and_what_was_changed(qd: Any, controller: FakeController) -> None:
    controller.on("GET /v1/evaluations/e3", view(**FAILED))
    result = qd("evaluation", "e3")
    assert result.code == 1 and "reason  there is no column 'nose'" in result.out
    controller.on("GET /v1/evaluations/e3", view(sound=False))
    result = qd("evaluation", "e3")
    assert result.code == 0 and "this result was changed after it was stored" in result.out
    assert json.loads(qd("evaluation", "e3", "--json").out)["document"] == view()["document"]


def test_the_list_and_no_wait(qd: Any, controller: FakeController) -> None:
    controller.on("GET /v1/evaluations", [view(), view(id="e2", **FAILED)])
    result = qd("evaluations", "digits:3", "--data", "test")
    assert controller.requests[-1].query == {
        "model": ["digits:3"],
        "data": ["test"],
        "limit": ["200"],
    }
    assert "accuracy 0.9, roc_auc 0.97" in result.out and "no column 'nose'" in result.out
    controller.on("GET /v1/evaluations", [])
    assert "no evaluations yet" in qd("evaluations").err
    controller.on("POST /v1/models/digits:3/evaluate", view())
    result = qd("evaluate", "digits:3", "--data", "test", "--no-wait", "--key", "k")
    assert result.out == "e3\n" and controller.requests[-1].json["key"] == "k"


def test_an_evaluation_is_part_of_its_version(qd: Any, controller: FakeController) -> None:
    from tests.console.test_cli_models import detail

    controller.on("GET /v1/models/digits:3", detail(evaluations=[view(**FAILED), view(id="e2")]))
    out = qd("model", "show", "digits:3").out
    assert "e2" in out and "e3" not in out  # the newest that is done
    controller.on("GET /v1/models/digits:3", detail(evaluations=[view(**FAILED)]))
    assert "there is no column 'nose'" in qd("model", "show", "digits:3").out


@pytest.mark.parametrize("classes", [["0", "1"], ["a very long name indeed", "\x1b[31mred"]])
def test_the_confusion_is_drawn_in_columns(classes: list[str]) -> None:
    lines = confusion_lines(classes, [[120, 0], [3, 7]])
    assert len({len(line) for line in lines[1:]}) == 1
    assert "·" in lines[2] and "\x1b" not in "".join(lines)


def test_the_wire_is_json(qd: Any, controller: FakeController) -> None:
    controller.on("GET /v1/evaluations", [view()])
    assert json.loads(qd("evaluations", "--json").out)[0]["id"] == "e3"
