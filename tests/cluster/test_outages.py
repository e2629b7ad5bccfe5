"""The head is away, or a node, and the ranks are to run on."""

from __future__ import annotations

import time

import pytest

from tests.cluster.fleet import Fleet
from tests.waiting import until

pytestmark = pytest.mark.timeout(400)  # two outages are waited through, also on a busy machine

LEASE = 10.0
AWAY = LEASE + 20.0
"""Seconds of an outage: beyond the lease, the grace and the margin, all of it."""


def test_the_head_is_away_in_maintenance_for_longer_than_a_lease(fleet: Fleet) -> None:
    job = fleet.steady(lease=LEASE)
    ranks = fleet.ranks(job)
    said = fleet.head.qd("maintenance", "head", "--for", "2m", "--reason", "test")
    assert "All nodes have confirmed it" in said.stdout
    fleet.head.unplug()
    time.sleep(AWAY)  # the length of the outage is what is tested
    assert fleet.run_on(ranks)
    fleet.head.plug()
    for name in ranks:
        fleet.until_node(name, "READY")
    fleet.head.qd("maintenance", "end")
    assert fleet.ranks(job) == ranks
    view = fleet.finish(job)
    assert len(view["attempts"]) == 1
    fleet.check_once(job)


def test_what_waits_outlives_a_partition_and_starts_again_on_a_persons_word(fleet: Fleet) -> None:
    job = fleet.steady(lease=LEASE, on_node_loss="wait")
    ranks, host = fleet.ranks(job), fleet.host("w1")
    host.unplug()
    fleet.until_node("w1", "LOST")
    time.sleep(LEASE)
    assert fleet.run_on(ranks)
    assert fleet.job(job)["state"] == "RUNNING"
    host.plug()
    fleet.until_node("w1", "READY")
    assert fleet.run_on(ranks)
    assert len(fleet.job(job)["attempts"]) == 1

    fleet.spare(True)
    host.power_off()
    fleet.until_node("w1", "LOST")
    time.sleep(LEASE)
    assert fleet.job(job)["state"] == "RUNNING", "nobody knows yet"
    fleet.head.qd("confirm-dead", "w1", "--yes")
    fleet.until_ticking(job, 2)
    assert sorted(fleet.ranks(job, 2)) == ["head", "w2"]
    fleet.finish(job)
    fleet.join_again(host)
    fleet.spare(False)
    until(lambda: fleet.nodes()["w1"]["state"] == "READY", "w1 to be back")
