"""Copies of requests for a shadow: what is compared, what is dropped, and that no answer waits for it."""

from __future__ import annotations

import asyncio
import http.server
import json
import math
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agents.node.worker.quarterdeck_front import counts
from agents.node.worker.quarterdeck_serve import mirror as mirrors
from agents.node.worker.quarterdeck_serve import shadow
from agents.node.worker.quarterdeck_serve.app import Application, Limits
from agents.node.worker.quarterdeck_serve.mirror import Mirror
from jobs.services.shadow import Tally
from tests.agents.node.worker.test_serve import INFER, Doubler, asked, call, tensor


class Other(http.server.ThreadingHTTPServer):
    """The other version: `answer` as its y, or `status`, once `going` is set."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer: list[float] = [2.0, 5.0]
        self.status = 200
        self.going = threading.Event()
        self.going.set()
        self.heard: list[tuple[dict[str, str], bytes]] = []
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Who hangs up is no news."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        other = self.server
        assert isinstance(other, Other)
        body = self.rfile.read(int(self.headers["content-length"]))
        other.heard.append(({k.lower(): v for k, v in self.headers.items()}, body))
        other.going.wait(30)
        shape = [1, len(other.answer)]
        y = {"name": "y", "datatype": "FP32", "shape": shape, "data": other.answer}
        answer = json.dumps({"outputs": [y]}).encode()
        self.send_response(other.status)
        self.send_header("content-length", str(len(answer)))
        self.send_header("x-quarterdeck-took", "1234")
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def other() -> Iterator[Other]:
    made = Other()
    yield made
    made.going.set()
    made.shutdown()
    made.server_close()


class Copying:
    """A server of ours that copies, and a controller's view of it."""

    def __init__(self, folder: Path) -> None:
        self.inbox, self.outbox = folder / "inbox", folder / "outbox"
        self.mirror = Mirror(self.inbox, self.outbox, INFER)
        self.app = Application(Doubler(), "m", "3", Limits(), mirror=self.mirror)

    def want(self, *servers: str, percent: float = 100, name: str = "d1r2") -> None:
        asked = {"id": name, "percent": percent, "servers": list(servers)}
        self.letter(asked if servers else None)

    def letter(self, asked: Any) -> None:
        beside = self.inbox.with_suffix(".new")
        beside.write_text(json.dumps({"shadow": asked}))
        beside.replace(self.inbox)
        self.mirror.look()

    def seen(self) -> Tally:
        try:
            return Tally.from_json(json.loads(self.outbox.read_text())["shadow"])
        except FileNotFoundError:
            return Tally()

    def until(self, look: Callable[[Tally], Any]) -> Tally:
        deadline = time.monotonic() + 20
        while not look(found := self.seen()):
            assert time.monotonic() < deadline, found
            time.sleep(0.02)
        return found


@pytest.fixture
def copying(tmp_path: Path) -> Iterator[Copying]:
    made = Copying(tmp_path)
    yield made
    made.mirror.close(0.0)


async def test_nothing_is_copied_until_a_letter_says_so(copying: Copying, other: Other) -> None:
    copying.mirror.look()
    assert (await call(copying.app, INFER, asked(tensor())))[0] == 200
    copying.letter({"id": "d1r2"})  # no such letter: it is no reason to end
    assert (await call(copying.app, INFER, asked(tensor())))[0] == 200
    copying.want(other.address)
    await call(copying.app, INFER, asked(tensor()))
    copying.until(lambda tally: tally.new.seen == 1)
    copying.want()
    await call(copying.app, INFER, asked(tensor()))
    assert len(other.heard) == 1


async def test_json_and_binary_requests_are_compared_with_their_answers(
    copying: Copying, other: Other
) -> None:
    copying.want(other.address)
    await call(copying.app, INFER, asked(tensor()), x_request_id="r-1")  # y is 2, 5
    copying.until(lambda tally: tally.new.seen == 1)
    item = tensor(parameters={"binary_data_size": 8})
    del item["data"]
    head = asked(item, parameters={"binary_data_output": True})
    body = head + struct.pack("<2f", 3, 1)  # y is 6, 2: another place has the largest
    await call(copying.app, INFER, body, inference_header_content_length=str(len(head)))
    tally = copying.until(lambda tally: tally.new.seen == 2)
    assert (tally.old.bad, tally.new.bad, tally.dropped) == (0, 0, 0)
    output = tally.outputs["y"]
    assert (output.rows, output.same, output.numbers) == (2, 1, 4)
    assert (output.apart, output.most) == (4 + 3, 4)
    assert tally.new.times == {counts.bucket(1234): 2}, "as the other one says"
    sent, copied = other.heard[0]
    assert copied == asked(tensor())
    assert (sent["x-request-id"], sent["x-quarterdeck-shadow"]) == ("r-1", "1")
    assert other.heard[1][1] == body
    assert other.heard[1][0]["inference-header-content-length"] == str(len(head))


async def test_a_copy_is_not_copied_again_and_says_how_long_it_took(copying: Copying) -> None:
    copying.want("127.0.0.1:1")
    _, headers, _ = await call(copying.app, INFER, asked(tensor()), x_quarterdeck_shadow="1")
    assert int(headers["x-quarterdeck-took"]) >= 0
    _, headers, _ = await call(copying.app, INFER, asked(tensor()))
    assert "x-quarterdeck-took" not in headers
    assert copying.until(lambda tally: tally.new.seen).new.seen == 1


async def test_what_fails_at_either_is_counted(copying: Copying, other: Other) -> None:
    copying.want("127.0.0.1:1", other.address)  # nobody is at the first: the next one is asked
    for _ in range(4):
        await call(copying.app, INFER, asked(tensor()))
    tally = copying.until(lambda tally: tally.new.seen == 4)
    assert tally.new.bad == 0
    other.status = 500
    await call(copying.app, INFER, asked(tensor()))
    await call(copying.app, INFER, asked(tensor(data=[1e7, 1])))  # the running version fails too
    tally = copying.until(lambda tally: tally.new.seen == 6)
    assert (tally.old.bad, tally.new.bad, tally.outputs["y"].rows) == (1, 2, 4)
    other.status = 503  # it has no room
    await call(copying.app, INFER, asked(tensor()))
    copying.until(lambda tally: tally.dropped == 1)
    await call(copying.app, INFER, b"{}")  # no request that any version would take
    copying.want("127.0.0.1:1")
    await asyncio.sleep(2 * shadow.SHOW_EVERY)
    await call(copying.app, INFER, asked(tensor()))
    tally = copying.until(lambda tally: tally.new.seen == 7)
    assert tally.new.bad == 3


async def test_no_answer_waits_for_a_shadow_that_hangs(
    copying: Copying, other: Other, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirrors, "WAITING", 20_000)
    other.going.clear()
    copying.want(other.address)
    began = time.monotonic()
    for _ in range(500):
        assert (await call(copying.app, INFER, asked(tensor())))[0] == 200
    assert time.monotonic() - began < 5
    assert copying.mirror.dropped > 200
    other.going.set()
    copying.until(lambda tally: tally.new.seen > 10)
    await call(copying.app, INFER, asked(tensor()))
    copying.until(lambda tally: tally.dropped > 200)


def test_a_process_without_descriptors_has_no_copies_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def none_left(*_: object) -> None:
        raise OSError(24, "Too many open files")

    inbox = tmp_path / "in"
    inbox.write_text(json.dumps({"shadow": {"id": "d1r2", "percent": 100, "servers": []}}))
    made = Mirror(inbox, tmp_path / "out", "/")
    monkeypatch.setattr(mirrors, "AGAIN", 0.0)
    with monkeypatch.context() as full:
        full.setattr(socket, "socketpair", none_left)
        made.look()
        made.look()
    assert "no copies of requests: [Errno 24]" in capsys.readouterr().out
    made.look()
    assert made._program is not None
    made.close()


async def test_one_that_is_killed_is_started_again_and_counts_anew(
    copying: Copying, other: Other, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirrors, "AGAIN", 0.0)
    copying.want(other.address)
    await call(copying.app, INFER, asked(tensor()))
    copying.until(lambda tally: tally.new.seen == 1)
    first = json.loads(copying.outbox.read_text())["shadow"]["boot"]
    program = copying.mirror._program
    assert program is not None
    program.kill()
    program.wait()
    assert (await call(copying.app, INFER, asked(tensor())))[0] == 200
    copying.mirror.look()
    await call(copying.app, INFER, asked(tensor()))
    copying.until(lambda _: json.loads(copying.outbox.read_text())["shadow"]["boot"] != first)
    copying.until(lambda tally: tally.new.seen == 1)


def tensors(shape: list[int], data: list[Any] | None) -> dict[str, Any]:
    return {"s": shape, "d": data}


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        (tensors([2], [1, 2]), tensors([2], [1, 3]), 1),
        (tensors([2], ["a", "b"]), tensors([2], ["a", "b"]), 2),
        (tensors([2, 2], [0.1, 0.9, 0.6, 0.4]), tensors([2, 2], [0.4, 0.6, 0.3, 0.7]), 1),
        (tensors([3], [1.0, 2.0, 0.0]), tensors([3], [1.0005, 2.1, 0.0]), 2),
        (tensors([2], [None, 1.0]), tensors([2], [None, 1.0]), 2),
        (tensors([2], [None, 1.0]), tensors([2], [0.5, 1.0]), 1),
        (tensors([1], [5]), tensors([1], [5.0]), 1),
        (tensors([1, 2], [1.0, 2.0]), tensors([1, 3], [1.0, 2.0, 3.0]), 0),
        (tensors([1], [True]), None, 0),
        (None, tensors([1], [True]), 0),
        (tensors([], [2.0]), tensors([], [2.0]), 1),
        (tensors([0, 4], []), tensors([0, 4], []), 0),
        (tensors([2, 0], []), tensors([2, 0], []), 0),
    ],
)  # fmt: skip
def test_rows(old: dict[str, Any] | None, new: dict[str, Any] | None, same: int) -> None:
    found = shadow.compared(old, new)
    assert found["same"] == same
    assert all(math.isfinite(value) and value >= 0 for value in found.values())


@pytest.mark.parametrize("microseconds", [1, 50, 51, 1000, 1e7])
def test_times_are_counted_as_at_the_front(microseconds: float) -> None:
    assert shadow.bucket(microseconds) == counts.bucket(microseconds)
