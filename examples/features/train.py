"""A straight line through the features, fitted by least squares and written as ONNX."""

import csv
from pathlib import Path

import numpy as np
import onnx
import quarterdeck
from onnx import TensorProto, helper, numpy_helper

with quarterdeck.data["train"].open(newline="") as file:
    rides = list(csv.DictReader(file))
x = np.array([[float(ride[f"x_{n}"]) for n in range(5)] for ride in rides], np.float32)
fare = np.array([float(ride["fare"]) for ride in rides], np.float32)

half = len(x) // 2
design = np.column_stack([x, np.ones(len(x), np.float32)])
weights, *_ = np.linalg.lstsq(design[:half], fare[:half], rcond=None)
error = float(np.abs(design[half:] @ weights - fare[half:]).mean())
quarterdeck.log(mae=error)
print(f"off by {error:.2f} on average")

graph = helper.make_graph(
    [
        helper.make_node("MatMul", ["x", "w"], ["y"]),
        helper.make_node("Add", ["y", "b"], ["fare"]),
    ],
    "fare",
    [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 5])],
    [helper.make_tensor_value_info("fare", TensorProto.FLOAT, ["n", 1])],
    [
        numpy_helper.from_array(weights[:5].reshape(5, 1).astype(np.float32), "w"),
        numpy_helper.from_array(weights[5:].astype(np.float32), "b"),
    ],
)
Path("fare.onnx").write_bytes(
    helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10
    ).SerializeToString()
)
onnx.checker.check_model("fare.onnx")
