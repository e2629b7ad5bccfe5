"""An ONNX model: its signature, a warm-up, and runs of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from .oip import DTYPES, Array, TensorSpec

_ONNX = {
    "bool": "BOOL",
    "uint8": "UINT8",
    "uint16": "UINT16",
    "uint32": "UINT32",
    "uint64": "UINT64",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "float16": "FP16",
    "float": "FP32",
    "double": "FP64",
    "string": "BYTES",
}


class Model:
    """Loads the file and runs it once, so that the first caller does not pay for it.

    Args:
        threads: that one run may use; 0: what onnxruntime thinks best.

    Raises:
        SystemExit: the file is not one that can be served, in a sentence.
    """

    platform = "onnx_onnxruntime"

    def __init__(self, path: Path, threads: int = 1) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # A thread that spins for work takes a core from the others, for microseconds of latency.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        providers = [
            name
            for name in onnxruntime.get_available_providers()
            if name in ("CUDAExecutionProvider", "CPUExecutionProvider")
        ]
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=providers)
        except Exception as error:
            raise SystemExit(f"{path} cannot be loaded: {error}") from None
        self.inputs = [_spec(item) for item in self._session.get_inputs()]
        self.outputs = [_spec(item) for item in self._session.get_outputs()]
        self.run({spec.name: _zeros(spec) for spec in self.inputs}, [self.outputs[0].name])

    def run(self, inputs: dict[str, Array], outputs: list[str]) -> list[Array]:
        """The outputs, in the order in which they are named."""
        found: list[Array] = self._session.run(outputs, inputs)
        return found


def _spec(item: Any) -> TensorSpec:
    name = str(item.type).removeprefix("tensor(").removesuffix(")")
    if name not in _ONNX:
        raise SystemExit(
            f"'{item.name}' is {item.type}, which the protocol has no word for; "
            "export the model with plain tensors (scikit-learn: zipmap=False)"
        )
    shape = tuple(n if isinstance(n, int) and n > 0 else -1 for n in item.shape)
    return TensorSpec(str(item.name), _ONNX[name], shape)


def _zeros(spec: TensorSpec) -> Array:
    shape = [1 if n < 0 else n for n in spec.shape]
    if spec.datatype == "BYTES":
        return np.full(shape, "", dtype=np.object_)
    return np.zeros(shape, dtype=DTYPES[spec.datatype])
