"""`qd up --listen`, `qd join` and `qd leave`, with the supervisor played by the test."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from console.cli import cluster, hosts
from jobs.base.errors import Conflict, InvalidInput, NotAllowed
from jobs.base.places import places
from tests.console.fake_controller import FakeController

HEAD = "10.0.0.1:23456"
STATUS = {
    "state": "ok",
    "version": "0.1.0",
    "cluster": {"nodes": 2, "gpus": 4, "simulated": False, "cpus": 8.0, "jobs": {}},
    "problems": [],
    "ray": "connected",
}


class Supervisor:
    """Notes what it is told, writes what the real one writes, and lets Ray say something."""

    def __init__(self, says: str = "Ray runtime started.\n", **answer: Any) -> None:
        self.told: list[list[str]] = []
        self.says, self.answer = says, answer

    def __call__(self, *words: str) -> dict[str, Any]:
        self.told.append(list(words))
        where = places()
        if words[0] == "start":
            where.daemon_logs.mkdir(parents=True, exist_ok=True)
            with (where.daemon_logs / "ray.log").open("a") as log:
                log.write(self.says)
        return dict(self.answer)


def joined(head: str | None = HEAD) -> dict[str, Any]:
    """What the supervisor of a worker has written."""
    return {"node": "gpu-7", "asked": {"head": head}, "ray": {"process": None, "exit": "no head"}}


def write_record(record: dict[str, Any]) -> None:
    places().state.mkdir(parents=True, exist_ok=True)
    places().cluster_file.write_text(json.dumps(record))


@pytest.fixture
def supervisor(home: Path, monkeypatch: pytest.MonkeyPatch) -> Supervisor:
    fake = Supervisor(started=True, cluster=joined())
    monkeypatch.setattr(cluster, "supervisor", fake)
    monkeypatch.setattr(hosts, "supervisor", fake)
    return fake


def test_up_tells_how_others_join(
    qd: Any, controller: FakeController, supervisor: Supervisor
) -> None:
    supervisor.answer = {"started": True, "cluster": {"ray_address": HEAD}}
    controller.on("GET /v1/status", STATUS)
    controller.on("GET /v1/nodes", [{"name": "n1", "state": "READY"}])
    result = qd("up", "--listen", "10.0.0.1")
    assert result.out == "The cluster is up: 2 nodes, 8 CPUs, 4 GPUs.\n"
    assert f"qd join {HEAD} --token-file FILE" in result.err
    assert str(places().ray_token) in result.err
    assert supervisor.told == [["start", "--address", "10.0.0.1"]]
    document = json.loads(qd("up", "--json").out)
    assert document["join"] == {"head": HEAD, "token_file": str(places().ray_token)}


def test_join_says_when_the_head_has_taken_the_host_in(qd: Any, supervisor: Supervisor) -> None:
    words = ["--token-file", "t", "--name", "gpu-7", "--gpus", "4", "--address", "10.0.0.7"]
    result = qd("join", HEAD, *words)
    assert (result.code, result.out) == (0, f"gpu-7 has joined {HEAD}.\n")
    (told,) = supervisor.told
    assert told[:3] == ["start", "--head", HEAD]
    assert set(zip(told[3::2], told[4::2], strict=True)) == set(
        zip(words[0::2], words[1::2], strict=True)
    )


def test_joining_again_changes_nothing_and_needs_no_words(qd: Any, supervisor: Supervisor) -> None:
    write_record(joined())
    places().ray_token.write_text("x")
    supervisor.answer["started"] = False
    result = qd("join")
    assert (result.code, result.out, result.err) == (0, f"gpu-7 had joined {HEAD} already.\n", "")
    assert supervisor.told == [["start", "--head", HEAD]]


@pytest.mark.parametrize("words", [["join"], ["join", HEAD]])
def test_join_asks_for_the_head_and_its_token(
    qd: Any, supervisor: Supervisor, words: list[str]
) -> None:
    assert qd(*words).code == InvalidInput.exit_code
    assert supervisor.told == []


def test_a_host_that_is_not_taken_in_is_told_why(
    qd: Any, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervisor.says = "the token is wrong\n"
    write_record(joined())
    monkeypatch.setattr(hosts, "JOIN_TIMEOUT", 0.05)
    result = qd("join", HEAD, "--token-file", "t")
    assert result.code == 5
    assert "the token is wrong" in result.err, "Ray's own words"
    assert "not yet: no head" in result.err


def test_a_token_that_is_refused_is_not_tried_on(qd: Any, supervisor: Supervisor) -> None:
    supervisor.says = "Unauthenticated: RPC error: InvalidAuthToken: missing or incorrect\n"
    result = qd("join", HEAD, "--token-file", "t")
    assert result.code == NotAllowed.exit_code
    assert "refuses this token" in result.err
    assert supervisor.told[-1] == ["stop"]


def test_what_ray_said_the_last_time_does_not_count(
    qd: Any, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    places().daemon_logs.mkdir(parents=True)
    (places().daemon_logs / "ray.log").write_text("Ray runtime started.\n")
    supervisor.says = ""
    monkeypatch.setattr(hosts, "JOIN_TIMEOUT", 0.05)
    assert qd("join", HEAD, "--token-file", "t").code == 5


def test_leave(qd: Any, supervisor: Supervisor) -> None:
    write_record(joined())
    supervisor.answer = {"stopped": True, "ranks": ["c-j1.1"], "problems": []}
    result = qd("leave", "--force")
    assert (result.code, result.out) == (0, f"This host has left {HEAD}.\n")
    assert "stopped the ranks of c-j1.1" in result.err
    assert supervisor.told == [["stop", "--ranks"]]
    places().cluster_file.unlink()
    supervisor.answer = {"stopped": False, "ranks": [], "problems": []}
    assert qd("leave").out == "This host had joined nothing.\n"


def test_leave_does_not_stop_a_cluster(qd: Any, supervisor: Supervisor) -> None:
    write_record(joined(head=None))
    result = qd("leave")
    assert result.code == Conflict.exit_code
    assert "qd down" in result.err
    assert supervisor.told == []
