"""A quarter of the calls to agents and for reservations is lost by Ray's own failure injection: half of
them before the other side has acted, half of them after."""

from __future__ import annotations

import json
from collections.abc import Iterator

import psutil
import pytest

from agents.fabric.ray import LOSE_CALLS
from tests.chaos.cluster import Cluster, running
from tests.waiting import until

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(420)]

GROUPS = "ray::rpc::PlacementGroupInfoGcsService.grpc_client."
LOST = [
    "CoreWorkerService.grpc_client.PushTask",
    *(f"{GROUPS}{call}PlacementGroup" for call in ("Create", "Remove", "GetAll", "GetNamed")),
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    share = {"num_failures": -1, "req_failure_prob": 13, "resp_failure_prob": 12}
    with running(environ={LOSE_CALLS: json.dumps(dict.fromkeys(LOST, share))}) as made:
        yield made


def test_no_double_launch(cluster: Cluster) -> None:
    ledger = cluster.home / "ledger"
    jobs = [
        cluster.submit(f"echo $QD_RUN/$RANK >> {ledger}", procs_per_node=2, resources={"cpu": 1})
        for _ in range(12)
    ]
    for job in jobs:
        view = cluster.wait(job)
        assert (view["state"], len(view["attempts"])) == ("SUCCEEDED", 1), view["reason"]
    started = ledger.read_text().split()
    assert sorted(started) == sorted(f"{job}.1/{rank}" for job in jobs for rank in (0, 1))


def test_no_lost_stop(cluster: Cluster) -> None:
    jobs = [cluster.submit("sleep 300", resources={"cpu": 1}) for _ in range(4)]
    pids = []
    for job in jobs:
        cluster.wait(job, "RUNNING")
        until(lambda: cluster.pids(job), f"the pid of {job}")  # noqa: B023 - called at once
        pids += cluster.pids(job)
    for job in jobs:
        cluster.client.act(f"/v1/jobs/{job}/cancel")
    for job in jobs:
        assert cluster.wait(job)["state"] == "CANCELLED"
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_every_line_and_point_is_there_once(cluster: Cluster) -> None:
    job = cluster.steady()
    assert len(cluster.finish(job)["attempts"]) == 1
    cluster.check_once(job.id)


def test_calls_were_lost(cluster: Cluster) -> None:
    """Else the tests above have shown nothing."""
    log = (cluster.places.daemon_logs / "controller.log").read_text()
    assert "ActorUnavailableError" in log
