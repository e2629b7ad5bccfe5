"""The front of a service that is at zero, and what it counts for scaling: a real HAProxy, real servers."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agents.node.worker.quarterdeck_front.load import Load
from tests.agents.node.worker.replicas import Replica
from tests.fronting import Front, until


@pytest.fixture
def front(tmp_path: Path) -> Iterator[Front]:
    made = Front(tmp_path)
    try:
        yield made
    finally:
        assert made.close() == 0


@pytest.fixture
def replicas() -> Iterator[Callable[..., Replica]]:
    made: list[Replica] = []

    def make(name: str, **how: Any) -> Replica:
        made.append(Replica(name, **how))
        return made[-1]

    yield make
    for replica in made:
        replica.shutdown()
        replica.server_close()


class Asked:
    """A request in a thread of its own."""

    def __init__(self, front: Front, body: bytes = b"x") -> None:
        self.status, self.body, self.headers = 0, b"", http.client.HTTPMessage()
        self.took = 0.0
        self._front, self._sent = front, body
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._front.port, timeout=20)
        began = time.monotonic()
        connection.request("POST", "/", self._sent)
        answer = connection.getresponse()
        self.status, self.headers, self.body = answer.status, answer.headers, answer.read()
        self.took = time.monotonic() - began
        connection.close()


def load(front: Front) -> dict[str, Any]:
    found: dict[str, Any] = front.seen().get("load", {}).get("d1r1", {})
    return found


def test_a_request_waits_for_the_first_replica_whatever_its_size(
    front: Front, replicas: Callable[..., Replica]
) -> None:
    front.hold = {"seconds": 20, "requests": 10}
    until(front.want([], [], 0))
    small, large = Asked(front), Asked(front, b"y" * 3_000_000)
    until(lambda: load(front).get("held") == 2)
    assert load(front)["running"] == 0
    assert load(front)["idle"] < 1
    late = replicas("late", up=False)
    until(front.want([late.address], [], 0))
    time.sleep(0.3)
    assert load(front)["held"] == 2  # it does not say that it is ready
    late.up = True
    for asked in (small, large):
        asked.thread.join()
        assert (asked.status, asked.body) == (200, b"late")
    until(lambda: front.up("d1r1") == 1)
    assert front.get() == "late"
    assert "hold" not in front.seen()["servers"]["d1r1"]


def test_who_waits_is_not_lost_when_another_haproxy_takes_over(
    front: Front, replicas: Callable[..., Replica]
) -> None:
    front.hold = {"seconds": 20, "requests": 10}
    until(front.want([], [], 0))
    asked = Asked(front)
    until(lambda: load(front).get("held") == 1)
    other = replicas("other")
    until(front.want([], [other.address], 0))
    until(lambda: front.up("d1r2") == 1)
    until(lambda: load(front).get("held") == 1)
    until(front.want([replicas("mine").address], [other.address], 0))
    asked.thread.join()
    assert (asked.status, asked.body) == (200, b"mine")


def test_it_waits_so_long_and_so_many_wait_and_others_hear_when_to_come_again(front: Front) -> None:
    front.hold = {"seconds": 2, "requests": 1}
    until(front.want([], [], 0))
    first = Asked(front)
    until(lambda: load(front).get("held") == 1)
    second = Asked(front, b"z" * 300_000)
    second.thread.join()
    assert (second.status, second.headers["Retry-After"]) == (503, "5")
    assert set(json.loads(second.body)) == {"error"}
    assert second.took < 1.5
    first.thread.join()
    assert first.status == 503
    assert 1.9 < first.took < 4


def test_who_hangs_up_makes_room_for_another(
    front: Front, replicas: Callable[..., Replica]
) -> None:
    front.hold = {"seconds": 20, "requests": 1}
    until(front.want([], [], 0))
    with socket.create_connection(("127.0.0.1", front.port)) as gone:
        gone.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        until(lambda: load(front).get("held") == 1)
    until(lambda: load(front).get("held") == 0)
    asked = Asked(front)
    until(lambda: load(front).get("held") == 1)
    until(front.want([replicas("late").address], [], 0))
    asked.thread.join()
    assert asked.status == 200


def test_requests_of_a_haproxy_that_finishes_are_counted_and_its_replicas_known(
    front: Front, replicas: Callable[..., Replica]
) -> None:
    first, second = replicas("1", up=False), replicas("2")
    second.release = threading.Event()
    front.want([first.address, second.address], [], 0)
    until(lambda: front.up("d1r1") == 1)
    asked = Asked(front)
    until(lambda: load(front).get("running") == 1)
    first.up = True
    until(front.want([first.address], [], 0))
    until(lambda: front.seen().get("leaving") == {"d1r1": ["e1"]})
    until(lambda: load(front).get("running") == 1)
    work = load(front)["work"]
    until(lambda: load(front)["work"] > work + 0.2)
    second.release.set()
    asked.thread.join()
    assert (asked.status, asked.body) == (200, b"2")
    until(lambda: front.seen().get("leaving") == {})
    until(lambda: load(front).get("running") == 0)


def test_work_is_requests_times_seconds_without_those_that_wait_for_a_replica() -> None:
    use = Load(100.0)
    use.look(100.0, {"a": (0, 0)}, {}, {})
    use.look(102.0, {"a": (4, 1)}, {"a": 1}, {})
    told = use.to_json()["a"]
    assert (told["running"], told["queued"], told["held"]) == (2, 2, 1)
    assert (told["work"], told["idle"]) == (6.0, 0.0)
    use.look(112.0, {"a": (0, 0)}, {}, {"a": 0})
    assert use.to_json()["a"]["idle"] == 10.0
    use.look(113.0, {"a": (0, 0)}, {}, {"a": 1})  # shorter than a look, and counted
    assert use.to_json()["a"]["idle"] == 0.0
    use.look(114.0, {}, {}, {})
    assert use.to_json() == {}
