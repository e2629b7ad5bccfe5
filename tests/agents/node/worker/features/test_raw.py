"""Raw rows in: training, a batch and a server give a model the same numbers, to the bit."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from agents.node.staging.environment import WORKER_FOLDER
from agents.node.worker.quarterdeck_serve.app import Application, Limits
from agents.node.worker.quarterdeck_serve.features import Features
from agents.node.worker.quarterdeck_serve.features.build import build
from agents.node.worker.quarterdeck_serve.model import Model
from agents.node.worker.quarterdeck_serve.oip import Array, TensorSpec
from agents.node.worker.quarterdeck_serve.raw import RawModel
from tests.agents.node.worker.test_serve import call
from tests.features import RIDES, tables, write

INFER = "/v2/models/m/infer"
INPUTS = [
    ("at", "BYTES"),
    ("city", "BYTES"),
    ("km", "FP64"),
    ("minutes", "FP64"),
    ("price", "FP64"),
]


def echo(path: Path) -> Path:
    """A model that gives back what it gets: its answers are the features themselves."""
    kind = TensorProto.DOUBLE
    shape: list[str | int | None] = ["n", 4]
    graph = helper.make_graph(
        [
            helper.make_node("Identity", ["x"], ["features"]),
            helper.make_node("Identity", ["hour"], ["h"]),
        ],
        "echo",
        [
            helper.make_tensor_value_info("x", kind, shape),
            helper.make_tensor_value_info("hour", kind, ["n"]),
        ],
        [
            helper.make_tensor_value_info("features", kind, shape),
            helper.make_tensor_value_info("h", kind, ["n"]),
        ],
    )
    opset = [helper.make_opsetid("", 17)]
    path.write_bytes(
        helper.make_model(graph, opset_imports=opset, ir_version=10).SerializeToString()
    )
    onnx.checker.check_model(str(path))
    return path


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def raw_rows(folder: Path) -> tuple[Path, list[dict[str, Any]]]:
    """Rides as a caller sends them, the joined price among them."""
    rides, fuel = tables(folder / "data", 150)
    passing = """
import numpy as np
def transform(rows):
    return {"x": np.stack([rows["price"]] * 4, axis=1), "hour": rows["price"]}
"""
    build(Features(write(folder / "pass", passing)), rides, {"fuel": fuel}, folder / "joined")
    prices = [row["hour"] for row in read(folder / "joined" / "rides.csv")]
    rows = [row | {"price": price} for row, price in zip(read(rides), prices, strict=True)]
    path = folder / "raw.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path, rows


def predict(out: Path, *words: str | Path, unit: int = 3000) -> None:
    """A batch, as the job's process."""
    command = [sys.executable, "-m", "quarterdeck_serve.batch", "--name", "m:1", "--out", out]
    environ = os.environ | {"PYTHONPATH": str(WORKER_FOLDER), "QD_BATCH_UNIT": str(unit)}
    subprocess.run([*map(str, command), *map(str, words)], env=environ, check=True, timeout=60)


async def ask(app: Application, rows: list[dict[str, Any]]) -> tuple[Array, Array]:
    inputs = []
    for name, kind in INPUTS:
        values = [row[name] if kind == "BYTES" else float(row[name]) for row in rows]
        inputs.append({"name": name, "datatype": kind, "shape": [len(rows)], "data": values})
    status, _, body = await call(app, INFER, json.dumps({"inputs": inputs}).encode())
    assert status == 200, body
    outputs = {one["name"]: one for one in json.loads(body)["outputs"]}
    x = np.array(outputs["features"]["data"]).reshape(outputs["features"]["shape"])
    return x, np.array(outputs["h"]["data"])


async def test_training_batch_and_serving_have_the_same_bits(tmp_path: Path) -> None:
    raw, rows = raw_rows(tmp_path)
    folder = write(tmp_path / "features")
    model = echo(tmp_path / "echo.onnx")

    # What a model is trained on: by the build, and by a script that calls the transform itself.
    fuel, rides = tmp_path / "data" / "fuel.csv", tmp_path / "data" / "rides.csv"
    build(Features(folder), rides, {"fuel": fuel}, tmp_path / "built")
    built = read(tmp_path / "built" / "rides.csv")
    x = np.array([[float(row[f"x_{n}"]) for n in range(4)] for row in built])
    hour = np.array([float(row["hour"]) for row in built])
    numbers = ("km", "minutes", "price")
    columns = {
        name: [float(row[name]) if name in numbers else row[name] for row in rows]
        for name, _ in INPUTS
    }
    called = Features(folder)(columns)
    assert called["x"].tobytes() == x.tobytes()
    assert called["hour"].tobytes() == hour.tobytes()

    # A batch, whose inferences have another number of rows than the blocks.
    predict(tmp_path / "out", "--rows", "37", "--transform", folder, model, raw)
    predicted = [row for part in sorted((tmp_path / "out").glob("*.csv")) for row in read(part)]
    assert [row["ride"] for row in predicted] == [row["ride"] for row in rows]
    batch = np.array([[float(row[f"features_{n}"]) for n in range(4)] for row in predicted])
    assert batch.tobytes() == x.tobytes()
    assert np.array([float(row["h"]) for row in predicted]).tobytes() == hour.tobytes()

    # A server, asked for one row, for a few and for many.
    app = Application(RawModel(Model(model), folder), "m", "1", Limits())
    at = 0
    for size in (1, 1, 1, 2, 3, 5, 64, 73):
        answer, hours = await ask(app, rows[at : at + size])
        assert answer.tobytes() == x[at : at + size].tobytes()
        assert hours.tobytes() == hour[at : at + size].tobytes()
        at += size
    assert at == len(rows)


@pytest.fixture
def app(tmp_path: Path) -> Application:
    given = json.loads(json.dumps(RIDES))
    given["inputs"]["minutes"] = {"type": "number", "missing": True}
    given["inputs"]["city"] = {"type": "text", "missing": True}
    code = """
import numpy as np
def transform(rows):
    known = np.where(np.isnan(rows["minutes"]), -1, rows["minutes"])
    if (rows["km"] > 1e6).any():
        raise RuntimeError("too far")
    with np.errstate(all="ignore"):
        x = np.stack([known, np.log(rows["km"]), rows["city"] == "", rows["price"]], axis=1)
    return {"x": x.astype(float), "hour": known}
"""
    model = RawModel(Model(echo(tmp_path / "echo.onnx")), write(tmp_path / "f", code, given))
    return Application(model, "m", "1", Limits())


def row(**over: Any) -> bytes:
    values = {
        "at": "2026-01-01T10:00Z",
        "city": "a",
        "km": 1.0,
        "minutes": 2.0,
        "price": 3.0,
    } | over
    inputs = [
        {"name": name, "datatype": kind, "shape": [1], "data": [values[name]]}
        for name, kind in INPUTS
    ]
    return json.dumps({"inputs": inputs}).encode()


async def test_what_may_be_missing_is_null(app: Application) -> None:
    status, _, body = await call(app, INFER, row(minutes=None, city=None))
    assert status == 200
    assert json.loads(body)["outputs"][0]["data"] == [-1.0, 0.0, 1.0, 3.0]


@pytest.mark.parametrize(
    ("over", "status", "words"),
    [
        ({"km": None}, 400, "input 'km'"),
        ({"price": 1e999}, 400, "not JSON"),
        ({"at": "now"}, 400, "column 'at': 'now' is no time in ISO 8601"),
        ({"km": 0.0}, 400, "row 0: output 'x' is not finite"),
        ({"km": 2e6}, 500, "the model failed on this request"),
    ],
)
async def test_rows_without_features_are_refused(
    app: Application, over: dict[str, Any], status: int, words: str
) -> None:
    found, _, body = await call(app, INFER, row(**over))
    assert (found, words in json.loads(body)["error"]) == (status, True), body


async def test_columns_of_different_lengths(app: Application) -> None:
    document = json.loads(row())
    document["inputs"][0] |= {"shape": [2], "data": ["2026-01-01T10:00Z"] * 2}
    status, _, body = await call(app, INFER, json.dumps(document).encode())
    assert (status, json.loads(body)["error"]) == (400, "the columns have different lengths")


async def test_its_metadata_are_those_of_raw_rows(app: Application) -> None:
    _, _, body = await call(app, "/v2/models/m", method="GET")
    inputs = json.loads(body)["inputs"]
    assert inputs[0] == {"name": "at", "datatype": "BYTES", "shape": [-1]}
    assert [one["name"] for one in inputs] == [name for name, _ in INPUTS]


class Fixed:
    """A model that takes one vector of `width`, one row at a time if it is told to."""

    platform = "test"

    def __init__(self, width: int, rows: int = -1) -> None:
        self.inputs = [TensorSpec("in", "FP32", (rows, width))]
        self.outputs = [TensorSpec("out", "FP32", (rows, width))]

    def run(self, inputs: dict[str, Array], outputs: list[str]) -> list[Array]:
        assert self.inputs[0].shape[0] in (-1, len(inputs["in"]))
        return [inputs["in"]]


TWO: dict[str, Any] = {"inputs": {"a": "number"}, "outputs": {"p": "float32", "q": "float32"}}
BOTH = "def transform(rows):\n    return {'p': rows['a'], 'q': rows['a'] * 2}\n"


def test_outputs_side_by_side_make_up_the_one_input(tmp_path: Path) -> None:
    folder = write(tmp_path, BOTH, TWO)
    for rows in (-1, 1):
        model = RawModel(Fixed(2, rows), folder)
        assert model.run({"a": np.array([1.0, 2.0])}, ["out"])[0].tolist() == [[1, 2], [2, 4]]


def test_features_that_do_not_fit_the_model(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"'in' of \[-1, 3\] is made up by none of their outputs"):
        RawModel(Fixed(3), write(tmp_path, BOTH, TWO))
    texts = {**TWO, "outputs": {"in": {"type": "text", "width": 2}}}
    with pytest.raises(SystemExit, match="'in' is text, and the model's input 'in' is FP32"):
        RawModel(Fixed(2), write(tmp_path, BOTH, texts))
    with pytest.raises(SystemExit, match="look at other rows"):
        RawModel(Fixed(2), write(tmp_path, BOTH, {**TWO, "rowwise": False}))
    with pytest.raises(SystemExit, match="features: the features want numpy==1"):
        RawModel(Fixed(2), write(tmp_path, BOTH, {**TWO, "requires": ["numpy==1"]}))


def test_bad_rows_of_a_batch_are_set_aside(tmp_path: Path) -> None:
    raw, _ = raw_rows(tmp_path)
    lines = raw.read_text().splitlines()
    lines[3] = lines[3].replace("2026-06", "June")
    lines[5] = lines[5].rpartition(",")[0] + ","
    raw.write_text("\n".join(lines) + "\n")
    model, folder = echo(tmp_path / "echo.onnx"), write(tmp_path / "features")
    predict(tmp_path / "out", "--transform", folder, model, raw, unit=1 << 20)
    bad = [json.loads(x) for x in (tmp_path / "out/bad/part-000000.jsonl").read_text().splitlines()]
    assert [one["row"] for one in bad] == [2, 4]
    assert "is no time in ISO 8601" in bad[0]["reason"]
    assert bad[1]["reason"] == "'price': it is missing"
    assert len(read(tmp_path / "out/part-000000.csv")) == 148
