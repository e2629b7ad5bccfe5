"""API keys at the front: a real HAProxy before a real server, its maps changed while it runs."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import signal
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agents.node.worker.quarterdeck_front import config, keys
from tests.agents.node.worker.replicas import Replica
from tests.fronting import Front, until


def digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def keyed(*given: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    return {"keyed": True, "keys": {digest(key): what for key, what in given}}


ADA, BOB, SLOW = (
    ("ada", {"id": 1}),
    ("bob", {"id": 2}),
    ("slow", {"id": 3, "limit": 3, "seconds": 60}),
)


@pytest.fixture
def replica() -> Iterator[Replica]:
    made = Replica("it")
    yield made
    made.shutdown()
    made.server_close()


@pytest.fixture
def front(tmp_path: Path, replica: Replica) -> Iterator[Front]:
    made = Front(tmp_path)
    try:
        until(made.want([replica.address], [], 0))
        until(lambda: made.up("d1r1"))
        yield made
    finally:
        assert made.close() == 0


def answer(front: Front, **headers: str) -> tuple[int, Any, dict[str, Any]]:
    """Status, headers and body of a POST."""
    connection = http.client.HTTPConnection("127.0.0.1", front.port, timeout=5)
    connection.request("POST", "/v2/models/m/infer", b"{}", headers)
    found = connection.getresponse()
    body = json.loads(found.read()) if found.status >= 400 else {}
    connection.close()
    return found.status, found.headers, body


def test_only_who_has_a_key_is_answered_and_the_server_never_sees_it(
    front: Front, replica: Replica
) -> None:
    assert front.get() == "it"  # nobody asked for keys
    first = front.seen()["pid"]
    until(front.want([replica.address], [], 0, **keyed(ADA, BOB)))
    for wrong in ({}, {"X-API-Key": "eve"}, {"X-API-Key": ""}, {"Authorization": "Bearer eve"},
                  {"Authorization": "Basic YWRhOmFkYQ=="}, {"X-API-Key": digest("ada")}):  # fmt: skip
        status, headers, body = answer(front, **wrong)
        assert (status, headers["WWW-Authenticate"]) == (401, "Bearer")
        assert "API key" in body["error"]
    replica.heard.clear()
    assert front.get(headers={"X-API-Key": "ada"}) == "it"
    assert front.get(headers={"Authorization": "Bearer bob"}) == "it"
    assert front.get(headers={"X-API-Key": "ada", "Authorization": "Bearer own"}) == "it"
    asked = [heard for heard in replica.heard if heard["path"] == "/"]
    assert [heard.get("authorization") for heard in asked] == [None, None, "Bearer own"]
    assert not [heard for heard in asked if "x-api-key" in heard]
    assert front.seen()["pid"] == first


def test_a_key_is_revoked_from_the_next_request_on_and_outlives_a_kill(
    front: Front, replica: Replica
) -> None:
    until(front.want([replica.address], [], 0, **keyed(ADA, BOB)))
    first = front.seen()["pid"]
    assert front.get(headers={"X-API-Key": "bob"}) == "it"
    until(front.want([replica.address], [], 0, **keyed(ADA)))
    assert front.get(headers={"X-API-Key": "bob"}) == "401"
    assert front.get(headers={"X-API-Key": "ada"}) == "it"
    assert front.seen()["pid"] == first
    os.kill(first, signal.SIGKILL)
    assert until(lambda: front.seen()["pid"] not in (None, first))
    until(lambda: front.get(headers={"X-API-Key": "ada"}) == "it")
    assert front.get(headers={"X-API-Key": "bob"}) == front.get() == "401"
    until(front.want([replica.address], [], 0, keyed=True, keys={}))
    assert front.get(headers={"X-API-Key": "ada"}) == "401"  # no key at all opens nothing
    until(front.want([replica.address], [], 0))
    assert front.get() == "it"


def test_a_key_has_its_own_limit_and_the_answer_says_when_to_come_back(
    front: Front, replica: Replica
) -> None:
    until(front.want([replica.address], [], 0, **keyed(ADA, SLOW)))
    told = [answer(front, **{"X-API-Key": "slow"}) for _ in range(5)]
    assert [status for status, _, _ in told] == [200, 200, 200, 429, 429]
    assert told[-1][1]["Retry-After"] == "20"
    assert set(told[-1][2]) == {"error"}
    assert {front.get(headers={"X-API-Key": "ada"}) for _ in range(20)} == {"it"}
    seen = until(lambda: front.seen() if front.seen()["counts"].get("d1") else None)
    assert seen["counts"]["d1"]["statuses"] == {"429": 2}  # nobody's fault: no version's error
    assert seen["counts"]["d1r1"]["bad"] == 0


def test_keys_come_and_go_by_the_thousand_under_load_and_nothing_fails(
    front: Front, replica: Replica
) -> None:
    until(front.want([replica.address], [], 0, **keyed(ADA)))
    first = front.seen()["pid"]
    told: Counter[str] = Counter()
    going = True

    def ask() -> None:
        while going:
            told[front.get(headers={"X-API-Key": "ada"})] += 1

    caller = threading.Thread(target=ask)
    caller.start()
    try:
        many = [(f"k{n}", {"id": n, "limit": 100, "seconds": 1}) for n in range(2000)]
        until(front.want([replica.address], [], 0, **keyed(ADA, *many)))
        assert front.get(headers={"X-API-Key": "k1999"}) == "it"
        until(front.want([replica.address], [], 0, **keyed(ADA, *many[:10])))
        assert front.get(headers={"X-API-Key": "k1999"}) == "401"
        until(lambda: told["it"] > 100)
    finally:
        going = False
        caller.join()
    assert told.keys() == {"it"}
    assert front.seen()["pid"] == first


@pytest.mark.parametrize("program", ["/usr/sbin/haproxy"])
def test_the_rules_are_understood_by_the_systems_haproxy_too(tmp_path: Path, program: str) -> None:
    if not Path(program).exists():
        pytest.skip("there is none")
    service = {
        "name": "d1", "bind": "127.0.0.1", "port": 1, "stable": "d1r1", "candidate": "", "share": 0,
        "backends": [{"name": "d1r1", "ready": "/", "servers": []}], **keyed(ADA, SLOW),
    }  # fmt: skip
    (tmp_path / "front.cfg").write_text(config.configuration({"services": [service]}, set(), "s"))
    for name, entries in config.maps({"services": [service]}).items():
        (tmp_path / name).write_text(config.map_file(entries))
    done = subprocess.run([program, "-c", "-f", "front.cfg"], cwd=tmp_path, capture_output=True)
    assert done.returncode == 0, done.stderr


def test_what_is_revoked_goes_first_and_a_service_is_closed_last() -> None:
    old = {keys.MAP: {"d1.a": "k1", "d1.b": "k2"}, config.MAP: {"d1.keyed": "0", "d1.share": "5"}}
    new = {
        keys.MAP: {"d1.b": "k2:9:1:1", "d1.c": "k3"},
        config.MAP: {"d1.keyed": "1", "d1.share": "7"},
    }
    assert config.steps(new, old) == [
        "del map keys.map d1.a",
        "del map keys.map d1.b",
        "add map keys.map d1.b k2:9:1:1",
        "add map keys.map d1.c k3",
        "set map split.map d1.keyed 1",
        "set map split.map d1.share 7",
    ]
