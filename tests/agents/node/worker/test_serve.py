"""The model server: the protocol's forms, its errors, its limits; once as the process that users start."""

from __future__ import annotations

import gzip
import http.client
import json
import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from agents.node.staging.environment import WORKER_FOLDER
from agents.node.worker.quarterdeck_serve.app import Application, Limits
from agents.node.worker.quarterdeck_serve.oip import Array, TensorSpec


class Doubler:
    platform = "test"

    def __init__(self) -> None:
        self.inputs = [TensorSpec("x", "FP32", (-1, 2))]
        self.outputs = [TensorSpec("y", "FP32", (-1, 2))]

    def run(self, inputs: dict[str, Array], outputs: list[str]) -> list[Array]:
        if inputs["x"].size and inputs["x"].max() > 1e6:
            raise RuntimeError(f"secret {inputs['x']}")
        return [inputs["x"] * 2]


async def call(
    app: Application, path: str, body: bytes = b"", method: str = "POST", **headers: str
) -> tuple[int, dict[str, str], bytes]:
    told: list[Any] = []
    pieces = [body[at : at + 1000] for at in range(0, len(body), 1000)] or [b""]

    async def receive() -> dict[str, Any]:
        piece = pieces.pop(0)
        return {"type": "http.request", "body": piece, "more_body": bool(pieces)}

    async def send(message: Any) -> None:
        told.append(message)

    raw = [(k.replace("_", "-").encode(), v.encode()) for k, v in headers.items()]
    await app({"type": "http", "path": path, "method": method, "headers": raw}, receive, send)
    names = {k.decode(): v.decode() for k, v in told[0]["headers"]}
    return told[0]["status"], names, told[1]["body"]


@pytest.fixture
def app() -> Application:
    return Application(Doubler(), "m", "3", Limits(body=4000))


INFER = "/v2/models/m/infer"


def tensor(**over: Any) -> dict[str, Any]:
    return {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2.5], **over}


def asked(*inputs: Any, **more: Any) -> bytes:
    return json.dumps({"inputs": list(inputs), **more}).encode()


async def test_json_in_and_out(app: Application) -> None:
    for path in (INFER, "/v2/models/m/versions/3/infer"):
        status, _, body = await call(app, path, asked(tensor(), id="r1"))
        answer = json.loads(body)
        assert (status, answer["id"], answer["model_version"]) == (200, "r1", "3")
        y = {"name": "y", "datatype": "FP32", "shape": [1, 2], "data": [2.0, 5.0]}
        assert answer["outputs"] == [y]


async def test_binary_in_and_out(app: Application) -> None:
    item = tensor(parameters={"binary_data_size": 8})
    del item["data"]
    head = asked(item, parameters={"binary_data_output": True})
    body = head + struct.pack("<2f", 3, 4)
    status, headers, answer = await call(
        app, INFER, body, inference_header_content_length=str(len(head))
    )
    assert status == 200
    size = int(headers["inference-header-content-length"])
    assert struct.unpack("<2f", answer[size:]) == (6, 8)
    told = json.loads(answer[:size])["outputs"][0]
    assert told["parameters"] == {"binary_data_size": 8}


async def test_compressed(app: Application) -> None:
    packed = gzip.compress(asked(tensor()))
    assert (await call(app, INFER, packed, content_encoding="gzip"))[0] == 200
    assert (await call(app, INFER, packed[:-9], content_encoding="gzip"))[0] == 400
    bomb = gzip.compress(b" " * 10_000_000)
    assert (await call(app, INFER, bomb, content_encoding="gzip"))[0] == 413


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "not JSON"),
        (b"[" * 3000, "not JSON"),
        (b"{}", "no list 'inputs'"),
        (asked(), "input 'x' is missing"),
        (asked(tensor(name="z")), "no input 'z'"),
        (asked(tensor(), tensor()), "comes twice"),
        (asked(tensor(datatype="INT64")), "FP32 is wanted"),
        (asked(tensor(shape=[1, 3])), "shape [1, 3] was sent, [-1, 2] is wanted"),
        (asked(tensor(shape=[-1, 2])), "whole numbers"),
        (asked(tensor(data=[1])), "2 values of FP32"),
        (asked(tensor(data=["a", "b"])), "not all FP32"),
        (asked(tensor(data=[1, float("nan")])), "NaN is not JSON"),
        (asked(tensor(data=[1, 1e39])), "not finite"),
        (asked(tensor(parameters={"binary_data_size": 8})), "8 bytes of data are missing"),
        (asked(tensor(), outputs=[{"name": "q"}]), "no output 'q'"),
        (asked(tensor(data=[1e7, 1])), "the model failed on this request"),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
async def test_what_is_wrong_is_said_in_the_protocols_form(
    app: Application, body: bytes, words: str
) -> None:
    status, _, answer = await call(app, INFER, body)
    error = json.loads(answer)["error"]
    assert words in error
    assert "secret" not in error
    assert status == (500 if "failed" in words else 400)
    assert (await call(app, INFER, asked(tensor())))[0] == 200  # and it serves on


async def test_routes_and_limits(app: Application) -> None:
    assert (await call(app, INFER, b" " * 5000))[0] == 413
    assert (await call(app, INFER, method="GET"))[0] == 405
    assert (await call(app, "/v2/models/other", method="GET"))[0] == 404
    assert (await call(app, "/v2/models/m/versions/4/infer", asked(tensor())))[0] == 404
    assert (await call(app, "/v2/health/ready", method="GET"))[0] == 200
    app.draining = True
    assert (await call(app, "/v2/health/ready", method="GET"))[0] == 503
    assert (await call(app, INFER, asked(tensor())))[0] == 200
    full = Application(Doubler(), "m", "3", Limits(running=0))
    status, headers, _ = await call(full, INFER, asked(tensor()))
    assert (status, headers["retry-after"]) == (503, "1")
    text = (await call(app, "/metrics", method="GET"))[2].decode()
    assert 'qd_requests_total{model="m",version="3",code="200"} 1' in text
    assert 'qd_requests_total{model="m",version="3",code="413"} 1' in text


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    weights = helper.make_tensor("w", TensorProto.FLOAT, [2, 2], [1, 0, 0, 1])
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2])
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    graph = helper.make_graph([node], "g", [x], [y], [weights])
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), tmp_path / "m.onnx")
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environ = os.environ | {
        "PYTHONPATH": str(WORKER_FOLDER),
        "HOST": "127.0.0.1",
        "PORT": str(port),
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "quarterdeck_serve", "--name", "m", "m.onnx"],
        env=environ,
        cwd=tmp_path,
    )
    try:
        yield process, port
    finally:
        process.kill()
        process.wait()


def test_as_a_process_it_warms_up_answers_and_drains(
    server: tuple[subprocess.Popen[bytes], int],
) -> None:
    process, port = server
    deadline = time.monotonic() + 60
    while True:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            connection.request("GET", "/v2/models/m")
            break
        except OSError:
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.05)
    with closing(connection):
        told = json.loads(connection.getresponse().read())
        assert told["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}]
        connection.request("POST", INFER, asked(tensor()))
        answer = json.loads(connection.getresponse().read())
        assert np.allclose(answer["outputs"][0]["data"], [1, 2.5])
        process.terminate()
        connection.request("POST", INFER, asked(tensor()))
        assert connection.getresponse().read()
    assert process.wait(20) == 0
