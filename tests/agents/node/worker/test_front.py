"""The front: what HAProxy is told, what its log lines come to, and a real HAProxy before real servers."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agents.node.worker.quarterdeck_front.config import backends, configuration, split
from agents.node.worker.quarterdeck_front.counts import Tally, bucket
from jobs.services.histogram import edge_of
from tests.agents.node.worker.replicas import Replica
from tests.fronting import Front, until


@pytest.fixture
def front(tmp_path: Path) -> Iterator[Front]:
    made = Front(tmp_path)
    try:
        yield made
    finally:
        assert made.close() == 0
        assert not _haproxies(tmp_path)


def _haproxies(folder: Path) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cwd"):
        with contextlib.suppress(OSError):
            if path.resolve() == folder / "work":
                found.append(int(path.parent.name))
    return found


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


def test_a_split_is_kept_and_a_caller_with_a_key_stays(
    front: Front, replicas: Callable[..., Replica]
) -> None:
    old, new = replicas("old"), replicas("new")
    front.want([old.address], [new.address], 0)
    until(lambda: front.up("d1r1") and front.up("d1r2"))
    assert Counter(front.get() for _ in range(50)) == {"old": 50}
    until(front.want([old.address], [new.address], 25))
    told = Counter(front.get() for _ in range(400))
    assert told.keys() == {"old", "new"}
    assert 60 < told["new"] < 140  # 100 of 400; six standard deviations are 52
    sides = {key: front.get(key) for key in map(str, range(40))}
    assert set(sides.values()) == {"old", "new"}
    assert all(front.get(key) == side for key, side in sides.items())
    until(front.want([old.address], [new.address], 60))
    assert all(front.get(key) == "new" for key, side in sides.items() if side == "new")


def test_taking_the_split_back_takes_it_from_the_next_request_on(
    front: Front, replicas: Callable[..., Replica]
) -> None:
    old, new = replicas("old"), replicas("bad", status=500)
    front.want([old.address], [new.address], 50)
    until(lambda: front.up("d1r1") and front.up("d1r2"))
    until(lambda: "bad" in {front.get() for _ in range(10)})
    until(front.want([old.address], [new.address], 0, candidate=""))
    assert {front.get() for _ in range(100)} == {"old"}
    seen = until(lambda: front.seen() if front.seen()["counts"]["d1r1"]["seen"] > 100 else None)
    counts = seen["counts"]
    assert counts["d1r2"]["bad"] == counts["d1r2"]["seen"] == counts["d1r2"]["statuses"]["500"] > 0
    assert counts["d1r1"]["bad"] == 0
    assert sum(counts["d1r1"]["times"].values()) == counts["d1r1"]["seen"]


def test_only_who_says_that_it_is_ready_is_asked(
    front: Front, replicas: Callable[..., Replica]
) -> None:
    first, late = replicas("first"), replicas("late", up=False)
    until(front.want([first.address, late.address], [], 0))
    until(lambda: front.up("d1r1"))
    assert {front.get() for _ in range(40)} == {"first"}
    late.up = True
    until(lambda: front.up("d1r1") == 2)
    until(lambda: {front.get() for _ in range(20)} == {"first", "late"})


def test_replicas_come_and_go_under_load_and_no_request_fails(
    front: Front, replicas: Callable[..., Replica]
) -> None:
    first, second, third = replicas("1"), replicas("2"), replicas("3")
    front.want([first.address, second.address], [], 0)
    until(lambda: front.up("d1r1") == 2)
    told: Counter[str] = Counter()
    going = True

    def ask() -> None:
        while going:
            told[front.get()] += 1

    callers = [threading.Thread(target=ask) for _ in range(3)]
    for caller in callers:
        caller.start()
    try:
        until(front.want([second.address, third.address], [], 0))
        until(lambda: told["3"] > 5)
        second.shutdown()
        second.server_close()  # without a word, as a machine goes
        until(lambda: front.up("d1r1") == 1)
        until(front.want([third.address], [], 0))
    finally:
        going = False
        for caller in callers:
            caller.join()
    assert told.keys() <= {"1", "2", "3"}


def test_a_killed_haproxy_is_back_within_a_second_with_the_same_split(
    front: Front, replicas: Callable[..., Replica]
) -> None:
    old, new = replicas("old"), replicas("new")
    front.want([old.address], [new.address], 0)
    until(lambda: front.up("d1r1") and front.up("d1r2"))
    until(front.want([old.address], [new.address], 100))
    first = front.seen()["pid"]
    os.kill(first, signal.SIGKILL)
    began = time.monotonic()
    until(lambda: front.get() == "new")
    assert time.monotonic() - began < 1
    assert until(lambda: front.seen()["pid"] not in (None, first))
    assert {front.get() for _ in range(20)} == {"new"}


def test_a_port_that_is_taken_is_said_and_tried_again(
    front: Front, replicas: Callable[..., Replica]
) -> None:
    other, mine = replicas("other"), replicas("mine")
    front.port = other.server_port
    front.want([mine.address], [], 0)
    assert "cannot bind" in until(lambda: front.seen().get("error", ""))
    other.shutdown()
    other.server_close()
    until(lambda: front.get() == "mine")
    assert until(lambda: front.seen().get("error") == "")


def test_without_a_replica_the_answer_is_503_in_json(front: Front) -> None:
    until(front.want([], [], 0))
    connection = http.client.HTTPConnection("127.0.0.1", front.port, timeout=5)
    connection.request("POST", "/v2/models/x/infer", b"{}")
    answer = connection.getresponse()
    assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
    assert set(json.loads(answer.read())) == {"error"}
    connection.close()


def test_its_runtime_socket_is_the_owners_alone(
    front: Front, replicas: Callable[..., Replica], tmp_path: Path
) -> None:
    until(front.want([replicas("x").address], [], 0))
    (socket,) = [path for path in (tmp_path / "work").glob("*.sock") if path.is_socket()][-1:]
    assert socket.stat().st_mode & 0o777 == 0o600


def test_lines_of_the_log_are_counted_and_others_are_not() -> None:
    tally = Tally()
    tally.feed(b"d1r1 200 -- 900\nd1r1 500 -- 40\nd1r1 502 SH 7\nd1r1 -1 CD 9\nd1")
    tally.feed(b"r2 200 -- 1000000\n[ALERT] something\nd1r1 400 PR 3\n")
    one, two = tally.counts["d1r1"].to_json(), tally.counts["d1r2"].to_json()
    assert (one["seen"], one["bad"]) == (4, 2)
    assert one["statuses"] == {"200": 1, "500": 1, "502": 1, "400": 1}
    assert two["times"] == {str(bucket(1_000_000)): 1}
    assert tally.other == ["[ALERT] something"]


@pytest.mark.parametrize("microseconds", [0, 1, 50, 51, 1000, 123_456, 10_000_000])
def test_its_buckets_are_those_that_the_controller_reads(microseconds: int) -> None:
    place = bucket(microseconds)
    assert microseconds / 1e6 <= edge_of(place) * 1.000001
    assert place == 0 or microseconds / 1e6 > edge_of(place - 1) * 0.999999


def test_a_share_is_in_hundredths_of_a_percent() -> None:
    service = {
        "name": "d1", "bind": "::1", "port": 1, "stable": "d1r1", "candidate": "", "share": 2.5,
        "backends": [{"name": "d1r1", "ready": "/", "servers": [{"name": "e1", "address": "a:1"}]}],
    }  # fmt: skip
    asked = {"services": [service]}
    assert split(asked) == {
        "d1.stable": "d1r1",
        "d1.candidate": "none",
        "d1.share": "250",
        "d1.keyed": "0",
    }
    assert list(backends(asked)) == ["d1r1"]
    assert "server e1" not in configuration(asked, set(), "s")
    assert "server e1 a:1" in configuration(asked, {"a:1"}, "s")
