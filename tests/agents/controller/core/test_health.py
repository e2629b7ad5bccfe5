"""Gangs that hang and nodes that are not well, with real agents, guards and ranks."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Any

import psutil
import pytest

from tests.agents.controller.conftest import Plane, until

TALK = "while :; do echo step; sleep 0.1; done"


async def ranks_of(plane: Plane, job: str) -> list[dict[str, Any]]:
    view = await plane.get(f"/v1/jobs/{job}")
    ranks: list[dict[str, Any]] = view["attempts"][-1]["ranks"] if view["attempts"] else []
    return ranks if ranks and all(rank["pid"] for rank in ranks) else []


async def reason_of(plane: Plane, job: str, words: str) -> str:
    """The job's reason once it has these words in it; empty ones wait for an empty reason."""

    async def look() -> dict[str, Any] | None:
        view: dict[str, Any] = await plane.get(f"/v1/jobs/{job}")
        found = words in view["reason"] if words else not view["reason"]
        return view if found else None

    view = await until(look, what=lambda: f"{job}: {words!r}")
    return str(view["reason"])


async def kinds(plane: Plane, job: str | None = None) -> list[str]:
    events = await plane.lines("/v1/events", **({"job": job} if job else {}))
    return [event["kind"] for event in events]


async def test_a_stopped_rank_is_named_while_the_others_write(plane: Plane) -> None:
    job = await plane.submit(TALK, procs_per_node=2, on_stall={"after": 1.0})
    ranks = await until(lambda: ranks_of(plane, job))
    os.kill(ranks[1]["pid"], signal.SIGSTOP)
    reason = await reason_of(plane, job, "stopped")
    assert reason.startswith("rank 1 on n1 has been stopped (SIGSTOP) for ")
    view = await plane.get(f"/v1/jobs/{job}")
    assert (view["state"], view["attempt"], view["stalled"]) == ("RUNNING", 1, True)
    status = await plane.get("/v1/status")
    (problem,) = status["problems"]
    assert problem["what"].startswith(f"{job} ") and "has stalled" in problem["what"]
    assert status["state"] == "ok"  # the cluster is well
    story = await plane.get(f"/v1/jobs/{job}/explain")
    assert "rank 1 on n1" in story["summary"]
    assert story["unblock"] == [
        {"change": "see where its ranks are", "command": f"qd stacks {job}"}
    ]
    os.kill(ranks[1]["pid"], signal.SIGCONT)
    await reason_of(plane, job, "")
    assert (await plane.get(f"/v1/jobs/{job}"))["stalled"] is False
    assert (await plane.get("/v1/status"))["problems"] == []
    found = await kinds(plane, job)
    assert (found.count("job.stalled"), found.count("job.unstalled")) == (1, 1)
    await plane.post(f"/v1/jobs/{job}/cancel")
    await plane.wait(job)


async def test_a_stalled_gang_is_restarted_when_the_job_says_so(plane: Plane) -> None:
    flag = plane.root / "flag"
    job = await plane.submit(
        f"test -e {flag} && exit 0; touch {flag}; echo hangs; kill -STOP $$",
        max_restarts=1,
        grace=0.1,
        on_stall={"action": "restart", "after": 3.0},
    )
    view = await plane.wait(job)
    assert view["state"] == "SUCCEEDED"
    assert [attempt["state"] for attempt in view["attempts"]] == ["FAILED", "SUCCEEDED"]
    assert "rank 0 on n1 has been stopped" in view["attempts"][0]["reason"]


async def test_a_silent_gang_fails_when_the_job_says_so(plane: Plane) -> None:
    job = await plane.submit(
        "echo begins; exec sleep 100",
        procs_per_node=2,
        max_restarts=3,
        on_stall={"action": "fail", "after": 1.0},
    )
    view = await plane.wait(job)
    assert (view["state"], view["attempt"], view["exit_code"]) == ("FAILED", 1, 1)
    assert "and 1 other have been silent for" in view["reason"]
    story = await plane.get(f"/v1/jobs/{job}/explain")
    assert "silent" in story["summary"]


async def test_a_stall_is_still_known_to_a_new_controller(plane: Plane) -> None:
    job = await plane.submit("echo begins; exec sleep 100", on_stall={"after": 1.0})
    await reason_of(plane, job, "silent")
    await plane.restart()
    assert "silent" in (await plane.get(f"/v1/jobs/{job}"))["reason"]
    await until(lambda: any(live.stall for live in plane.controller.reconciler.live.values()))
    assert (await kinds(plane, job)).count("job.stalled") == 1
    await plane.post(f"/v1/jobs/{job}/cancel")
    await plane.wait(job)


async def test_nothing_is_concluded_from_a_node_that_does_not_answer(plane: Plane) -> None:
    job = await plane.submit(TALK, on_stall={"action": "fail", "after": 5.0})
    await until(lambda: ranks_of(plane, job))
    plane.fabric.node("n1").reachable = False
    await until(lambda: not plane.controller.links.links["n1"].online)
    plane.clock.skip(60)
    await plane.controller.health.look()
    assert (await plane.get(f"/v1/jobs/{job}"))["state"] == "RUNNING"
    plane.fabric.node("n1").reachable = True
    await plane.post(f"/v1/jobs/{job}/cancel")
    await plane.wait(job)


def break_gpu(plane: Plane, **changes: Any) -> None:
    """Let a GPU of n1 tell something else from now on."""
    source: Any = plane.nodes["n1"]._gpus
    original = type(source).sample
    source.sample = lambda bound: [{**gpu, **changes} for gpu in original(source, bound)]


async def node_in(plane: Plane, state: str, name: str = "n1") -> dict[str, Any]:
    async def look() -> dict[str, Any] | None:
        view: dict[str, Any] = await plane.get(f"/v1/nodes/{name}")
        return view if view["state"] == state else None

    await until(lambda: plane.controller.cluster.nodes.get(name))
    view: dict[str, Any] = await until(look, what=lambda: f"{name} {state}")
    return view


async def test_a_node_with_a_broken_gpu_is_quarantined_until_a_person_says_otherwise(
    make_plane: Callable[..., Any],
) -> None:
    plane: Plane = await make_plane(gpus=1)
    await node_in(plane, "READY")
    break_gpu(plane, xid=79)
    why = "GPU 0: Xid 79: it has fallen off the bus"
    assert (await node_in(plane, "QUARANTINED"))["reason"] == why
    job = await plane.submit("true", resources={"gpu": 1})
    await reason_of(plane, job, "n1 is quarantined")
    status = await plane.get("/v1/status")
    assert any("quarantined" in problem["what"] for problem in status["problems"])
    await plane.restart()
    assert (await node_in(plane, "QUARANTINED"))["reason"] == why
    assert (await kinds(plane)).count("node.quarantined") == 1
    view = await plane.post("/v1/nodes/n1/undrain")
    assert "its quarantine lifted (GPU 0: Xid 79" in view["note"]
    assert (await plane.wait(job))["state"] == "SUCCEEDED"
    seen = plane.controller.cluster.nodes["n1"].sample
    await until(lambda: plane.controller.cluster.nodes["n1"].sample is not seen)
    await plane.controller.health.look()
    assert (await node_in(plane, "READY"))["reason"] == "", "it was acknowledged"
    await plane.restart()
    await node_in(plane, "READY")
    break_gpu(plane, xid=79, ecc_errors=1)
    assert "1 uncorrected ECC error" in (await node_in(plane, "QUARANTINED"))["reason"]


async def test_a_gpu_that_cannot_be_read_for_long(make_plane: Callable[..., Any]) -> None:
    plane: Plane = await make_plane(gpus=2)
    await node_in(plane, "READY")
    break_gpu(plane, error="GPU is lost")
    await until(lambda: plane.controller.health._watches["n1"].unreadable)
    assert (await plane.get("/v1/nodes/n1"))["state"] == "READY"
    plane.clock.skip(31)
    reason = (await node_in(plane, "QUARANTINED"))["reason"]
    assert reason.startswith("GPU 0: it cannot be read: GPU is lost; GPU 1: ")


async def lose(plane: Plane, job: str, attempt: int) -> None:
    """Kill the guard of a job's attempt, and wait until the loss is recorded."""

    async def running() -> list[dict[str, Any]]:
        view = await plane.get(f"/v1/jobs/{job}")
        return await ranks_of(plane, job) if view["attempt"] == attempt else []

    ranks = await until(running)
    guard = psutil.Process(ranks[0]["pid"]).parent()
    assert guard is not None
    guard.kill()
    await until(lambda: _lost(plane, job, attempt))


async def _lost(plane: Plane, job: str, attempt: int) -> bool:
    view = await plane.get(f"/v1/jobs/{job}")
    return bool(view["attempts"][attempt - 1]["state"] == "LOST")


async def test_a_node_that_loses_gangs_again_and_again_is_quarantined(
    make_plane: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.placement.nodehealth.AT_ONCE", 0.0)  # each of these losses is one
    plane: Plane = await make_plane(nodes=2)
    await node_in(plane, "READY", "n1")
    await node_in(plane, "READY", "n2")
    await plane.post("/v1/nodes/n2/drain")
    first = await plane.submit("exec sleep 100")
    await lose(plane, first, 1)
    await lose(plane, first, 2)
    second = await plane.submit("exec sleep 100")
    assert (await plane.get("/v1/nodes/n1"))["state"] == "READY"
    await lose(plane, second, 1)
    view = await node_in(plane, "QUARANTINED")
    assert view["reason"] == f"it lost gangs 3 times within an hour, of {first} and {second}"
    await plane.post("/v1/nodes/n1/undrain")
    await plane.controller.health.look()
    await node_in(plane, "READY")
    for job in (first, second):
        await plane.post(f"/v1/jobs/{job}/cancel")
        await plane.wait(job)


async def test_a_clock_that_is_off_is_told(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agents.controller.core.health.SKEWED", 1)
    plane.controller.health._now = lambda: time.time() + 100

    async def told() -> list[str]:
        status = await plane.get("/v1/status")
        return [problem["what"] for problem in status["problems"] if "clock" in problem["what"]]

    (text,) = await until(told)
    assert text.startswith("clock: n1 is 10")
    assert text.endswith(" s behind")
    plane.controller.health._now = time.time

    async def well() -> bool:
        return not await told()

    await until(well)
