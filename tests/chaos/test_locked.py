"""Somebody else holds the registry's lock for half a minute, on a real cluster."""

from __future__ import annotations

import contextlib
import sqlite3
import time

import psutil
import pytest

from console.client import Client
from jobs.base.errors import QuarterdeckError
from jobs.spec.job import JobSpec
from tests.chaos.cluster import Cluster
from tests.waiting import until

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(240)]

LOCKED = 30.0
LEASE = 10.0
"""Seconds; a third of that time. A lease says that there is contact, not that anything can be written."""


def submit(client: Client, key: str) -> str | None:
    """The id of a job that was acknowledged; None when it was not."""
    spec = JobSpec.from_json({"command": "true"}).to_json()
    try:
        answer: dict[str, str] = client.post("/v1/jobs", {"spec": spec, "key": key})
    except QuarterdeckError:
        return None
    return answer["id"]


def test_the_registry_is_locked_for_30_seconds(cluster: Cluster) -> None:
    job = cluster.steady(lease=LEASE)
    pids, controller = cluster.pids(job.id), cluster.controller().pid
    kept = [submit(cluster.client, "before")]
    with contextlib.closing(sqlite3.connect(cluster.places.state / "state.db")) as other:
        other.isolation_level = None
        other.execute("BEGIN IMMEDIATE")
        ends = time.monotonic() + LOCKED
        said = cluster.log(job.id, 1, 0).count("tick")
        assert submit(cluster.client.with_timeout(3.0), "during") is None, "nothing is kept now"
        until(lambda: "lock" in cluster.problems(), "the banner", LOCKED)
        assert cluster.job(job.id)["state"] == "RUNNING", "what is known can be read"
        time.sleep(max(0.0, ends - time.monotonic()))
        assert all(psutil.pid_exists(pid) for pid in pids), "its lease was renewed all the while"
        other.execute("ROLLBACK")
    until(lambda: cluster.log(job.id, 1, 0).count("tick") > said + 100, "its lines to come again")
    assert cluster.controller().pid == controller
    kept.append(submit(cluster.client, "during"))
    kept.append(submit(cluster.client, "during"))
    assert kept[1] is not None
    assert kept[1] == kept[2], "asked again it is the same job"
    view = cluster.finish(job)
    assert [attempt["state"] for attempt in view["attempts"]] == ["SUCCEEDED"]
    assert cluster.pids(job.id) == pids
    cluster.check_once(job.id)
    for other_job in {each for each in kept if each is not None}:
        assert cluster.wait(other_job)["state"] == "SUCCEEDED"
