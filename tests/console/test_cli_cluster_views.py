"""status, doctor, nodes, top, events, explain, stacks."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path
from typing import Any

import pytest

from console.cli.doctor import local_checks
from console.cli.explain import rank_list
from console.client import Client
from console.text import width
from jobs.base.errors import Conflict, NotFound
from jobs.base.places import places
from tests.console.fake_controller import CUT, FakeController, Reply, Request
from tests.console.sample_views import event, failure, gpu, job, node, status


def test_status(qd: Any, controller: FakeController) -> None:
    problem = {"what": "n2 is lost", "fix": "Look at n2.", "severity": "warning"}
    controller.on("GET /v1/status", status(state="degraded", problems=[problem], uptime=7500.0))
    result = qd("status")
    assert result.code == 0
    for text in ("degraded", "1 node, 2 GPUs (sim), 8 CPUs", "1 running, 2 queued", "2h05m"):
        assert text in result.out
    assert "warning: n2 is lost\n  fix: Look at n2.\n" in result.out
    document = json.loads(qd("status", "--json").out)
    assert document["state"] == "degraded"
    assert document["socket"] == str(controller.socket)


def test_status_of_nothing_is_a_document_too(qd: Any) -> None:
    result = qd("status", "--json")
    assert (result.code, result.err) == (5, "")
    document = json.loads(result.out)
    assert document["state"] == "unreachable"
    assert {"version", "cluster", "problems"} <= set(document)
    assert {"nodes", "gpus", "simulated"} <= set(document["cluster"])
    assert "`qd up`" in qd("status").out


def test_doctor_without_a_control_plane(qd: Any) -> None:
    result = qd("doctor", "--json")
    assert result.code == 1
    checks = {check["name"]: check for check in json.loads(result.out)}
    assert not checks["control plane"]["ok"]
    assert "qd up" in checks["control plane"]["fix"]
    assert checks["python"]["ok"]
    assert "fix: Start it with `qd up`." in qd("doctor").out


def test_doctor_tells_what_the_control_plane_found(qd: Any, controller: FakeController) -> None:
    controller.on("GET /v1/status", status())
    told = {"name": "database", "ok": False, "detail": "no room", "fix": "Free some."}
    controller.on("GET /v1/doctor", [told])
    result = qd("doctor")
    assert result.code == 1
    assert "FAIL  database" in result.out
    assert "fix: Free some." in result.out
    controller.on("GET /v1/status", status(version="9.9"))
    assert "version 9.9, this is 0.1.0" in qd("doctor").out


def test_a_clock_in_the_past_and_a_folder_that_is_not_there(home: Path) -> None:
    good = {check["name"]: check for check in local_checks(places(), time.time())}
    assert good["clock"]["ok"]
    assert str(home) in good["disk"]["detail"]
    bad = {check["name"]: check for check in local_checks(places(), 0.0)}
    assert not bad["clock"]["ok"]
    assert bad["clock"]["fix"]


def test_nodes(qd: Any, controller: FakeController) -> None:
    real = node("n2", gpus=[gpu(0, simulated=False)], free_gpus=0.5, state="DRAINING")
    bare = node("n3", gpus=[], jobs=[], seen_at=None)
    controller.on("GET /v1/nodes", [node(), real, bare])
    rows = [row.split() for row in qd("nodes").out.splitlines()]
    assert rows[1][:5] == ["n1", "READY", "2/2", "sim", "93%"]
    assert rows[2][:4] == ["n2", "DRAINING", "0.5/1", "93%"]
    assert rows[3][2] == "-"
    assert "never" in rows[3]
    assert len(json.loads(qd("nodes", "--json").out)) == 3
    controller.on("GET /v1/nodes", [])
    assert "qd up" in qd("nodes").err


def test_node(qd: Any, controller: FakeController) -> None:
    throttled = gpu(1, throttle=["power cap"], ecc_errors=2, util=None, power=None)
    controller.on("GET /v1/nodes/n 1", node("n 1", gpus=[gpu(0), throttled]))
    out = qd("node", "n 1").out
    for text in ("8 cores, 41% busy", "0 GPUs, 6 CPUs", "640W", "63°", "simulated"):
        assert text in out, text
    assert "simulated, power cap, 2 ECC errors" in out
    controller.on("GET /v1/nodes/n9", NotFound("no node n9"))
    assert qd("node", "n9").code == 3


def test_drain_and_undrain(qd: Any, controller: FakeController, clock: Any) -> None:
    controller.on("POST /v1/nodes/n1/drain", node(state="DRAINING"))
    assert qd("drain", "n1", "--reason", "ECC").out == "n1 DRAINING  still runs j1\n"
    assert controller.requests[0].json == {"reason": "ECC"}
    controller.on("POST /v1/nodes/n1/undrain", CUT, Conflict("n1 is lost"))
    assert qd("undrain", "n1").code == 6
    lifted = {
        **node(state="READY"),
        "note": "n1 undrained by mira, and its quarantine lifted (Xid)",
    }
    controller.on("POST /v1/nodes/n1/undrain", lifted)
    result = qd("undrain", "n1")
    assert result.out == "n1 READY\n"
    assert "its quarantine lifted (Xid)" in result.err


@pytest.fixture
def cluster(controller: FakeController) -> FakeController:
    controller.on("GET /v1/status", status())
    controller.on("GET /v1/nodes", [node()])
    controller.on("GET /v1/jobs", {"jobs": [job(1)], "next": None, "total": 1})
    return controller


def test_top_once(qd: Any, cluster: FakeController) -> None:
    for words in (["top"], ["top", "--once"]):
        result = qd(*words)
        assert result.code == 0
        assert "\x1b" not in result.out
        assert "sim" in result.out
        assert "digits" in result.out
    document = json.loads(qd("top", "--once", "--json").out)
    assert set(document) == {"at", "status", "nodes", "jobs"}


def test_top_refreshes_until_it_is_left(
    qd: Any, cluster: FakeController, terminal: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3:
            raise KeyboardInterrupt
        cluster.on("GET /v1/status", CUT if len(slept) == 1 else status())

    defaults = dict(Client.__init__.__kwdefaults__ or {})
    monkeypatch.setattr(Client.__init__, "__kwdefaults__", {**defaults, "sleep": sleep})
    terminal(100)
    result = qd("top", "--interval", "5")
    assert result.code == 130
    assert slept == [5.0, 5.0, 5.0]
    first, second, third = result.out.split("\x1b[H")[1:]
    assert "was cut; this is how it was at" in second
    assert "n1" in second
    assert "was cut" not in first + third


def test_top_fits_the_screen(
    qd: Any, cluster: FakeController, terminal: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.on("GET /v1/nodes", [node(f"n{i}") for i in range(50)])
    terminal(60)
    monkeypatch.setenv("LINES", "10")
    monkeypatch.setenv("NO_COLOR", "1")

    def leave(seconds: float) -> None:
        raise KeyboardInterrupt

    defaults = dict(Client.__init__.__kwdefaults__ or {})
    monkeypatch.setattr(Client.__init__, "__kwdefaults__", {**defaults, "sleep": leave})
    frame = qd("top").out.split("\x1b[H")[1].removesuffix("\x1b[J")
    rows = [row.removesuffix("\x1b[K") for row in frame.splitlines()]
    assert len(rows) == 9
    assert all(width(row) <= 60 for row in rows)
    assert rows[-1].endswith("more lines")


def served_events(request: Request) -> Reply:
    """450 events, the newest of them when no event is named to start from."""
    after, limit = int(request.one("after") or 0), int(request.one("limit") or 200)
    first = after + 1 if after else 451 - limit
    return Reply.stream([event(n, f"message {n}") for n in range(first, 451)][:limit])


def test_events_shows_the_newest(qd: Any, controller: FakeController) -> None:
    controller.on("GET /v1/events", served_events)
    out = [json.loads(text)["id"] for text in qd("events", "--json", "-n", "3").out.splitlines()]
    assert out == [448, 449, 450]
    out = [json.loads(x)["id"] for x in qd("events", "--json", "--after", "5").out.splitlines()]
    assert out == [*range(6, 451)]
    assert "message 450" in qd("events", "--job", "1").out
    assert controller.requests[-1].one("job") == "j1"
    assert qd("events", "-n", "0").out == ""


def test_events_followed_through_a_restart(qd: Any, controller: FakeController, clock: Any) -> None:
    asked: list[tuple[str | None, str | None]] = []

    def serve(request: Request) -> Reply:
        asked.append((request.one("after"), request.one("follow")))
        if len(asked) == 1:
            return Reply.stream([event(1, "one")])
        if len(asked) == 2:
            return Reply.stream([event(2, "two")], cut=True)
        return Reply.stream([event(3, "three")])

    controller.on("GET /v1/events", serve)
    result = qd("events", "-f", "-n", "0", "--json")
    assert [json.loads(text)["id"] for text in result.out.splitlines()] == [2, 3]
    assert asked == [(None, None), ("1", "1"), ("2", "1")]


def test_explain(qd: Any, controller: FakeController) -> None:
    view = {
        "id": "j1",
        "state": "QUEUED",
        "summary": "needs 8 GPUs on one node; n1 has 2 free",
        "reasons": ["j0 holds 6"],
        "unblock": [
            {"change": "ask for 2 GPUs", "command": "qd submit --gpus 2"},
            {"change": "wait for j0", "command": ""},
        ],
        "first_failure": failure(),
        "story": ["12:03:11 queued"],
    }
    controller.on("GET /v1/jobs/j1/explain", view)
    out = qd("explain", "j1").out
    for text in ("needs 8 GPUs", "- j0 holds 6", "- ask for 2 GPUs: qd submit --gpus 2"):
        assert text in out
    assert "  - wait for j0\n" in out
    assert "rank 1 on n1: exit code 3" in out
    assert "12:03:11 queued" in out
    assert json.loads(qd("explain", "j1", "--json").out) == view
    assert "It would start with any of these:" in out
    controller.on("GET /v1/jobs/j1/explain", {**view, "state": "RUNNING"})
    assert "What to do:" in qd("explain", "j1").out


def test_stacks(qd: Any, controller: FakeController) -> None:
    groups = [
        {"ranks": [0, 1, 3], "thread": "MainThread", "frames": ["all_reduce", "train"]},
        {"ranks": [2], "thread": "MainThread", "frames": ["read", "load"]},
    ]
    controller.on("GET /v1/jobs/j1/stacks", {"id": "j1", "groups": groups, "failed": {"4": "gone"}})
    result = qd("stacks", "j1")
    assert "3 ranks: 0-1, 3  thread MainThread\n    all_reduce\n    train\n" in result.out
    assert "1 rank: 2" in result.out
    assert "rank 4: its stack could not be read: gone" in result.err


@pytest.mark.parametrize(
    ("ranks", "text"),
    [([], "0 ranks: "), ([5], "1 rank: 5"), ([3, 1, 2, 7, 8], "5 ranks: 1-3, 7-8")],
)
def test_rank_list(ranks: list[int], text: str) -> None:
    assert rank_list(ranks) == text


def test_forgetting_a_node_asks_first(
    qd: Any, controller: FakeController, monkeypatch: pytest.MonkeyPatch
) -> None:
    controller.on("GET /v1/nodes/gpu-1", node("gpu-1", state="LOST"))
    controller.on("POST /v1/nodes/gpu-1/forget", node("gpu-1", state="LOST"))
    assert qd("forget", "gpu-1").code == 2, "a script has to say --yes"
    assert qd("forget", "gpu-1", "--yes").out == "gpu-1 is forgotten\n"
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    assert qd("forget", "gpu-1").code != 0
    assert len(controller.asked("POST /v1/nodes/gpu-1/forget")) == 1


def test_maintenance_names_the_nodes_that_have_not_confirmed_it(
    qd: Any, controller: FakeController
) -> None:
    view: dict[str, Any] = {
        "since": "2026-11-29T14:00:00.000Z",
        "until": "2026-11-29T14:30:00.000Z",
        "left": 1800.0,
        "reason": "new kernel",
        "user": "ada",
        "attempts": 3,
        "unanswered": [],
    }
    controller.on("POST /v1/maintenance", view)
    done = qd("maintenance", "head", "--for", "30m", "--reason", "new kernel")
    assert done.code == 0
    assert "All nodes have confirmed it; 3 jobs will run on." in done.out
    asked = json.loads(controller.asked("POST /v1/maintenance")[-1].body)
    assert asked == {"seconds": 1800.0, "reason": "new kernel"}
    view["unanswered"] = [{"node": "gpu-7", "jobs": ["j4", "j5"]}]
    done = qd("maintenance", "head", "--for", "30m")
    assert done.code == 1, "a script must not go on"
    assert "gpu-7 has not confirmed it: ranks of j4 and j5 there stop" in done.err
    controller.on("GET /v1/maintenance", view)
    assert "(30m00s left), by ada: new kernel" in qd("maintenance").out
    controller.on("GET /v1/maintenance", None)
    assert "not in maintenance" in qd("maintenance").err


def test_confirming_that_a_node_is_dead_warns_of_what_it_means(
    qd: Any, controller: FakeController, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = node("gpu-1", state="LOST", jobs=["j4"], age=720.0)
    controller.on("GET /v1/nodes/gpu-1", lost)
    controller.on("POST /v1/nodes/gpu-1/confirm-dead", {**lost, "jobs": []})
    refused = qd("confirm-dead", "gpu-1")
    assert refused.code == 2, "a script has to say --yes"
    assert "if ranks of j4 still run there, a second copy of them will start" in refused.err
    assert qd("confirm-dead", "gpu-1", "--yes").out == "gpu-1 counts as dead; j4 may restart\n"
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    assert qd("confirm-dead", "gpu-1").code != 0
    assert len(controller.asked("POST /v1/nodes/gpu-1/confirm-dead")) == 1
