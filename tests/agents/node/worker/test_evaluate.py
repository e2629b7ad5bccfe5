"""The job of an evaluation: formats, what outputs mean, and mistakes in one sentence each."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from agents.node.staging.environment import WORKER_FOLDER
from agents.node.worker.quarterdeck_serve.evaluate import bootstrap, explaining
from agents.node.worker.quarterdeck_serve.evaluate.__main__ import main
from agents.node.worker.quarterdeck_serve.evaluate.outputs import Reader, Wanted
from tests.models import classifier

WIDTH = 4
ROWS = 120
Run = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def table() -> dict[str, list[Any]]:
    """Features, a target that the model mostly gets right, and a group."""
    generator = np.random.default_rng(3)
    features = generator.normal(size=(ROWS, WIDTH)).astype(np.float32)
    session = onnxruntime.InferenceSession(classifier(WIDTH))
    (label,) = session.run(["label"], {"x": features})
    target = np.where(generator.random(ROWS) < 0.8, label, (label + 1) % 3)
    columns = {f"f{n}": features[:, n].tolist() for n in range(WIDTH)}
    sex = np.where(features[:, 0] > 0, "f", "m").tolist()
    return {**columns, "label": [int(one) for one in target], "sex": sex}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """A run in this process: its report, or, of one that fails, {"error": its last line}."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    (tmp_path / "model/m.onnx").write_bytes(classifier(WIDTH))

    def run(data: Path, **task: Any) -> dict[str, Any]:
        asked = {"format": "onnx", "main": "m.onnx", **task}
        Path("task.json").write_text(json.dumps(asked))
        monkeypatch.setenv("QD_DATA", json.dumps({"holdout": str(data)}))
        code = main()
        said = capsys.readouterr().err.strip().splitlines()
        if code:
            assert code == 2 and len(said) == 1
            return {"error": said[0]}
        found: dict[str, Any] = json.loads(Path("report.json").read_text())
        return found

    return run


def csv_of(folder: Path, table: dict[str, list[Any]], **changes: list[Any] | None) -> Path:
    columns = {name: values for name, values in {**table, **changes}.items() if values is not None}
    rows = zip(*columns.values(), strict=True)
    lines = [",".join(columns), *(",".join(map(str, row)) for row in rows)]
    file = folder / "rows.csv"
    file.write_text("\n".join(lines) + "\n")
    return file


def test_it_measures(run: Run, tmp_path: Path, table: dict[str, list[Any]]) -> None:
    report = run(csv_of(tmp_path, table), groups=["sex"], slices=["label"])
    assert (report["task"], report["target"], report["rows"]) == ("classification", "label", ROWS)
    assert report["classes"] == ["0", "1", "2"] and report["scores"] == "probabilities"
    accuracy = report["metrics"]["accuracy"]
    assert accuracy["low"] < accuracy["value"] < accuracy["high"]
    confusion = np.array(report["confusion"])
    assert confusion.sum() == ROWS
    assert np.trace(confusion) / ROWS == pytest.approx(accuracy["value"], abs=1e-6)
    assert sum(one["rows"] for one in report["calibration"]) == ROWS
    slices = [(one["column"], one["value"]) for one in report["slices"]]
    assert sorted(slices) == [*(("label", str(n)) for n in range(3)), ("sex", "f"), ("sex", "m")]
    worst = [one["metrics"]["accuracy"]["value"] for one in report["slices"]]
    assert worst == sorted(worst)
    (fairness,) = report["fairness"]
    assert set(fairness["metrics"]) == {"accuracy_difference", "accuracy_ratio"}  # three classes
    assert report["latency"]["p50_ms"] > 0 and len(report["noise"]) == 4
    assert report["noise"][-1]["metrics"]["accuracy"] < accuracy["value"]
    text = Path("samples.json").read_text()
    assert report["samples"] == "sha256:" + hashlib.sha256(text.encode()).hexdigest()
    samples = json.loads(text)["metrics"]
    assert len(samples["accuracy"]) == bootstrap.RESAMPLES
    assert {"accuracy[sex=f]", "fairness.accuracy_difference[sex]"} <= set(samples)


def test_every_format_gives_the_same(run: Run, tmp_path: Path, table: dict[str, list[Any]]) -> None:
    first = run(csv_of(tmp_path, table), slices=["sex"])
    rows = [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    features = np.column_stack([table[f"f{n}"] for n in range(WIDTH)]).astype(np.float32)
    np.savez(tmp_path / "rows.npz", x=features, label=np.array(table["label"]))
    for name in ("rows.jsonl", "rows.npz"):
        other = run(tmp_path / name, **({"slices": ["sex"]} if name == "rows.jsonl" else {}))
        assert other["metrics"] == first["metrics"] and other["pairing"] == first["pairing"], name


def test_parquet(run: Run, tmp_path: Path, table: dict[str, list[Any]]) -> None:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pa.table(table), tmp_path / "rows.parquet")
    assert run(tmp_path / "rows.parquet")["rows"] == ROWS


@pytest.mark.parametrize(
    ("changes", "task", "sentence"),
    [
        ({"label": None}, {}, "name the column of the truth with --target; there are f0, f1"),
        ({}, {"target": "truth"}, "there is no column 'truth' for --target; there are f0"),
        ({"y": [1] * ROWS}, {}, "name the column of the truth with --target; label and y might"),
        ({"f3": None, "sex": None}, {}, "no column is named 'x', the model's input, or name its 4"),
        ({}, {"features": ["f0", "nose"]}, "--features: there is no column 'nose'"),
        (
            {"f1": ["nan"] * ROWS},
            {},
            "rows.csv: row 1 does not fit the model (120 of the first 120",
        ),
        ({"f1": ["tall"] * ROWS}, {}, "rows.csv: row 1 does not fit the model"),
        (
            {"label": ["", *range(ROWS - 1)]},
            {},
            "column 'label' has no value in 1 of 120 rows, fir",
        ),
        ({"label": [2] * ROWS}, {}, "column 'label' has one class only, 2: nothing can be told"),
        ({"label": [*range(4)] * 30}, {}, "the model has scores for 3 classes, and column 'label'"),
        ({"sex": ["f"] * ROWS}, {"groups": ["sex"]}, "column 'sex' has one group only, f"),
        ({}, {"slices": ["town"]}, "rows.csv has no column 'town'; it has f0"),
        ({"sex": [f"n{n}" for n in range(ROWS)]}, {"slices": ["sex"]}, "column 'sex' has 120 diff"),
        ({}, {"output": "logits"}, "there is no output 'logits'; there are label, score"),
        ({}, {"classes": ["a", "b"]}, "the model has scores for 3 classes, and 2 are named"),
        ({}, {"positive": "9"}, "--positive: there is no class '9'; there are 0, 1, 2"),
        ({}, {"format": "pickle"}, "a model of the format pickle cannot be evaluated; allowed: on"),
        ({}, {"task": "regression", "output": "score"}, "the model has no output with one number"),
    ],
)
def test_a_mistake_is_one_sentence(
    run: Run,
    tmp_path: Path,
    table: dict[str, list[Any]],
    changes: dict[str, Any],
    task: dict[str, Any],
    sentence: str,
) -> None:
    given = {"slices": ["sex"], **task}
    if {**table, **changes}["sex"] is None:
        given["slices"] = []
    error = run(csv_of(tmp_path, table, **changes), **given)["error"]
    assert error.startswith(sentence), error


def test_data_that_cannot_be_read(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x")
    assert (
        "a file ends in .csv, .jsonl, .ndjson, .parquet or .npz" in run(tmp_path / "a.txt")["error"]
    )
    (tmp_path / "a.csv").write_text("a,label\n1,2\n1\n")
    assert run(tmp_path / "a.csv")["error"] == "a.csv: row 2: it has 1 fields, the header has 2"
    (tmp_path / "b.csv").write_text("a,label\n")
    assert "the data have 0 rows" in run(tmp_path / "b.csv")["error"]
    np.savez(tmp_path / "c.npz", x=np.zeros((2, 3)), label=np.zeros(3))
    assert run(tmp_path / "c.npz")["error"].startswith("c.npz: its arrays do not have the same")
    (tmp_path / "d.npz").write_bytes(b"PK\x03\x04")
    assert run(tmp_path / "d.npz")["error"].startswith("d.npz cannot be read")


@pytest.mark.parametrize(
    ("outputs", "truth", "wanted", "reading"),
    [
        ({"y": np.array([[0.1], [2.5]])}, ["1", "2.25"], Wanted(), ("regression", None)),
        ({"y": np.array([0.1, 0.9])}, ["no", "yes"], Wanted(), ("classification", "probabilities")),
        ({"y": np.array([0.1, 0.9])}, ["0", "1"], Wanted(), ("classification", "probabilities")),
        ({"y": np.array([0.1, 0.9])}, ["0", "1"], Wanted("regression"), ("regression", None)),
        (
            {"y": np.array([-3.0, 4.0])},
            ["0", "1"],
            Wanted("classification"),
            ("classification", "sigmoid of logits"),
        ),
        (
            {"y": np.array([[3.0, 1], [1, 3]])},
            ["a", "b"],
            Wanted(),
            ("classification", "softmax of logits"),
        ),
        ({"y": np.array(["a", "b"], object)}, ["a", "b"], Wanted(), ("classification", None)),
    ],
)
def test_what_outputs_mean(
    outputs: dict[str, Any], truth: list[str], wanted: Wanted, reading: tuple[str, str | None]
) -> None:
    reader = Reader(outputs, "t", truth, wanted)
    assert (reader.reading.task, reader.reading.scores) == reading
    judged = reader.judged(outputs)
    if reader.reading.task == "classification":
        assert judged.predicted.tolist() == judged.truth.tolist()


def test_scikit_learn_by_skops_in_a_process_of_its_own(
    tmp_path: Path, table: dict[str, list[Any]]
) -> None:
    skops = pytest.importorskip("skops.io")
    from sklearn.linear_model import LogisticRegression

    features = np.column_stack([table[f"f{n}"] for n in range(WIDTH)])
    words = [f"class {n}" for n in table["label"]]
    (tmp_path / "model").mkdir()
    skops.dump(LogisticRegression().fit(features, words), tmp_path / "model/m.skops")
    data = csv_of(tmp_path, table, label=words)
    task = {"format": "skops", "main": "m.skops", "slices": ["sex"]}
    (tmp_path / "task.json").write_text(json.dumps(task))
    subprocess.run(
        [sys.executable, "-m", "quarterdeck_serve.evaluate"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(WORKER_FOLDER), "QD_DATA": json.dumps({"holdout": str(data)})},
        check=True,
        timeout=120,
    )
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["classes"] == ["class 0", "class 1", "class 2"]
    assert report["metrics"]["accuracy"]["value"] > 0.5


def test_shap_finds_the_feature_that_counts(
    run: Run, tmp_path: Path, table: dict[str, list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("shap")
    monkeypatch.setattr(explaining, "SAMPLE", 10)
    told = run(csv_of(tmp_path, table, sex=None), explain=2)["explanation"]
    assert told["method"] == "SHAP" and len(told["examples"]) == 2
    assert {one["name"] for one in told["features"]} == {f"f{n}" for n in range(WIDTH)}
    for example in told["examples"]:  # what SHAP promises: base and effects add up to the score
        effects = sum(one["effect"] for one in example["features"])
        assert example["base"] + effects == pytest.approx(example["score"], abs=1e-4)


def test_permutation_importance_where_there_are_too_many_features(
    run: Run, tmp_path: Path, table: dict[str, list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(explaining, "MOST", 3)
    told = run(csv_of(tmp_path, table, sex=None), explain=0)["explanation"]
    assert told["method"] == "permutation importance" and "4 features" in told["why"]
    assert all(one["importance"] > -0.1 for one in told["features"]) and told["features"]
