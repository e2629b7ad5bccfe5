"""Somebody cleans /tmp, and takes Ray's folder away from under it."""

from __future__ import annotations

import shutil

import psutil
import pytest

from tests.chaos.cluster import Cluster
from tests.waiting import until

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(240)]


def test_a_node_comes_back_without_its_folder_below_tmp(cluster: Cluster) -> None:
    job = cluster.steady(lease=90.0)
    pids, raylet = cluster.pids(job.id), cluster.of_ray("raylet").pid
    agent = cluster.agent()
    shutil.rmtree(cluster.places.ray_temp)
    agent.kill()
    until(lambda: cluster.of_ray("raylet").pid != raylet, "Ray to be started anew", 60.0)
    until(lambda: cluster.agent().pid != agent.pid, "an agent", 60.0)
    until(lambda: cluster.client.get("/v1/nodes")[0]["state"] == "READY", "the node", 60.0)
    assert all(psutil.pid_exists(pid) for pid in pids), "what runs has noticed nothing"
    view = cluster.finish(job)
    assert len(view["attempts"]) == 1
    cluster.check_once(job.id)
