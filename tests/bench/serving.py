"""What the front and the model server cost beside a bare server with the same model."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import psutil
from onnx import TensorProto, helper, numpy_helper

from agents.node.staging.environment import WORKER_FOLDER
from tests.bench.report import Row, limited, paired
from tests.fronting import Front, answers, free_port, until

_BARE = """
import json, sys, numpy as np, onnxruntime, uvicorn
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
session = onnxruntime.InferenceSession(sys.argv[1], options)
async def app(scope, receive, send):
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    if scope["path"] == "/ready":
        text = b"{}"
    else:
        tensor = json.loads(body)["inputs"][0]
        image = np.array(tensor["data"], np.float32).reshape(tensor["shape"])
        (scores,) = session.run(None, {"images": image})
        output = {"name": "logits", "datatype": "FP32", "shape": scores.shape}
        output["data"] = scores.ravel().tolist()
        text = json.dumps({"outputs": [output]}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(text)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": text})
uvicorn.run(
    app, host="127.0.0.1", port=int(sys.argv[2]), lifespan="off", access_log=False, log_level="warning"
)
"""
_PATH = "/v2/models/digits/infer"
_ONE = 400
"""Requests of the single caller in a round."""
_MANY, _EACH = 32, 40
"""Callers at once, and requests of each in a round."""


def model() -> bytes:
    """(batch, 64) -> (batch, 10): the network of examples/digits, with weights drawn at random."""
    random = np.random.default_rng(0)
    nodes, weights, name = [], [], "images"
    for n, (wide, deep) in enumerate([(64, 192), (192, 192), (192, 10)]):
        for kind, shape in (("w", (wide, deep)), ("b", (deep,))):
            values = random.normal(0, 0.1, shape).astype(np.float32)
            weights.append(numpy_helper.from_array(values, f"{kind}{n}"))
        last = n == 2
        nodes.append(
            helper.make_node("Gemm", [name, f"w{n}", f"b{n}"], ["logits" if last else f"g{n}"])
        )
        if not last:
            nodes.append(helper.make_node("Relu", [f"g{n}"], [name := f"h{n}"]))
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 64])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 10])],
        weights,
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    return bytes(made.SerializeToString())


def request() -> bytes:
    values = np.random.default_rng(1).integers(0, 17, 64).astype(float).tolist()
    tensor = {"name": "images", "datatype": "FP32", "shape": [1, 64], "data": values}
    return json.dumps({"inputs": [tensor]}).encode()


def measure(rounds: int) -> list[Row]:
    """The table's rows."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "model.onnx").write_bytes(model())
        with _servers(folder) as (bare, first, second):
            front = Front(folder)
            try:
                return _rows(front, bare, first, second, rounds)
            finally:
                front.close()


def _rows(
    front: Front, bare: int, first: psutil.Process, second: psutil.Process, rounds: int
) -> list[Row]:
    front.ready = "/v2/health/ready"
    old, new = (f"127.0.0.1:{_port(process)}" for process in (first, second))
    front.want([old, new], [], 0)
    until(lambda: front.up("d1r1") == 2, 60)
    rows = [
        paired(
            "predict, one caller, p50",
            lambda: one_caller(front.port),
            "bare uvicorn + onnxruntime",
            lambda: one_caller(bare),
            "<= 2",
            rounds,
        ),
        paired(
            f"a predict with {_MANY} callers, wall time by their number",
            lambda: many_callers(front.port),
            "bare uvicorn + onnxruntime",
            lambda: many_callers(bare),
            "report",
            rounds,
        ),
        limited(
            "memory of the front and its first replica",
            lambda: _memory(front.process.pid) + _memory(first.pid),
            "≤ 141",
            141.0,
            1,
            "MB",
        ),
    ]
    front.want([old], [new], 50)
    until(lambda: front.up("d1r1") and front.up("d1r2"))
    rows.append(
        limited(
            "split taken back → last answer of the version",
            lambda: taken_back(front, old, new),
            "≤ 1",
            1.0,
            min(rounds, 5),
        )
    )
    return rows


@contextlib.contextmanager
def _servers(folder: Path) -> Iterator[tuple[int, psutil.Process, psutil.Process]]:
    """The port of a bare server, and two of ours, all ready."""
    ports = [free_port() for _ in range(3)]
    serve = [sys.executable, "-m", "quarterdeck_serve", "--name", "digits", "model.onnx", "--port"]
    environ = {"PYTHONPATH": str(WORKER_FOLDER), "PATH": "/usr/bin:/bin"}
    commands = [
        [sys.executable, "-c", _BARE, "model.onnx", str(ports[0])],
        *([*serve, str(port)] for port in ports[1:]),
    ]
    started = [
        subprocess.Popen(command, cwd=folder, env=environ, stdout=subprocess.DEVNULL)
        for command in commands
    ]
    try:
        for port, path in zip(ports, ["/ready", *["/v2/health/ready"] * 2], strict=True):
            until(partial(answers, port, path), 60)
        yield ports[0], psutil.Process(started[1].pid), psutil.Process(started[2].pid)
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.wait()


def _port(process: psutil.Process) -> int:
    return int(process.cmdline()[-1])


def _memory(pid: int) -> float:
    """Resident megabytes of a process and what it started."""
    process = psutil.Process(pid)
    family = [process, *process.children(recursive=True)]
    return float(sum(one.memory_info().rss for one in family)) / 1e6


def one_caller(port: int) -> float:
    """The median of its requests, on one connection."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    body, took = request(), []
    for _ in range(_ONE):
        began = time.perf_counter()
        connection.request("POST", _PATH, body)
        answer = connection.getresponse()
        answer.read()
        took.append(time.perf_counter() - began)
        assert answer.status == 200
    connection.close()
    return statistics.median(took)


def many_callers(port: int) -> float:
    """Wall seconds of a request when many callers ask at once, each on a connection of its own."""
    body = request()
    head = f"POST {_PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()

    async def call() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(_EACH):
            writer.write(head + body)
            told = await reader.readuntil(b"\r\n\r\n")
            assert told.startswith(b"HTTP/1.1 200"), told
            (length,) = [
                line for line in told.lower().split(b"\r\n") if line.startswith(b"content-length")
            ]
            await reader.readexactly(int(length.partition(b":")[2]))
        writer.close()
        await writer.wait_closed()

    async def run() -> None:
        await asyncio.gather(*(call() for _ in range(_MANY)))

    began = time.perf_counter()
    asyncio.run(run())
    return (time.perf_counter() - began) / (_MANY * _EACH)


def taken_back(front: Front, old: str, new: str) -> float:
    """Seconds from taking the split back until the front has counted the last answer of the version that
    loses it: it writes its counts five times a second."""
    until(front.want([old], [new], 50))
    going = True

    def ask() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", front.port)
        while going:
            connection.request("POST", _PATH, request())
            connection.getresponse().read()
        connection.close()

    before = front.seen()["counts"].get("d1r2", {"seen": 0})["seen"]
    caller = threading.Thread(target=ask)
    caller.start()
    until(lambda: front.seen()["counts"].get("d1r2", {"seen": 0})["seen"] > before + 10)
    known = front.seen()["counts"]["d1r2"]["seen"]
    asked = last = time.monotonic()
    front.want([old], [new], 0, candidate="")
    while time.monotonic() < asked + 1.5:
        seen = front.seen()["counts"]["d1r2"]["seen"]
        if seen != known:
            known, last = seen, time.monotonic()
        time.sleep(0.01)
    going = False
    caller.join()
    return last - asked
