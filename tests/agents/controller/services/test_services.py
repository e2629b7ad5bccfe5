"""Services on a control plane of its own: real replicas under guards, a real HAProxy, real requests."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from sqlmodel import Session, select

from jobs.base.errors import Conflict, InvalidInput, NotFound
from jobs.store import audit
from jobs.store.tables import AuditRow
from tests.agents.controller.conftest import Plane, until
from tests.serving import Callers, service


@contextlib.asynccontextmanager
async def calling(view: dict[str, Any]) -> AsyncIterator[Callers]:
    callers = Callers(int(view["url"].rpartition(":")[2]))
    try:
        yield callers
    finally:
        await asyncio.to_thread(callers.close)


async def deploy(plane: Plane, spec: dict[str, Any], **more: Any) -> dict[str, Any]:
    view: dict[str, Any] = await plane.post("/v1/deployments", {"spec": spec, **more})
    return view


async def over(plane: Plane, *phases: str) -> dict[str, Any]:
    """The deployment once its rollout is in one of these phases."""

    async def look() -> dict[str, Any] | None:
        view: dict[str, Any] = await plane.get("/v1/deployments/hello")
        return view if view["settled"] and view["rollout"]["phase"] in phases else None

    view: dict[str, Any] = await until(look, lambda: f"{phases}: {plane.controller.problems()}")
    return view


async def serving(plane: Plane, **fields: Any) -> dict[str, Any]:
    await deploy(plane, service("1", **fields))
    return await over(plane, "done", "rolled_back")


async def test_a_service_answers_and_its_replicas_share_the_requests(plane: Plane) -> None:
    view = await serving(plane, replicas=2)
    assert (view["live"], view["rollout"]["phase"], view["problem"]) == ("1", "done", "")
    (version,) = view["versions"]
    assert (version["traffic"], version["healthy"], len(version["jobs"])) == (100, 2, 2)
    answers = [await plane.post("/v1/deployments/hello/predict", {}) for _ in range(12)]
    assert {answer["status"] for answer in answers} == {200}
    assert len({answer["body"] for answer in answers}) == 2
    job = await plane.get(f"/v1/jobs/{version['jobs'][0]}")
    assert (job["state"], job["tags"]["service"]) == ("RUNNING", "hello")


async def test_a_good_version_takes_over_step_by_step_and_a_person_takes_it_back(
    plane: Plane,
) -> None:
    view = await serving(plane)
    async with calling(view) as callers:
        await deploy(plane, service("2", canary=[20, 60], slower=100))
        view = await over(plane, "done", "rolled_back", "paused")
        assert view["rollout"]["reason"].startswith("no worse in")
        assert view["live"] == "2"
        await until(lambda: callers.told["2 200"] > 50)
        view = await plane.post("/v1/deployments/hello/rollback")
        began = time.monotonic()
        assert (view["live"], view["rollout"]["phase"]) == ("1", "rolled_back")
        before = callers.told["1 200"]
        await until(lambda: callers.told["1 200"] > before + 5)
        assert time.monotonic() - began < 5
    assert callers.told.keys() == {"1 200", "2 200"}
    with pytest.raises(Conflict, match="no version to go back to"):
        await plane.post("/v1/deployments/hello/rollback")


@pytest.mark.parametrize(
    ("how", "says"), [({"status": 500}, "it errs more"), ({"slow": 0.15}, "it is slower")]
)
async def test_a_worse_version_is_rolled_back_by_itself_with_its_numbers(
    plane: Plane, how: dict[str, Any], says: str
) -> None:
    view = await serving(plane)
    async with calling(view) as callers:
        await until(lambda: callers.told["1 200"] > 100)
        await deploy(plane, service("2", canary=[20], rest=30, **how))
        view = await over(plane, "done", "rolled_back", "paused")
        assert view["rollout"]["phase"] == "rolled_back"
        assert says in view["rollout"]["reason"]
        assert view["live"] == "1"
    assert not [name for name in callers.told if name.startswith(("failed", "1 5"))]
    assert not [name for name in callers.told if " 503" in name]
    events = await plane.lines("/v1/events")
    assert [event["kind"] for event in events if event["kind"].startswith("rollout")] == [
        "rollout.started",
        "rollout.promoted",
        "rollout.started",
        "rollout.step",
        "rollout.rolled_back",
    ]


async def test_every_transition_is_in_the_audit_log(plane: Plane) -> None:
    await serving(plane)

    def read(session: Session) -> list[AuditRow]:
        return list(session.exec(select(AuditRow).order_by(AuditRow.id)).all())  # type: ignore[arg-type]

    rows = await plane.controller.db.read(read)
    assert audit.verify(rows) is None
    told = [row.action for row in rows if row.target == "hello@production"]
    assert told == ["rollout.started", "rollout.promoted"]


async def test_what_cannot_start_comes_back_and_says_why(plane: Plane) -> None:
    await serving(plane)
    await deploy(plane, service("2") | {"command": "echo no such model >&2; exit 3"})
    view = await over(plane, "rolled_back")
    assert "it does not start" in view["rollout"]["reason"]
    assert (view["live"], view["versions"][0]["traffic"]) == ("1", 100)


async def test_a_replica_that_dies_is_replaced_and_no_request_fails(plane: Plane) -> None:
    view = await serving(plane, replicas=2)
    first = view["versions"][0]["jobs"][0]
    async with calling(view) as callers:
        await until(lambda: callers.told["1 200"] > 20)
        await plane.post(f"/v1/jobs/{first}/cancel")

        async def replaced() -> bool:
            (version,) = (await plane.get("/v1/deployments/hello"))["versions"]
            return first not in version["jobs"] and version["healthy"] == 2

        await until(replaced)
    assert callers.told.keys() == {"1 200"}


async def test_a_rollout_goes_on_where_it_was_after_a_controller_was_killed(plane: Plane) -> None:
    view = await serving(plane)
    async with calling(view) as callers:
        await until(lambda: callers.told["1 200"] > 30)
        await deploy(plane, service("2", canary=[20], rest=30, least=1, slower=100))
        view = await over(plane, "stepping")
        jobs = {job for version in view["versions"] for job in version["jobs"]}
        await plane.restart()
        view = await over(plane, "stepping")
        assert view["rollout"]["share"] == 20
        await plane.post("/v1/deployments/hello/promote")
        view = await over(plane, "done")
        assert {job for version in view["versions"] for job in version["jobs"]} == jobs
        await until(lambda: callers.told["2 200"] > 50)
    assert callers.told.keys() == {"1 200", "2 200"}
    kinds = [event["kind"] for event in await plane.lines("/v1/events")]
    assert kinds.count("rollout.step") == 1


async def test_agent_and_controller_may_go_while_requests_come(
    make_plane: Callable[..., Any],
) -> None:
    plane: Plane = await make_plane()
    view = await serving(plane, replicas=2)
    pids = {(await plane.post("/v1/deployments/hello/predict", {}))["body"] for _ in range(12)}
    async with calling(view) as callers:
        await plane.stop()
        agent = plane.nodes["n1"]
        await agent.close()
        before = callers.told["1 200"]
        await until(lambda: callers.told["1 200"] > before + 200)
        await agent.start()
        await plane.start()
        view = await over(plane, "done")

        async def healthy() -> bool:
            (version,) = (await plane.get("/v1/deployments/hello"))["versions"]
            return bool(version["healthy"] == 2)

        await until(healthy)
        assert {
            (await plane.post("/v1/deployments/hello/predict", {}))["body"] for _ in range(12)
        } == pids
    assert callers.told.keys() == {"1 200"}


async def test_a_rollout_that_cannot_be_judged_asks_and_says_so(plane: Plane) -> None:
    await serving(plane)
    assert plane.controller.problems() == []
    await deploy(plane, service("2", canary=[50], least=1000, patience=1))
    view = await over(plane, "paused")
    assert view["rollout"]["reason"].startswith("inconclusive: 0 of 1000 requests")

    def asked() -> bool:
        return any("service hello@production" in p["what"] for p in plane.controller.problems())

    await until(asked)
    await plane.post("/v1/deployments/hello/abort")
    await over(plane, "aborted")
    await until(lambda: not asked())


async def test_what_is_taken_down_gives_everything_back(plane: Plane) -> None:
    await serving(plane)
    await plane.post("/v1/deployments/hello/remove")
    plane.now.offset += 60

    async def gone() -> bool:
        running = await plane.get("/v1/jobs", state=["RUNNING", "STOPPING", "QUEUED"])
        return not running["jobs"] and not await plane.get("/v1/deployments")

    await until(gone)
    await serving(plane)  # and may come again, where it was


async def test_what_makes_no_sense_is_refused(plane: Plane) -> None:
    with pytest.raises(NotFound, match="no service 'hello'"):
        await plane.post("/v1/deployments/hello/rollback")
    with pytest.raises(InvalidInput, match="no node can run this"):
        await deploy(plane, service("1") | {"resources": {"gpu": 3}})
    view = await serving(plane)
    with pytest.raises(InvalidInput, match="is used by hello at production"):
        taken = service("1") | {"name": "other", "port": int(view["url"].rpartition(":")[2])}
        await deploy(plane, taken)
    with pytest.raises(Conflict, match="nothing to pause"):
        await plane.post("/v1/deployments/hello/pause")
    with pytest.raises(InvalidInput, match="not an action on a rollout"):
        await plane.post("/v1/deployments/hello/dance")
    assert await plane.get("/v1/deployments") != []
