"""From bare hosts to a cluster, and what restarts of its services do to what runs."""

from __future__ import annotations

import json

import pytest

from tests.hosts.site import Site
from tests.waiting import until

pytestmark = pytest.mark.timeout(900)
UNITS = {"head": "quarterdeck-head", "w1": "quarterdeck-worker", "w2": "quarterdeck-worker"}


def test_bare_hosts_become_a_cluster_that_runs_a_gang(site: Site) -> None:
    assert site.json("status")["state"] == "ok"
    assert site.nodes() == {"head": "READY", "w1": "READY", "w2": "READY"}
    job = site.submit("--nodes", "2", "--", "sh", "-c", "echo $RANK of $WORLD_SIZE on $(hostname)")
    site.qd("wait", job)
    said = {site.log(job, rank).strip() for rank in (0, 1)}
    assert {line.split(" on ")[0] for line in said} == {"0 of 2", "1 of 2"}
    assert len({line.split(" on ")[1] for line in said}) == 2


def test_two_people_train_on_two_hosts_each_as_themselves(site: Site) -> None:
    words = ("--nodes", "2", "--", "sh", "-c", "echo $RANK; sleep 1")
    jobs = {user: site.submit(*words, user=user) for user in ("admin", "ben")}
    for user, job in jobs.items():
        site.qd("wait", job, user=user)
        assert site.json("job", job)["user"] == user
    rows = site.qd("audit", "--action", "job.submit", "--json").stdout.splitlines()
    assert {json.loads(row)["user"] for row in rows} >= set(jobs)


def test_a_second_run_changes_nothing(site: Site) -> None:
    counted = site.play("site.yml")
    assert set(counted) == {"head", "w1", "w2"}
    assert {host: counts["changed"] for host, counts in counted.items()} == dict.fromkeys(
        counted, 0
    )


def test_every_unit_may_be_restarted_under_a_running_job(site: Site) -> None:
    job = site.steady()
    before = site.ranks(job)
    assert len(before) == 2
    for machine in site.network.machines:
        since = machine.run("systemctl show -P MainPID " + UNITS[machine.name]).stdout
        machine.run(f"sudo systemctl restart quarterdeck-ranks {UNITS[machine.name]}")
        assert machine.run("systemctl show -P MainPID " + UNITS[machine.name]).stdout != since
    for node, pid in before.items():
        assert site.machine(node).runs(pid), f"rank on {node} ended with its service"
    until(lambda: set(site.nodes().values()) == {"READY"}, "all nodes to be back", 120)
    seen = [site.ticks(job, rank) for rank in (0, 1)]
    until(lambda: all(site.ticks(job, r) > seen[r] for r in (0, 1)), "new lines to arrive", 60)
    assert site.ranks(job) == before
    view = site.finish(job)
    assert view["state"] == "SUCCEEDED"
    assert len(view["attempts"]) == 1
