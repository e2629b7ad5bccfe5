"""Scaling on a control plane of its own: real replicas, a real HAProxy, real load."""

from __future__ import annotations

import asyncio
import http.client
from collections.abc import Callable
from typing import Any

import pytest
from sqlmodel import Session, select

from jobs.base.errors import InvalidInput, NotFound
from jobs.store.tables import AuditRow
from tests.agents.controller.conftest import Plane, until
from tests.agents.controller.services.test_services import deploy, over
from tests.serving import Callers, service

PATH = "/v1/deployments/hello"
QUICK: dict[str, Any] = {"concurrency": 4, "quiet": 5, "idle": 5}


def port(view: dict[str, Any]) -> int:
    return int(view["url"].rpartition(":")[2])


async def at(plane: Plane, replicas: int, *, ready: int | None = None) -> dict[str, Any]:
    """The deployment once so many replicas are wanted, all of them are ready, and no more run."""

    async def look() -> dict[str, Any] | None:
        view: dict[str, Any] = await plane.get(PATH)
        (version,) = [one for one in view["versions"] if one["state"] == "live"]
        there = (version["replicas"], version["healthy"], len(version["jobs"]))
        expected = (replicas, replicas if ready is None else ready, replicas)
        return view if view["settled"] and there == expected else None

    view: dict[str, Any] = await until(look, lambda: f"{replicas}: {plane.controller.problems()}")
    return view


async def kinds(plane: Plane) -> list[str]:
    return [event["kind"] for event in await plane.lines("/v1/events")]


@pytest.mark.timeout(180)
async def test_replicas_follow_the_load_up_and_down_and_no_request_fails(plane: Plane) -> None:
    scale = {"min": 1, "max": 3, **QUICK}
    await deploy(plane, service("1", slow=0.05, scale=scale))
    view = await over(plane, "done")
    assert [version["replicas"] for version in view["versions"]] == [1]
    callers = Callers(port(view), callers=10)  # about nine of them wait for an answer
    try:
        view = await at(plane, 3)
        assert view["scaling"]["reason"].endswith("at most 4 for each replica")
        await plane.restart()
        view = await at(plane, 3)
        before = callers.told["1 200"]
        await until(lambda: callers.told["1 200"] > before + 100)
    finally:
        told = await asyncio.to_thread(callers.close)
    few = Callers(port(view), callers=1)
    try:
        view = await at(plane, 1)
        assert "at most" in view["scaling"]["reason"]
        assert view["problem"] == ""
    finally:
        told += await asyncio.to_thread(few.close)
    assert told.keys() == {"1 200"}
    found = await kinds(plane)
    assert found.count("service.scaled") in (2, 3, 4)

    def read(session: Session) -> list[str]:
        return [row.action for row in session.exec(select(AuditRow)).all()]

    assert (await plane.controller.db.read(read)).count("service.scaled") == found.count(
        "service.scaled"
    )


@pytest.mark.timeout(180)
async def test_at_zero_its_gpu_is_free_and_a_request_waits_for_the_first_replica(
    make_plane: Callable[..., Any],
) -> None:
    plane: Plane = await make_plane(gpus=1)
    scale = {"min": 0, "max": 1, "hold": 30, **QUICK}
    spec = service("1", scale=scale) | {"resources": {"gpu": 1, "cpu": 0.25}}
    view = await deploy(plane, spec)
    await over(plane, "done")
    training = await plane.submit("sleep 3600", resources={"gpu": 1})
    assert (await plane.get(f"/v1/jobs/{training}"))["state"] == "QUEUED"
    view = await at(plane, 0)
    assert view["problem"] == ""
    assert view["scaling"]["reason"].startswith("no request for")
    await plane.wait(training, "RUNNING")

    # What training holds is not taken: the request waits, and the service says why.
    asked = asyncio.create_task(asyncio.to_thread(ask, port(view)))

    async def short() -> bool:
        view: dict[str, Any] = await plane.get(PATH)
        return view["scaling"]["held"] == 1 and "is queued: " in view["problem"]

    await until(short, lambda: str(plane.controller.problems()))
    assert (await plane.get(f"/v1/jobs/{training}"))["state"] == "RUNNING"
    assert "GPU" in (await plane.get(PATH))["scaling"]["blocked"]
    assert (await kinds(plane)).count("service.short") == 1
    await plane.post(f"/v1/jobs/{training}/cancel")
    status, body = await asked
    assert (status, body.split()[0]) == (200, "1")
    view = await at(plane, 1)
    assert (view["scaling"]["blocked"], view["problem"]) == ("", "")


def ask(where: int) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", where, timeout=60)
    try:
        connection.request("GET", "/")
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


async def test_without_a_controller_a_request_at_zero_is_held_and_then_told_to_come_again(
    plane: Plane,
) -> None:
    view = await deploy(plane, service("1", scale={"min": 0, "max": 1, **QUICK, "hold": 2}))
    await over(plane, "done")
    view = await at(plane, 0)
    await plane.stop()
    loop = asyncio.get_running_loop()
    began = loop.time()
    status, body = await asyncio.to_thread(ask, port(view))
    assert (status, "no replica was ready in time" in body) == (503, True)
    assert loop.time() - began > 1.9
    await plane.start()


@pytest.mark.timeout(180)
async def test_a_replica_that_leaves_ends_what_it_has_before_it_is_stopped(plane: Plane) -> None:
    view = await deploy(plane, service("1", slow=8, replicas=2))
    view = await over(plane, "done")
    long = [asyncio.create_task(asyncio.to_thread(ask, port(view))) for _ in range(2)]

    async def running() -> bool:
        load = plane.controller.services._front.said.get("load", {})
        return bool(load.get("d1r1", {}).get("running") == 2)

    await until(running)
    await plane.post(f"{PATH}/scale", {"replicas": 1})
    told = [await task for task in long]
    assert [status for status, _ in told] == [200, 200], "also what the one that left had"
    await at(plane, 1)


async def test_a_person_sets_how_many_there_are(plane: Plane) -> None:
    with pytest.raises(NotFound):
        await plane.post(f"{PATH}/scale", {"replicas": 2})
    await deploy(plane, service("1"))
    await over(plane, "done")
    for body in ({}, {"replicas": 2, "scale": {"max": 2}}):
        with pytest.raises(InvalidInput, match="give replicas, or scale"):
            await plane.post(f"{PATH}/scale", body)
    for scale, says in (({"min": 2}, "max: missing"), ({"max": 2, "idle": "x"}, "idle: found")):
        with pytest.raises(InvalidInput, match=says):
            await plane.post(f"{PATH}/scale", {"scale": scale})
    view = await plane.post(f"{PATH}/scale", {"replicas": 3})
    assert view["scaling"] is None
    await at(plane, 3)
    view = await plane.post(f"{PATH}/scale", {"scale": {"max": 2}})
    assert (view["scaling"]["min"], view["scaling"]["max"]) == (1, 2)
    view = await at(plane, 2)
    view = await plane.post(f"{PATH}/scale", {"scale": {"min": 2, "quiet": "10m"}})
    assert (view["scaling"]["max"], view["scaling"]["quiet"]) == (2, 600)
    # A later version is scaled as this one, and begins with as many.
    await deploy(plane, service("2"))
    view = await over(plane, "done")
    assert view["live"] == "2"
    assert [one["replicas"] for one in view["versions"] if one["state"] == "live"] == [2]
    assert view["scaling"]["max"] == 2
