"""Monitors on a control plane of its own: a real model server's log, brought from its node."""

from __future__ import annotations

import http.client
import json
import random
from collections.abc import Sequence
from typing import Any

import pytest
from sqlmodel import Session, col, select

from jobs.base.errors import Conflict, NotFound
from jobs.store import blobrefs
from jobs.store.monitortables import MonitorRow
from jobs.store.tables import AuditRow, JobRow
from tests.agents.controller.conftest import Plane, until
from tests.agents.controller.services.test_models import deploy, over, take_in, times

LEAST = 60
MONITOR = {"every": 3600, "least": LEAST, "alarms": 30, "features": ["age", "height"]}


async def serving(plane: Plane, **monitor: Any) -> dict[str, Any]:
    version = await take_in(plane, {"times.onnx": times(2)})
    spec = {"log": {"sample": 1}, "monitor": MONITOR | monitor}
    await deploy(plane, version, target="staging", spec=spec)
    return await over(plane, "staging")


def send(view: dict[str, Any], mean: float, seed: int, count: int = 2 * LEAST) -> None:
    """Requests whose first feature has this mean."""
    dice = random.Random(seed)
    rows = [(dice.gauss(mean, 1), dice.gauss(0, 1)) for _ in range(count)]
    ask(view, rows)


def ask(view: dict[str, Any], rows: Sequence[Sequence[float]], name: str = "") -> None:
    """Requests of one row each, named by their number where there is a name."""
    connection = http.client.HTTPConnection(view["url"].removeprefix("http://"), timeout=10)
    for number, row in enumerate(rows):
        headers = {"x-request-id": f"{name}{number}"} if name else {}
        tensor = {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": list(row)}
        connection.request(
            "POST", "/v2/models/times/infer", json.dumps({"inputs": [tensor]}), headers
        )
        answer = connection.getresponse()
        assert answer.status == 200, answer.read()
        answer.read()
    connection.close()


async def look(plane: Plane, **how: Any) -> dict[str, Any]:
    """A window that a person asks for, once it is over."""
    run = await plane.post("/v1/deployments/times/monitor", how)

    async def done() -> dict[str, Any] | None:
        now: dict[str, Any] = await plane.get(f"/v1/monitor-runs/{run['id']}")
        return now if now["state"] != "RUNNING" else None

    found: dict[str, Any] = await until(done)
    return found


async def logged(plane: Plane, count: int) -> None:
    """Wait until so many requests are in the replica's log."""

    def enough() -> bool:
        files = plane.root.glob("**/inference-log/*.jsonl")
        return sum(file.read_text().count("\n") for file in files) >= count

    await until(enough)


async def rebased(plane: Plane) -> None:
    """Send what becomes the reference."""
    send(await plane.get("/v1/deployments/times"), 0.0, seed=1)
    await logged(plane, 2 * LEAST)
    run = await plane.post("/v1/deployments/times/monitor", {"rebase": True})
    assert (run["status"], run["requests"]) == ("reference", 2 * LEAST)


async def windows(plane: Plane) -> list[dict[str, Any]]:
    """Scheduled windows that are over, oldest first."""
    view = await plane.get("/v1/deployments/times/monitor")
    return [run for run in reversed(view["runs"]) if run["scheduled"] and run["state"] != "RUNNING"]


async def test_drift_is_found_told_once_and_settles(plane: Plane) -> None:
    with pytest.raises(NotFound, match="no service 'times'"):
        await plane.post("/v1/deployments/times/monitor", {})
    view = await serving(plane)
    run = await look(plane)
    assert (run["status"], run["reason"]) == (
        "not enough data",
        f"0 requests were logged; {LEAST} are wanted",
    )
    await rebased(plane)
    send(view, 0.0, seed=3)
    await logged(plane, 4 * LEAST)
    run = await look(plane)  # without the reference's own requests
    assert (run["state"], run["status"], run["requests"]) == ("DONE", "ok", 2 * LEAST), run
    assert {f["name"]: f["family"] for f in run["report"]["features"]} == {
        "age": "inputs", "height": "inputs", "y[0]": "predictions", "y[1]": "predictions",
    }  # fmt: skip
    told = await plane.get("/v1/deployments/times/monitor")
    assert (told["reference_rows"], told["drifting"]) == (2 * LEAST, False)
    seen = [told["every"], told["level"]]
    assert seen == [3600, pytest.approx(30 * 3600 / (30 * 86_400))]

    plane.now.offset += 3700  # a window is due
    (due,) = await until(lambda: windows(plane))
    assert (due["status"], due["requests"]) == ("ok", 2 * LEAST)
    plane.now.offset -= 3700
    send(view, 1.5, seed=2)
    await logged(plane, 6 * LEAST)
    run = await look(plane)
    assert run["requests"] == 4 * LEAST
    drifted = {feature["name"]: feature for feature in run["report"]["features"]}
    assert run["status"] == "drift"
    assert {"age", "y[0]"} <= set(run["drifted"])
    assert "height" not in run["drifted"]
    assert drifted["age"]["size"] > 0.5

    def read(session: Session) -> tuple[list[str], list[str | None], set[str]]:
        rows = session.exec(select(AuditRow).where(AuditRow.action == "monitor.look")).all()
        jobs = session.exec(select(JobRow).where(col(JobRow.name) == "monitor-times")).all()
        return (
            [row.target for row in rows],
            [job.snapshot for job in jobs],
            blobrefs.roots(session).blobs,
        )

    audited, snapshots, kept = await plane.controller.db.read(read)
    assert set(audited) == {"times@staging"}
    assert snapshots
    assert not any(snapshots)  # the lines of windows go; the reference stays

    def reference(session: Session) -> str | None:
        return session.exec(select(MonitorRow.reference)).one()

    assert await plane.controller.db.read(reference) in kept


async def test_a_schedule_raises_an_alert_also_over_a_restart(plane: Plane) -> None:
    view = await serving(plane, every=60)
    await rebased(plane)
    send(view, 1.5, seed=2)
    await logged(plane, 4 * LEAST)
    plane.now.offset += 64

    async def begun() -> bool:
        runs = (await plane.get("/v1/deployments/times/monitor"))["runs"]
        return any(run["scheduled"] for run in runs)

    await until(begun)
    await plane.restart()
    (run,) = await until(lambda: windows(plane))
    assert (run["status"], "age" in run["drifted"]) == ("drift", True), run

    async def alerts() -> list[dict[str, Any]]:
        every = await plane.get("/v1/alerts")
        return [alert for alert in every if alert["rule"] == "drift"]

    (alert,) = await until(alerts)
    assert (alert["subject"], alert["state"]) == ("times@staging", "FIRING")
    assert "times@staging drifts (version 1): " in alert["text"]
    plane.now.offset = 0
    events = await plane.lines("/v1/events")
    assert [event["kind"] for event in events if event["kind"].startswith("monitor")] == [
        "monitor.drift"
    ]


async def test_the_truth_is_joined_by_request_and_counted_by_version(plane: Plane) -> None:
    view = await serving(plane)
    ask(view, [(1, 2), (5, 3), (1, 4), (9, 1)], "r")  # the larger place is the class: 1, 0, 1, 0
    await logged(plane, 4)
    truths = {"r0": 1, "r1": 0, "r2": 0, "r3": "cat", "never": 1}
    path = "/v1/deployments/times/feedback"
    told = await plane.post(path, {"truths": truths})
    assert (told["joined"], told["unknown"], told["refused"]) == (4, ["never"], [])
    online = told["versions"]["1"]
    assert (online["truths"], online["accuracy"]["value"], online["error"]) == (4, 0.5, None)
    assert online["accuracy"]["low"] < 0.5 < online["accuracy"]["high"]
    await plane.post(path, {"truths": {"r2": 1, "r3": 0}})  # corrected: not counted twice
    (deployment,) = await plane.get("/v1/deployments")
    assert deployment["versions"][0]["online"]["accuracy"]["value"] == 1
    assert deployment["versions"][0]["online"]["truths"] == 4
    told = await plane.post(path, {"truths": {"r0": [1, 2, 3]}, "output": "y"})
    assert told["refused"] == ["r0: the answer has 2 values for 3 truths"]
    with pytest.raises(NotFound, match="no service 'nothing'"):
        await plane.post("/v1/deployments/nothing/feedback", {"truths": {"a": 1}})


async def test_a_canary_that_is_wrong_is_rolled_back_by_the_truths(plane: Plane) -> None:
    await serving(plane)
    worse = await take_in(plane, {"times.onnx": times(-2)})  # the other class, always
    spec = {"log": {"sample": 1}, "canary": [50], "rest": 3000, "least": 1, "truths": 5}
    await deploy(plane, worse, target="staging", spec=spec)

    async def stepping() -> dict[str, Any] | None:
        now: dict[str, Any] = await plane.get("/v1/deployments/times")
        return now if now["rollout"]["phase"] == "stepping" and now["settled"] else None

    view = await until(stepping)
    rows = [(n % 7, (n * 3) % 5 + 0.5) for n in range(80)]
    ask(view, rows, "r")
    await logged(plane, len(rows))
    right = {f"r{n}": int(row[1] > row[0]) for n, row in enumerate(rows)}
    path = "/v1/deployments/times/feedback"
    first = dict(list(right.items())[:10])
    for _ in range(3):  # sent again, they count once
        await plane.post(path, {"truths": first})
    compared = (await plane.get("/v1/deployments/times"))["rollout"]["wrong"]
    assert compared["old_seen"] + compared["new_seen"] == 10
    assert compared["new_bad"] == compared["new_seen"] and compared["old_bad"] == 0
    await plane.post(path, {"truths": right})
    ended = (await plane.get("/v1/deployments/times"))["rollout"]
    assert ended["phase"] == "rolled_back" and ended["reason"].startswith("it is wrong more often")


async def test_what_no_version_serves_has_no_monitor(plane: Plane) -> None:
    view = await serving(plane)
    await plane.post("/v1/deployments/times/remove")
    with pytest.raises(Conflict, match="no version that serves"):
        await plane.post("/v1/deployments/times/monitor", {})
    assert view["live"] == "1"
