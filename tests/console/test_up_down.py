"""`qd up` and `qd down`, with the supervisor played by the test; one test runs the real cluster."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agents.daemon import leave_words
from console.cli import cluster
from console.client import Client
from jobs.base import python
from jobs.base.errors import Conflict, Damaged, Unreachable
from jobs.base.places import places
from tests.console.fake_controller import FakeController
from tests.console.sample_views import job

STATUS = {
    "state": "ok",
    "version": "0.1.0",
    "cluster": {"nodes": 1, "gpus": 2, "simulated": True, "cpus": 2.0, "jobs": {}},
    "problems": [],
    "ray": "connected",
}
READY = {"name": "n1", "state": "READY"}


class Supervisor:
    """Notes what it is told and answers as the real one does."""

    def __init__(self, **answer: Any) -> None:
        self.told: list[list[str]] = []
        self.answer = answer

    def __call__(self, *words: str) -> dict[str, Any]:
        self.told.append(list(words))
        return {"problems": [], **self.answer}


@pytest.fixture
def supervisor(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Supervisor]:
    def make(**answer: Any) -> Supervisor:
        fake = Supervisor(**answer)
        monkeypatch.setattr(cluster, "supervisor", fake)
        return fake

    return make


def page(*jobs: dict[str, Any], following: str | None = None) -> dict[str, Any]:
    return {"jobs": list(jobs), "next": following, "total": len(jobs)}


def test_up_waits_for_a_node_and_says_what_there_is(
    qd: Any, controller: FakeController, supervisor: Any
) -> None:
    told = supervisor(started=True, cluster={})
    controller.on("GET /v1/status", STATUS | {"ray": "connecting"}, STATUS)
    controller.on("GET /v1/nodes", [], [READY | {"state": "LOST"}], [READY])
    result = qd("up", "--simulate-gpus", "2", "--cpus", "2")
    assert (result.code, result.out) == (0, "The cluster is up: 1 node, 2 CPUs, 2 GPUs (sim).\n")
    assert told.told == [["start", "--simulate-gpus", "2", "--cpus", "2"]]
    assert "starting Ray" in result.err
    assert "Ray answers" in result.err


def test_up_again_changes_nothing_and_says_so(
    qd: Any, controller: FakeController, supervisor: Any
) -> None:
    supervisor(started=False, cluster={})
    controller.on("GET /v1/status", STATUS)
    controller.on("GET /v1/nodes", [READY])
    result = qd("up")
    assert (result.code, result.err) == (0, "")
    assert "was up already" in result.out
    document = json.loads(qd("up", "--json").out)
    assert document["started"] is False
    assert document["cluster"]["gpus"] == 2
    assert document["socket"] == str(controller.socket)


def test_a_cluster_that_does_not_come_up_shows_its_logs(
    qd: Any, home: Path, supervisor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervisor(started=True, cluster={})
    monkeypatch.setattr(cluster, "READY_TIMEOUT", 0.0)
    logs = places().daemon_logs
    logs.mkdir(parents=True)
    (logs / "controller.log").write_text("\n".join(f"line {n}" for n in range(99)) + "\nno disk\n")
    result = qd("up")
    assert result.code == 5
    assert "no disk" in result.err
    assert "line 5\n" not in result.err, "only the end of it"
    assert "not ready after 0 s: the controller does not answer" in result.err


def test_a_controller_that_cannot_start_says_why_everywhere(
    qd: Any, home: Path, supervisor: Any
) -> None:
    """At once, and by the commands that people type then."""
    supervisor(started=True, cluster={})
    leave_words(places().last_words, Damaged("the registry is damaged: a page", "Restore it."))
    for words in (("up",), ("status",), ("jobs",)):
        result = qd(*words)
        assert result.code == 5
        assert "the controller does not start: the registry is damaged: a page" in (
            result.out + result.err
        )
        assert "Restore it." in result.out + result.err
    assert "Restore it." in qd("doctor").out


def test_what_is_missing_is_named(controller: FakeController) -> None:
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += 10

    client = Client(controller.socket)
    controller.on("GET /v1/status", STATUS | {"ray": "connecting"})
    controller.on("GET /v1/nodes", [])
    with pytest.raises(Unreachable, match="after 30 s: Ray does not answer"):
        cluster.wait_ready(client, 30, lambda: now[0], sleep)
    controller.on("GET /v1/status", STATUS)
    with pytest.raises(Unreachable, match="no node is ready"):
        cluster.wait_ready(client, 30, lambda: now[0], sleep)


def test_down_stops_an_idle_cluster(qd: Any, controller: FakeController, supervisor: Any) -> None:
    told = supervisor(stopped=True, ranks=[])
    controller.on("GET /v1/jobs", page())
    result = qd("down")
    assert (result.code, result.out) == (0, "The cluster is down.\n")
    assert told.told == [["stop"]]
    states = controller.asked("GET /v1/jobs")[0].query["state"]
    assert "RUNNING" in states
    assert "SUCCEEDED" not in states


def test_down_refuses_while_jobs_have_not_ended(
    qd: Any, controller: FakeController, supervisor: Any
) -> None:
    told = supervisor(stopped=True, ranks=[])
    controller.on(
        "GET /v1/jobs", page(job(3), following="j3"), page(job(1, "QUEUED"), following=None)
    )
    result = qd("down")
    assert result.code == Conflict.exit_code
    assert "2 jobs have not ended: j3, j1" in result.err
    assert "--force" in result.err
    assert told.told == []


def test_down_by_force_cancels_first(qd: Any, controller: FakeController, supervisor: Any) -> None:
    told = supervisor(stopped=True, ranks=[])
    controller.on("GET /v1/jobs", page(job(2), job(1)))
    controller.on("POST /v1/deployments-hold", {"held": True})
    controller.on("POST /v1/jobs/j2/cancel", job(2, "STOPPING"))
    controller.on("POST /v1/jobs/j1/cancel", Conflict("j1 has ended"))
    controller.on("GET /v1/jobs/j2/wait", job(2, "STOPPING"), job(2, "CANCELLED"))
    controller.on("GET /v1/jobs/j1/wait", job(1, "SUCCEEDED"))
    result = qd("down", "--force", "--json")
    assert result.code == 0
    assert json.loads(result.out) == {
        "stopped": True,
        "ranks": [],
        "problems": [],
        "cancelled": ["j2", "j1"],
    }
    assert told.told == [["stop", "--ranks"]]


def test_down_works_without_a_controller(qd: Any, home: Path, supervisor: Any) -> None:
    told = supervisor(stopped=False, ranks=["c-j1.1"])
    result = qd("down", "--force")
    assert (result.code, result.out) == (0, "No cluster was running.\n")
    assert "stopped the ranks of c-j1.1" in result.err
    assert told.told == [["stop", "--ranks"]]


def test_down_works_with_a_controller_that_cannot_read(
    qd: Any, controller: FakeController, supervisor: Any
) -> None:
    told = supervisor(stopped=True, ranks=[], problems=["cannot remove /x"])
    controller.on("GET /v1/jobs", Damaged("the registry is damaged", "Restore it."))
    result = qd("down")
    assert result.code == Damaged.exit_code
    assert "qd down --force" in result.err
    assert told.told == []
    result = qd("down", "--force")
    assert result.code == 0
    assert "the registry is damaged" in result.err
    assert "cannot remove /x" in result.err
    assert told.told == [["stop", "--ranks"]]


def test_errors_of_the_supervisor_keep_their_code(
    home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = tmp_path / "python"
    monkeypatch.setattr(sys, "executable", str(program))
    document = json.dumps(Conflict("another size", "do this").to_json())
    program.write_text(f"#!/bin/sh\necho '{document}'\nexit 6\n")
    program.chmod(0o700)
    with pytest.raises(Conflict, match="another size"):
        cluster.supervisor("start")
    program.write_text("#!/bin/sh\necho 'no such module' >&2\nexit 1\n")
    with pytest.raises(Unreachable, match="no such module"):
        cluster.supervisor("start")


def test_in_the_foreground_qd_becomes_the_supervisor(
    qd: Any, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    became: list[list[str]] = []

    def become(program: str, words: list[str]) -> None:
        became.append(words[1:])
        raise KeyboardInterrupt  # it does not come back

    monkeypatch.setattr(os, "execv", become)
    qd("up", "--foreground", "--listen", "10.0.0.1", "--ports", "20000", "--cpus", "2")
    qd("join", "10.0.0.1:20000", "--foreground", "--token-file", "/etc/t", "--name", "w1")
    run = [*python.module("agents.supervisor")[1:], "run"]
    assert became == [
        [*run, "--cpus", "2", "--address", "10.0.0.1", "--ports", "20000"],
        [*run, "--head", "10.0.0.1:20000", "--name", "w1", "--token-file", "/etc/t"],
    ]


@pytest.mark.ray
def test_a_real_cluster_from_up_to_down() -> None:
    """One command starts it, a second one changes nothing, another leaves nothing."""
    home = Path(tempfile.mkdtemp(prefix="qdt-"))
    environ = os.environ | {"QD_HOME": str(home)}

    def qd(*words: str) -> tuple[int, Any]:
        program = "import sys; from console.cli.main import main; sys.exit(main())"
        command = [sys.executable, "-c", program, *words, "--json"]
        done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
        return done.returncode, json.loads(done.stdout or done.stderr.splitlines()[-1])

    try:
        code, document = qd("up", "--simulate-gpus", "2", "--cpus", "2")
        assert code == 0, document
        assert document["cluster"] | {"jobs": {}} == STATUS["cluster"]
        assert qd("up", "--cpus", "2")[1]["started"] is False
        assert qd("up", "--cpus", "1")[0] == Conflict.exit_code
        assert places(environ).socket.stat().st_mode & 0o077 == 0
    finally:
        code, document = qd("down", "--force")
        left = places(environ).ray_temp
        again = qd("down")
        shutil.rmtree(home, ignore_errors=True)
    assert (code, document["stopped"]) == (0, True)
    assert not left.exists()
    assert again[1]["stopped"] is False
