"""What an evaluation asks of its job."""

from __future__ import annotations

import json

import pytest

from jobs.base.errors import InvalidInput
from jobs.models.evaluations import (
    FORMATS,
    METRICS,
    Evaluation,
    evaluation_name,
    evaluation_number,
)


def test_an_environment_of_its_own_has_what_is_needed_and_no_more() -> None:
    plain, explained = Evaluation(data="d"), Evaluation(data="d", explain=0)
    onnx = plain.requirements("onnx", parquet=False).decode().split()
    assert [one.split(">=")[0] for one in onnx] == ["numpy", "onnxruntime"]
    every = explained.requirements("skops", parquet=True).decode().split()
    assert {"shap", "pyarrow", "scikit-learn", "skops"} <= {one.split(">=")[0] for one in every}


def test_the_job_runs_where_it_is_told() -> None:
    wanted = Evaluation(data="d@1", target="y", groups=("sex",), cpus=2)
    own = wanted.job("digits", 3, "d@1", None)
    assert (own.requirements, own.python, own.total_cpus) == ("requirements.txt", None, 2)
    given = wanted.job("größe 'x'", 3, "d@1", "/usr/bin/python3")
    assert (given.requirements, given.python) == (None, "/usr/bin/python3")
    assert given.tags == {"evaluate": "größe 'x':3"}
    assert (own.max_restarts, own.data) == (0, {"holdout": "d@1"})
    task = json.loads(wanted.task_file("onnx", "m.onnx"))
    assert task == {"format": "onnx", "main": "m.onnx", "target": "y", "groups": ["sex"]}
    assert wanted.asked() == {"data": "d@1", "target": "y", "groups": ["sex"]}


@pytest.mark.parametrize("bad", [{"explain": 101}, {"task": "ranking"}, {"slices": [""]}, {"x": 1}])
def test_what_cannot_be_asked(bad: dict[str, object]) -> None:
    with pytest.raises(InvalidInput, match="evaluation"):
        Evaluation.from_json({"data": "d", **bad})


def test_ids() -> None:
    assert evaluation_number(evaluation_name(12)) == 12
    for text in ("", "e", "x3", "e3.1", "e" + "9" * 10, "e²"):
        with pytest.raises(InvalidInput, match="not an evaluation"):
            evaluation_number(text)


def test_the_job_measures_what_gates_know() -> None:
    from agents.node.worker.quarterdeck_serve.evaluate.metrics import LESS_IS_BETTER

    assert set(METRICS) >= LESS_IS_BETTER and set(FORMATS) == {"onnx", "skops"}
