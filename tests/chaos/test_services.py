"""Everything that is not a replica or its front is killed while requests come: none of them fails."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from agents.supervisor import record as records
from tests.chaos.cluster import Cluster
from tests.serving import Callers, service
from tests.waiting import until

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]


@pytest.fixture
def served(cluster: Cluster) -> Iterator[dict[str, Any]]:
    """A service of two replicas that answers; at the end nothing of it is left."""
    spec = service("1", replicas=2, warm=1)
    cluster.client.act("/v1/deployments", {"spec": spec})
    yield settled(cluster, "done")
    cluster.client.act("/v1/deployments/hello/remove")
    until(lambda: not cluster.client.get("/v1/deployments"), "the service to be gone")

    def ended() -> bool:
        return not cluster.client.get("/v1/jobs", state="active")["jobs"]

    until(ended, "its jobs to end")


def settled(cluster: Cluster, *phases: str) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        view: dict[str, Any] = cluster.client.get("/v1/deployments/hello")
        return view if view["settled"] and view["rollout"]["phase"] in phases else None

    view = until(look, f"the rollout to be {' or '.join(phases)}")
    assert view is not None
    return view


@contextlib.contextmanager
def calling(view: dict[str, Any]) -> Iterator[Callers]:
    callers = Callers(int(view["url"].rpartition(":")[2]), callers=4)
    try:
        yield callers
    finally:
        callers.close()


def serving_pids(cluster: Cluster, view: dict[str, Any]) -> list[int]:
    jobs = [job for version in view["versions"] for job in version["jobs"]]
    fronts = [job["id"] for job in cluster.client.get("/v1/jobs", name="front")["jobs"]]
    return [pid for job in [*jobs, fronts[0]] for pid in cluster.pids(job)]


def test_no_request_fails_while_the_control_plane_is_dead(
    cluster: Cluster, served: dict[str, Any]
) -> None:
    pids = serving_pids(cluster, served)
    with calling(served) as callers:
        until(lambda: callers.told["1 200"] > 200, "requests")
        record = records.read(cluster.places.cluster_file)
        assert record is not None
        supervisor = psutil.Process(cluster.controller().ppid())
        supervisor.suspend()  # or it would begin to restore them before all are dead
        victims = [
            cluster.controller(),
            cluster.agent(),
            cluster.of_ray("raylet"),
            cluster.of_ray("gcs_server"),
        ]
        for victim in victims:
            victim.kill()
        before = callers.told["1 200"]
        until(lambda: callers.told["1 200"] > before + 1000, "requests without any of them")
        supervisor.resume()
        until(lambda: cluster.client.get("/v1/status")["state"] == "ok", "all to be back")
        view = settled(cluster, "done")
        assert serving_pids(cluster, view) == pids
        assert [version["healthy"] for version in view["versions"]] == [2]
        # And it is in their hands again: a new version takes over.
        cluster.client.act("/v1/deployments", {"spec": service("2", replicas=2, warm=1)})
        settled(cluster, "done")
        until(lambda: callers.told["2 200"] > 50, "requests to the new version")
    assert callers.told.keys() == {"1 200", "2 200"}


def test_a_rollout_converges_whenever_the_controller_is_killed(
    cluster: Cluster, served: dict[str, Any]
) -> None:
    """Killed as the new version starts, in each step, and after the last one."""
    with calling(served) as callers:
        until(lambda: callers.told["1 200"] > 100, "requests")
        steps: dict[str, Any] = {"canary": [20, 60], "rest": 1, "least": 5, "slower": 100}
        cluster.client.act("/v1/deployments", {"spec": service("2", replicas=2, warm=1, **steps)})
        seen: list[tuple[str, float]] = []
        while not seen or seen[-1][0] in ("starting", "stepping"):
            rollout = until(lambda: cluster.client.get("/v1/deployments/hello"), "it")["rollout"]
            moment = (rollout["phase"], rollout["share"])
            if moment in seen:
                continue
            seen.append(moment)
            controller = cluster.controller()
            controller.kill()
            psutil.wait_procs([controller], timeout=5)
            until(lambda: cluster.controller().is_running(), "the controller")
        view = settled(cluster, "done", "rolled_back", "paused")
        assert (view["live"], view["rollout"]["phase"]) == ("2", "done")
    assert seen == [("starting", 0), ("stepping", 20), ("stepping", 60), ("done", 0)]
    assert callers.told.keys() == {"1 200", "2 200"}
    kinds = [event["kind"] for event in cluster.lines("/v1/events", limit=1000)]
    last = len(kinds) - 1 - kinds[::-1].index("rollout.started")
    rest = [kind for kind in kinds[last:] if kind.startswith("rollout")]
    assert rest == ["rollout.started", "rollout.step", "rollout.step", "rollout.promoted"]
