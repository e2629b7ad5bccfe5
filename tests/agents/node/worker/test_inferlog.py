"""The inference log: what is written, what is not, its bound; and that nobody waits for it."""

from __future__ import annotations

import json
import os
import signal
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agents.node.worker.quarterdeck_serve.app import Application, Limits
from agents.node.worker.quarterdeck_serve.inferlog import LARGEST, Options, Recorder, request_id
from agents.node.worker.quarterdeck_serve.logwriter import Segments
from tests.agents.node.worker.test_serve import INFER, Doubler, asked, call, tensor

Make = Callable[..., Recorder]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    made: list[Recorder] = []

    def recorder(sample: float = 1.0, **options: Any) -> Recorder:
        made.append(Recorder(Options(sample, **options), tmp_path / "log", "3"))
        return made[-1]

    yield recorder
    for one in made:
        one.close()


def written(folder: Path) -> list[dict[str, Any]]:
    files = sorted((folder / "log").glob("*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def serving(recorder: Recorder) -> Application:
    return Application(Doubler(), "m", "3", Limits(), recorder=recorder)


async def test_requests_and_answers_are_written_with_their_ids(make: Make, tmp_path: Path) -> None:
    recorder = make()
    app = serving(recorder)
    before = time.time()
    _, headers, _ = await call(app, INFER, asked(tensor(), id="own"), x_request_id="abc-1")
    assert headers["x-request-id"] == "abc-1"
    _, headers, _ = await call(app, INFER, asked(tensor(shape=[2, 2], data=[1, 2, 3, 4]), id="own"))
    assert headers["x-request-id"] == "own"
    item = tensor(parameters={"binary_data_size": 8})
    del item["data"]
    head = asked(item, parameters={"binary_data_output": True})
    body = head + struct.pack("<2f", 0.1, 4)
    _, headers, _ = await call(app, INFER, body, inference_header_content_length=str(len(head)))
    made = headers["x-request-id"]
    assert await call(app, INFER, b"{}")  # an error is not written, but has an id
    recorder.close()
    first, second, third = written(tmp_path)
    assert before - 1 < first.pop("at") < time.time() + 1
    assert first == {
        "id": "abc-1",
        "v": "3",
        "i": {"x": {"s": [1, 2], "d": [1.0, 2.5]}},
        "o": {"y": {"s": [1, 2], "d": [2.0, 5.0]}},
    }
    assert (second["id"], second["o"]["y"]) == ("own", {"s": [2, 2], "d": [2, 4, 6, 8]})
    assert (third["id"], third["i"]["x"]["d"]) == (made, [0.1, 4.0])
    assert third["o"]["y"]["d"] == [0.2, 8.0]
    assert (recorder.sent, recorder.dropped) == (3, 0)
    assert 'outcome="sent"} 3' in (await call(app, "/metrics", method="GET"))[2].decode()


async def test_errors_too_carry_an_id_and_a_bad_one_is_not_sent_back(make: Make) -> None:
    app = serving(make(0.0))
    _, headers, _ = await call(app, INFER, b"{}", x_request_id="abc")
    assert headers["x-request-id"] == "abc"
    assert request_id(b"a\r\nset-cookie: x") is None
    assert request_id(b"x" * 129) is None
    _, headers, _ = await call(app, INFER, asked(tensor(), id="a b"))
    assert " " not in headers["x-request-id"]


@pytest.mark.parametrize(("redact", "left"), [("x", None), ("x[1]", [1.0, None])])
async def test_what_is_redacted_is_never_written(
    make: Make, tmp_path: Path, redact: str, left: Any
) -> None:
    recorder = make(redact=(redact,))
    await call(serving(recorder), INFER, asked(tensor(data=[1, 987.5])))
    recorder.close()
    (line,) = written(tmp_path)
    assert line["i"]["x"]["d"] == left
    assert "987.5" not in json.dumps(line["i"])


async def test_large_tensors_are_kept_as_numbers_about_them(make: Make, tmp_path: Path) -> None:
    recorder, count = make(), LARGEST // 8
    values = [1.5] * count + [0.5] * count
    app = serving(recorder)
    await call(app, INFER, asked(tensor(shape=[count, 2], data=values)))
    recorder.close()
    (line,) = written(tmp_path)
    assert line["i"]["x"] == {"s": [count, 2], "m": [1.0, 0.5, 0.5, 1.5]}


def test_a_share_is_chosen(tmp_path: Path) -> None:
    dice = iter([0.05, 0.15, 0.09, 0.1])
    recorder = Recorder(Options(0.1), tmp_path / "log", "1", dice=lambda: next(dice))
    for number in range(4):
        answer = b'{"outputs":[]}'
        recorder.offer(str(number), b'{"inputs":[]}', None, answer, None, {}, {})
    recorder.close()
    assert [line["id"] for line in written(tmp_path)] == ["0", "2"]


def test_a_writer_that_is_behind_or_gone_costs_records_and_no_time(make: Make) -> None:
    recorder = make()
    writer = recorder._writer
    assert writer is not None
    os.kill(writer.pid, signal.SIGSTOP)
    x = {"x": np.zeros((1, 2), np.float32)}
    began, body = time.monotonic(), b" " * 20_000
    for _ in range(2000):
        recorder.offer("a", body, None, b"{}", None, x, x)
    assert recorder.dropped > 0
    assert recorder.sent + recorder.dropped == 2000
    assert time.monotonic() - began < 2
    os.kill(writer.pid, signal.SIGKILL)
    writer.wait()
    before = recorder.dropped
    recorder.offer("a", b"{}", None, b"{}", None, x, x)
    assert recorder.dropped == before + 1
    recorder._started -= 100  # the time has come to start another
    recorder.offer("a", b"{}", None, b"{}", None, x, x)
    assert recorder._writer is not writer


def test_the_disk_holds_no_more_than_was_allowed(tmp_path: Path) -> None:
    segments = Segments(tmp_path, 1 << 20)
    for number in range(400):
        segments.write([f"{number} {'x' * 9990}\n"], number / 10)
    segments.close()
    sizes = [path.stat().st_size for path in tmp_path.iterdir()]
    assert 0.8 * (1 << 20) < sum(sizes) <= 1 << 20
    newest = max(tmp_path.iterdir()).read_text().splitlines()
    assert newest[-1].startswith("399 ")


def test_a_disk_that_refuses_costs_lines_and_is_said_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    segments = Segments(tmp_path / "log", 1 << 20)
    (tmp_path / "log").rmdir()
    for _ in range(3):
        segments.write(["a\n"], 1.0)
    assert segments.lost == 3
    assert capsys.readouterr().out.count("is not written") == 1
