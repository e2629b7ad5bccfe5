"""Records from a real broker: nats-server, in $NATS_SERVER or on the path (apt-get install nats-server)."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import quarterdeck

from agents.node.worker.quarterdeck_stream import Stream, StreamError, open
from agents.node.worker.quarterdeck_stream.nats import Connection, Nats

SERVER = os.environ.get("NATS_SERVER") or shutil.which("nats-server")
pytestmark = pytest.mark.skipif(SERVER is None, reason="there is no nats-server here")


class Broker:
    """A broker with its own folder, that can be killed and started again."""

    def __init__(self, folder: Path, *options: str) -> None:
        self._options = options
        self._folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.address = f"nats://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        assert SERVER is not None
        words = [SERVER, "-js", "-sd", str(self._folder), "-a", "127.0.0.1", "-p", str(self.port)]
        self._process = subprocess.Popen(
            [*words, *self._options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        until = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
                break
            except OSError:
                assert time.monotonic() < until, "the broker does not start"
                time.sleep(0.05)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def ask(self, what: str, body: Any = None) -> Any:
        """Of JetStream's API."""
        connection = Connection(self.address, {})
        client = Nats({"nats": self.address, "stream": "x"}, 1)
        connection.send(f"SUB {client._inbox}.a 2\r\n".encode())
        try:
            return client._request(connection, what, body)
        finally:
            connection.close()

    def create(self, name: str = "readings", **config: Any) -> None:
        self.ask(f"STREAM.CREATE.{name}", {"name": name, "subjects": [f"{name}.>"], **config})

    def put(self, numbers: range, subject: str = "readings.a", raw: bytes | None = None) -> None:
        connection = Connection(self.address, {})
        for n in numbers:
            connection.publish(subject, raw or json.dumps({"n": n}).encode())
        connection._ready = False
        connection.send(b"PING\r\n")
        while not connection._ready:
            connection.receive(5)
        connection.close()

    def messages(self, name: str = "readings") -> int:
        found: int = self.ask(f"STREAM.INFO.{name}")["state"]["messages"]
        return found


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    one = Broker(tmp_path / "js")
    one.start()
    yield one
    one.kill()


Make = Callable[..., Stream]


@pytest.fixture
def make(broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    monkeypatch.setenv("QD_CHECKPOINT_DIR", str(tmp_path / "checkpoints"))
    monkeypatch.delenv("QD_METRICS_FILE", raising=False)
    monkeypatch.setattr(quarterdeck, "_stopping", False)
    made: list[Stream] = []

    def build(source: Any = None, **more: Any) -> Stream:
        given = {"nats": broker.address, "stream": "readings", **(source or {})}
        made.append(open(None, {"source": given, "end": True, **more}))
        return made[-1]

    yield build
    for one in made:
        one.close()


def numbers(stream: Stream) -> list[int]:
    return [record["n"] for record in stream]


def test_everything_in_order_and_the_next_start_after_it(broker: Broker, make: Make) -> None:
    broker.create()
    broker.put(range(1000))
    broker.put(range(1), raw=b"[1]")
    one = make()
    assert numbers(one) == list(range(1000))
    assert (one.read, one.rejected) == (1001, 1)
    one.close()
    broker.put(range(1000, 1010))
    two = make()
    assert numbers(two) == list(range(1000, 1010))
    assert two._source.behind() == 0


def test_what_was_not_committed_comes_again(broker: Broker, make: Make) -> None:
    broker.create()
    broker.put(range(100))
    one = make(commit={"records": 10})
    assert [next(one)["n"] for _ in range(35)] == list(range(35))
    one.close()  # as a kill does: 30 are committed
    assert numbers(make()) == list(range(30, 100))


def test_a_work_queue_loses_what_is_committed_and_nothing_else(broker: Broker, make: Make) -> None:
    broker.create(retention="workqueue")
    broker.put(range(100))
    one = make(commit={"records": 10})
    for _ in range(35):
        next(one)
    one.close()
    until = time.monotonic() + 10
    while broker.messages() != 70 and time.monotonic() < until:
        time.sleep(0.05)
    assert broker.messages() == 70
    assert numbers(make()) == list(range(30, 100))


def test_acknowledgements_that_were_lost_with_a_kill(broker: Broker, make: Make) -> None:
    broker.create(retention="workqueue")
    broker.put(range(20))
    one = make(commit={"records": 10})
    one._source.committed = lambda: None  # type: ignore[method-assign]  # killed before it said so
    for _ in range(15):
        next(one)
    one.close()
    two = make()
    assert numbers(two) == list(range(10, 20))
    until = time.monotonic() + 10
    while broker.messages() and time.monotonic() < until:
        time.sleep(0.05)
    assert broker.messages() == 0


def test_a_broker_that_is_killed_and_comes_back(
    broker: Broker, make: Make, capfd: pytest.CaptureFixture[str]
) -> None:
    broker.create()
    broker.put(range(2000))
    one = make(end=False)
    found = [next(one)["n"] for _ in range(300)]
    broker.kill()
    later = threading.Timer(1.0, broker.start)
    later.start()
    found += [next(one)["n"] for _ in range(1700)]
    later.join()
    assert found == list(range(2000))
    assert "trying again" in capfd.readouterr().err


def test_only_the_subject_that_was_asked_for(broker: Broker, make: Make) -> None:
    broker.create()
    broker.put(range(5))
    broker.put(range(5, 8), subject="readings.b")
    assert numbers(make({"subject": "readings.b"})) == [5, 6, 7]


def test_a_stream_that_was_made_anew_is_read_from_its_beginning(
    broker: Broker, make: Make, capfd: pytest.CaptureFixture[str]
) -> None:
    broker.create()
    broker.put(range(5))
    one = make()
    assert len(numbers(one)) == 5
    one.close()
    broker.ask("STREAM.DELETE.readings")
    broker.create()
    broker.put(range(7, 9))
    assert numbers(make()) == [7, 8]
    assert "was made anew" in capfd.readouterr().err


def test_what_cannot_be_read_says_why(broker: Broker, make: Make) -> None:
    with pytest.raises(StreamError, match="stream not found"):
        numbers(make())


def test_interest_cannot_be_read_again(broker: Broker, make: Make) -> None:
    broker.create(retention="interest")
    with pytest.raises(StreamError, match="by interest"):
        numbers(make())


def test_a_password_comes_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guarded = Broker(tmp_path / "js", "--user", "mira", "--pass", "geheim")
    guarded.start()
    try:
        with pytest.raises(StreamError, match="Authorization Violation"):
            Connection(guarded.address, {})
        Connection(guarded.address, {"NATS_USER": "mira", "NATS_PASSWORD": "geheim"}).close()
    finally:
        guarded.kill()


def test_what_is_no_broker() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            peer, _ = server.accept()
            peer.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            peer.close()

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(StreamError, match="no NATS"):
            Connection(f"nats://127.0.0.1:{server.getsockname()[1]}", {})
        thread.join()
