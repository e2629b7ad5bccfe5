"""What a set of files is, and which of them hold pickles under whatever name."""

from __future__ import annotations

import pickle

import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from jobs.models.formats import Look, classify
from jobs.models.onnxfile import NotOnnx, signature

ZIP = b"PK\x03\x04"


@pytest.mark.parametrize(
    ("names", "kind", "main"),
    [
        (["model.onnx"], "onnx", "model.onnx"),
        (["a/deep/model.onnx", "model.onnx"], "onnx", "model.onnx"),
        (["config.json", "model.safetensors"], "safetensors", "model.safetensors"),
        (["MLmodel", "model.onnx"], "mlflow", "MLmodel"),
        (["predictor.py", "weights.csv"], "python", "predictor.py"),
        (["model.skops"], "skops", "model.skops"),
        (["weights.csv"], "files", "weights.csv"),
        (["a.csv", "b.csv"], "files", None),
    ],
)
def test_formats_by_name(names: list[str], kind: str, main: str | None) -> None:
    found = classify([Look(name, b"") for name in names])
    assert (found.kind, found.main, found.pickles) == (kind, main, ())


@pytest.mark.parametrize(
    "look",
    [
        *(Look("innocent.bin", pickle.dumps([1], protocol)) for protocol in (2, 3, 4, 5)),
        Look("model.pkl", b"cos\nsystem\n"),  # protocol 0 has no mark of its own
        Look("model.joblib", b"x\x9c"),
        Look("weights.pt", ZIP, ["weights/data.pkl", "weights/data/0"]),
        Look("renamed.zip", ZIP, ["archive/data.pkl"]),
        Look("pytorch_model-00001.bin", b""),
        Look("model.pt2", ZIP, ["m/models/model.json", "m/data/weights/weight_0"]),
        Look("array.npy", b"\x93NUMPY\x01\x00v\x00{'descr': '|O', 'fortran_order': False"),
    ],
)
def test_a_pickle_is_found_under_any_name(look: Look) -> None:
    found = classify([look])
    assert [path for path, _ in found.pickles] == [look.path]
    beside = classify([look, Look("model.onnx", b"")])
    assert (beside.kind, len(beside.pickles)) == ("onnx", 1)


def model() -> bytes:
    weights = numpy_helper.from_array(__import__("numpy").zeros((64, 10), "float32"), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 64]),
            helper.make_tensor_value_info("w", TensorProto.FLOAT, [64, 10]),  # as old exporters did
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 10])],
        [weights],
    )
    data: bytes = onnx.helper.make_model(graph).SerializeToString()
    return data


def read(data: bytes) -> dict[str, object]:
    return dict(signature(lambda offset, size: data[offset : offset + size], len(data)))


def test_the_signature_of_an_onnx_file() -> None:
    assert read(model()) == {
        "inputs": [{"name": "x", "dtype": "float32", "shape": ["batch", 64]}],
        "outputs": [{"name": "y", "dtype": "float32", "shape": [None, 10]}],
    }


def test_what_is_no_onnx_file_is_said_to_be_none() -> None:
    data = model()
    for bad in (
        b"",
        b"not a model at all",
        b"\xff" * 100,
        data[:100],
        data[:-1],
        b"PK\x03\x04" * 9,
    ):
        with pytest.raises(NotOnnx):
            read(bad)
