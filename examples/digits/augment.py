"""The same network, asked many times: each image with thousands of patterns of noise, the answers averaged.

    augment.py IN.onnx OUT.onnx [COPIES]

It answers as the network does, and takes so much longer that a rollout must stop it.
"""

from __future__ import annotations

import sys

import numpy as np
import onnx
from onnx import ModelProto, helper, numpy_helper

PIXELS, CLASSES = 64, 10
NOISE = 0.5  # standard deviation, of pixels from 0 to 16


def augmented(model: ModelProto, copies: int) -> ModelProto:
    """(batch, 64) -> (batch, copies, 64) with noise -> the network on all of them -> their mean."""
    graph = model.graph
    image, logits = graph.input[0].name, graph.output[0].name
    for node in graph.node:
        node.input[:] = ["many" if name == image else name for name in node.input]
        node.output[:] = ["each" if name == logits else name for name in node.output]
    noise = np.random.default_rng(0).normal(0, NOISE, (1, copies, PIXELS)).astype(np.float32)
    constants = {
        "noise": noise,
        "copy_axis": np.array([1], np.int64),
        "flat": np.array([-1, PIXELS], np.int64),
        "grouped": np.array([-1, copies, CLASSES], np.int64),
    }
    before = [
        helper.make_node("Unsqueeze", [image, "copy_axis"], ["one"]),
        helper.make_node("Add", ["one", "noise"], ["copies"]),
        helper.make_node("Reshape", ["copies", "flat"], ["many"]),
    ]
    after = [
        helper.make_node("Reshape", ["each", "grouped"], ["groups"]),
        helper.make_node("ReduceMean", ["groups", "copy_axis"], [logits], keepdims=0),
    ]
    nodes = [*before, *graph.node, *after]
    del graph.node[:]
    graph.node.extend(nodes)
    graph.initializer.extend(
        numpy_helper.from_array(value, name) for name, value in constants.items()
    )
    onnx.checker.check_model(model)
    return model


if __name__ == "__main__":
    source, target = sys.argv[1:3]
    copies = int(sys.argv[3]) if len(sys.argv) > 3 else 4000
    onnx.save(augmented(onnx.load(source), copies), target)
