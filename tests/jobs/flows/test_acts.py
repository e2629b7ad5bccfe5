"""Steps that the controller takes itself: what they may refer to, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jobs.base.errors import InvalidInput
from jobs.flows.spec import PipelineSpec, load_pipeline

TRAINED: dict[str, Any] = {"train": {"job": {"command": "x", "outputs": {"model": "m"}}}}
REGISTERED: dict[str, Any] = TRAINED | {
    "register": {"register": {"model": "times", "run": "${steps.train.job}"}}
}
GOOD = """
name: loop
params: {data: digits}
steps:
  check: {data-check: {data: "${params.data}", expect: expect.yaml}}
  train:
    job: {command: python train.py, outputs: {model: m.onnx}}
    data: {train: "${steps.check.data}"}
  register: {register: {model: digits, run: "${steps.train.job}", outputs: [model]}}
  gate: {gate: {model: "${steps.register.model}", file: gate.yaml}}
  approval: {approval: {model: "${steps.gate.model}"}, timeout: 7d}
  deploy:
    when: steps.approval.model != 'digits:1'
    deploy: {model: "${steps.approval.model}", canary: [20, 50], rest: 5s, log: "off",
             monitor: 1d, resources: {cpu: 0.5}}
  word: {always: true, notify: {text: "{name}: ${steps.deploy.model}", to: ops}}
"""


def test_a_file_and_those_beside_it_are_read_and_come_back_as_an_equal(tmp_path: Path) -> None:
    (tmp_path / "loop.yaml").write_text(GOOD)
    with pytest.raises(InvalidInput, match=r"loop.yaml:5: .*expect: there is no file expect.yaml"):
        load_pipeline(tmp_path / "loop.yaml")
    (tmp_path / "expect.yaml").write_text("table: {min_rows: 10}\n")
    (tmp_path / "gate.yaml").write_text("name: release\nconditions: [acc >= 0.9]\n")
    spec, _ = load_pipeline(tmp_path / "loop.yaml")
    assert PipelineSpec.from_json(spec.to_json()) == spec
    assert spec.needs["deploy"] == ("approval",)
    gate = spec.steps["gate"].gate
    assert gate is not None
    assert gate.gate().conditions == ["acc >= 0.9"]
    deploy = spec.steps["deploy"].deploy
    assert deploy is not None
    assert deploy.options()["monitor"] == {"every": 86400.0}
    assert deploy.options()["log"] == {"sample": 0.0}
    check = spec.steps["check"].base
    assert check is not None
    assert "data check" in str(check.command)


@pytest.mark.parametrize(
    ("steps", "told"),
    [
        ({"a": {"approval": {"model": "${steps.b.model}"}}}, "there is no step 'b'"),
        (REGISTERED | {"gate": {"gate": {"model": "${steps.register.modle}", "name": "g",
                                                  "conditions": ["acc > 1"]}}},
         "did you mean steps.register.model"),
        (TRAINED | {"a": {"approval": {"model": "${steps.train.model}"}}},
         "train is a job, which leaves no model"),
        (TRAINED | {"a": {"approval": {"model": "${steps.train.job}"}}}, "is no model"),
        (REGISTERED | {"a": {"job": {"command": "true"}, "data": {"d": "${steps.register.model}"}}},
         "is no data"),
        ({"a": {"gate": {"model": "m:1", "name": "g", "conditions": ["acc is 3"]}}}, "METRIC OP LIMIT"),
        ({"a": {"deploy": {"model": "m:1", "canary": [50, 20]}}}, "rising numbers"),
        (REGISTERED | {"a": {"gate": {"model": "m:1", "name": "g", "conditions": ["acc > 3"]},
                             "timeout": "1h"}}, "given for a gate, which takes no time"),
        ({"a": {"approval": {"model": "m:1"}, "matrix": {"x": [1]}}}, "given for an approval"),
    ],
)  # fmt: skip
def test_wrong_names_are_refused_with_the_nearest_one(steps: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidInput, match=told):
        PipelineSpec.from_json({"steps": steps})


def test_an_evaluation_asks_what_qd_evaluate_asks() -> None:
    steps = REGISTERED | {
        "evaluate": {"evaluate": {"model": "${steps.register.model}", "data": "${params.data}",
                                  "groups": ["sex"], "explain": 2}},
        "gate": {"gate": {"model": "${steps.evaluate.model}", "name": "g", "data": "test",
                          "conditions": ["accuracy >= production in every sex"]}},
    }  # fmt: skip
    spec = PipelineSpec.from_json({"steps": steps, "params": {"data": "test"}})
    step = spec.steps["evaluate"]
    assert (step.kind, step.is_job) == ("evaluate", False)
    act = step.evaluate
    assert act is not None
    asked = act.evaluation("test@3")
    assert asked.asked() == {"data": "test@3", "groups": ["sex"], "explain": 2}
    gate = spec.steps["gate"].gate
    assert gate is not None and gate.gate().data == "test"
