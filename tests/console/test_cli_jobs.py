from __future__ import annotations

import json
from typing import Any

import pytest

from jobs.base.errors import Conflict, NotFound
from jobs.base.states import TERMINAL
from tests.console.fake_controller import CUT, FakeController, Reply, Request
from tests.console.sample_views import attempt, detail, failure, job


class Shelf:
    """Jobs that are listed the way docs/api.md says."""

    def __init__(self, jobs: list[dict[str, Any]]) -> None:
        self.jobs = jobs

    def __call__(self, request: Request) -> dict[str, Any]:
        states = request.query.get("state", [])
        found = [j for j in reversed(self.jobs) if not states or j["state"] in states]
        before = request.one("before")
        rest = [j for j in found if before is None or int(j["id"][1:]) < int(before[1:])]
        limit = int(request.one("limit") or 50)
        page = rest[:limit]
        return {
            "jobs": page,
            "next": page[-1]["id"] if len(rest) > limit else None,
            "total": len(found),
        }


@pytest.fixture
def shelf(controller: FakeController) -> Shelf:
    jobs = [job(n, "SUCCEEDED" if n not in (2, 40) else "RUNNING") for n in range(1, 41)]
    shelf = Shelf(jobs)
    controller.on("GET /v1/jobs", shelf)
    return shelf


def ids(out: str) -> list[int]:
    return [int(j["id"][1:]) for j in json.loads(out)]


def test_jobs_shows_all_active_ones_and_the_newest_that_ended(qd: Any, shelf: Shelf) -> None:
    result = qd("jobs", "--json")
    assert ids(result.out) == [*range(40, 19, -1), 2]
    assert "22 of 40 jobs" in result.err
    assert "--before j20" in result.err


def test_a_stream_says_how_far_it_is(qd: Any, controller: FakeController) -> None:
    values = {"records": 1234, "rejected": 2, "records_per_s": 96.7, "drifts": 1, "releases": 3}
    at = "2026-01-01T10:03:00.000Z"
    metrics = {f"stream/{name}": {"value": v, "step": 1234, "at": at} for name, v in values.items()}
    spec = {"command": "python learn.py", "stream": {"source": {"folder": "/in"}}}
    controller.on("GET /v1/jobs/j1", lambda request: detail(1, spec=spec, metrics=metrics))
    told = "1234 records, 2 bad, 96.7 per s, 3 releases, 1 drift, all read"
    assert told in qd("job", "j1").out
    metrics["stream/behind"] = {"value": 2048.0, "step": 1234, "at": at}
    assert "2KiB not read yet" in qd("job", "j1").out


def test_jobs_by_page_and_all(qd: Any, shelf: Shelf) -> None:
    result = qd("jobs", "--before", "j20", "--limit", "3", "--json")
    assert ids(result.out) == [19, 18, 17]
    assert "--before j17" in result.err
    result = qd("jobs", "--all", "--json")
    assert ids(result.out) == [*range(40, 0, -1)]
    assert result.err == ""


def test_all_pages_are_read(qd: Any, controller: FakeController) -> None:
    controller.on("GET /v1/jobs", Shelf([job(n, "FAILED") for n in range(1, 502)]))
    assert len(json.loads(qd("jobs", "--all", "--json").out)) == 501


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        (["running"], {"RUNNING"}),
        (["FAILED", "cancelled"], {"FAILED", "CANCELLED"}),
        (["finished"], TERMINAL),
    ],
)
def test_jobs_by_state(
    qd: Any, controller: FakeController, shelf: Shelf, given: list[str], asked: set[str]
) -> None:
    qd("jobs", *(word for state in given for word in ("--state", state)))
    assert set(controller.requests[0].query["state"]) == asked


def test_filters_reach_the_control_plane(qd: Any, controller: FakeController, shelf: Shelf) -> None:
    qd("jobs", "--user", "mira", "--name", "digits", "-q", "lr=0.1")
    for request in controller.requests:
        assert (request.one("user"), request.one("name")) == ("mira", "digits")
        assert request.one("q") == "lr=0.1"


def test_no_jobs_teach(qd: Any, controller: FakeController) -> None:
    controller.on("GET /v1/jobs", Shelf([]))
    result = qd("jobs")
    assert (result.code, result.out) == (0, "")
    assert "qd submit -- echo hi" in result.err
    assert qd("jobs", "--json").out == "[]\n"


def test_a_hostile_name_stays_text(qd: Any, controller: FakeController) -> None:
    controller.on("GET /v1/jobs", Shelf([job(1, name="\x1b]0;owned\x07\n")]))
    assert "\x1b" not in qd("jobs").out
    assert "␛]0;owned␇␊" in qd("jobs").out


def test_a_narrow_terminal_cuts_what_may_be_cut(
    qd: Any, controller: FakeController, terminal: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    controller.on("GET /v1/jobs", Shelf([job(1, name="名" * 60, reason="x" * 200)]))
    assert "x" * 200 in qd("jobs").out
    terminal(80)
    out = qd("jobs").out
    assert all(len(line) <= 80 for line in out.splitlines())
    assert "…" in out
    assert "RUNNING" in out


def test_job_in_full(qd: Any, controller: FakeController) -> None:
    failed = attempt(1, "FAILED", first_failure=failure(), ended_at="2026-01-01T10:01:00.000Z")
    controller.on("GET /v1/jobs/j1", detail(attempts=[failed, attempt(2)]))
    out = qd("job", "1").out
    for text in (
        "python train.py",
        "attempt j1.2",
        "attempt j1.1",
        "first failure rank 1 on n1: exit code 3",
        "| ValueError: nan",
        "val_acc",
        "0.975",
        "out/model.onnx",
        "4KiB",
        "0123456789ab main with changes",
        "SIM-1",
    ):
        assert text in out, text
    assert out.index("attempt j1.2") < out.index("attempt j1.1")


def test_job_with_thousands_of_ranks_lists_the_odd_ones(
    qd: Any, controller: FakeController
) -> None:
    ranks = [{**attempt()["ranks"][0], "rank": n} for n in range(4000)]
    ranks[77] |= {"state": "LOST"}
    controller.on("GET /v1/jobs/j1", detail(attempts=[attempt(ranks=ranks)]))
    out = qd("job", "j1").out
    assert "4000 ranks, 1 of them out of line" in out
    assert len(out.splitlines()) < 40


def test_job_ids(qd: Any, controller: FakeController) -> None:
    for given, path in (("j1.2", "/v1/jobs/j1.2"), ("last", "/v1/jobs/last"), ("7", "/v1/jobs/j7")):
        controller.on(f"GET {path}", detail())
        assert json.loads(qd("job", given, "--json").out)["id"] == "j1"
        assert controller.requests[-1].path == path


def test_cancel_goes_on_after_a_failure(qd: Any, controller: FakeController) -> None:
    controller.on("POST /v1/jobs/j1/cancel", job(1, "STOPPING"))
    controller.on("POST /v1/jobs/j2/cancel", NotFound("no job j2"))
    controller.on("POST /v1/jobs/j3/cancel", Conflict("no"))
    controller.on("POST /v1/jobs/j4/cancel", job(4, "CANCELLED"))
    result = qd("cancel", "j1", "j2", "j3", "j4", "--grace", "1m")
    assert result.code == 3
    assert result.out == "j1 STOPPING\nj4 CANCELLED\n"
    assert "no job j2" in result.err
    assert controller.asked("POST /v1/jobs/j1/cancel")[0].json == {"grace": 60.0}


def test_cancel_as_json(qd: Any, controller: FakeController) -> None:
    controller.on("POST /v1/jobs/j1/cancel", job(1, "STOPPING"))
    assert [j["state"] for j in json.loads(qd("cancel", "j1", "--json").out)] == ["STOPPING"]


def test_cancel_is_sent_again_when_the_answer_is_lost(
    qd: Any, controller: FakeController, clock: Any
) -> None:
    controller.on("POST /v1/jobs/j1/cancel", CUT, job(1, "STOPPING"))
    assert qd("cancel", "j1").code == 0


def test_retry(qd: Any, controller: FakeController) -> None:
    controller.on("POST /v1/jobs/j1/retry", job(1, "QUEUED", reason="starts next"))
    assert qd("retry", "j1").out == "j1 QUEUED starts next\n"


@pytest.mark.parametrize(
    ("state", "over", "code"),
    [
        ("SUCCEEDED", {}, 0),
        ("FAILED", {"exit_code": 3}, 3),
        ("FAILED", {"exit_code": 137}, 137),
        ("FAILED", {"exit_code": -9}, 137),
        ("FAILED", {"exit_code": 0}, 1),
        ("FAILED", {"exit_code": 300}, 1),
        ("CANCELLED", {"exit_code": 143}, 1),
    ],
)
def test_wait_ends_as_the_job_did(
    qd: Any, controller: FakeController, state: str, over: dict[str, Any], code: int
) -> None:
    controller.on("GET /v1/jobs/j1/wait", job(1, state, **over))
    result = qd("wait", "j1")
    assert result.code == code
    assert result.out.startswith(f"j1 {state} 3m14s")


@pytest.mark.parametrize(
    ("signal", "code"),
    [("SIGKILL", 137), ("SIGSEGV", 139), ("SIGRTMIN+1", 163), ("SIGRTMAX", 192), (None, 1)],
)
def test_wait_for_a_job_that_a_signal_ended(
    qd: Any, controller: FakeController, signal: str | None, code: int
) -> None:
    dead = attempt(first_failure=failure(exit_code=None, signal=signal))
    controller.on("GET /v1/jobs/j1/wait", job(1, "FAILED", exit_code=None))
    controller.on("GET /v1/jobs/j1", detail(1, "FAILED", attempts=[dead]))
    assert qd("wait", "j1").code == code


def test_wait_polls_until_the_end_through_a_restart(
    qd: Any, controller: FakeController, clock: Any
) -> None:
    running, done = job(1), job(1, "SUCCEEDED")
    controller.on("GET /v1/jobs/last/wait", running)
    controller.on("GET /v1/jobs/j1/wait", running, CUT, CUT, running, done)
    result = qd("wait", "last")
    assert result.code == 0
    assert result.err == (
        "connection lost; waiting for the control plane to come back\nconnected again\n"
    )


def test_wait_gives_up_on_a_control_plane_that_stays_away(
    qd: Any, controller: FakeController, clock: Any
) -> None:
    controller.on("GET /v1/jobs/j1/wait", job(1), CUT)
    assert qd("wait", "j1").code == 5
    assert clock() >= 1120


def test_wait_times_out(qd: Any, controller: FakeController, clock: Any) -> None:
    def hold(request: Request) -> Reply:
        from console.client import Client

        defaults = Client.__init__.__kwdefaults__
        assert defaults is not None
        defaults["sleep"](float(request.one("timeout") or 0))
        return Reply.of(job(1))

    controller.on("GET /v1/jobs/j1/wait", hold)
    result = qd("wait", "j1", "--timeout", "30s", "--json")
    assert (result.code, result.out) == (124, "")
    asked = [request.one("timeout") for request in controller.requests]
    assert asked == ["0", "25.0", "5.0"]


def test_wait_for_several(qd: Any, controller: FakeController) -> None:
    controller.on("GET /v1/jobs/j1/wait", job(1, "SUCCEEDED"))
    controller.on("GET /v1/jobs/j2/wait", job(2, "FAILED", exit_code=7))
    controller.on("GET /v1/jobs/j3/wait", job(3, "FAILED", exit_code=9))
    result = qd("wait", "j1", "j2", "j3", "--json")
    assert result.code == 7
    assert [j["id"] for j in json.loads(result.out)] == ["j1", "j2", "j3"]
