"""ONNX models of a test's own."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def classifier(width: int = 8, classes: int = 3, hidden: int = 32, seed: int = 0) -> bytes:
    """Two layers: `x` of [n, width] to `label` of [n] and `score` of [n, classes]."""
    random = np.random.default_rng(seed)
    first = numpy_helper.from_array(random.normal(size=(width, hidden)).astype(np.float32), "w1")
    second = numpy_helper.from_array(random.normal(size=(hidden, classes)).astype(np.float32), "w2")
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w1"], ["h"]),
            helper.make_node("Tanh", ["h"], ["t"]),
            helper.make_node("MatMul", ["t", "w2"], ["y"]),
            helper.make_node("Softmax", ["y"], ["score"], axis=1),
            helper.make_node("ArgMax", ["score"], ["label"], axis=1, keepdims=0),
        ],
        "classifier",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", width])],
        [
            helper.make_tensor_value_info("label", TensorProto.INT64, ["n"]),
            helper.make_tensor_value_info("score", TensorProto.FLOAT, ["n", classes]),
        ],
        [first, second],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())
