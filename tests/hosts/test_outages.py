"""What a power cut and partitions do to a job of two hosts."""

from __future__ import annotations

import time

import pytest

from tests.hosts.site import Site
from tests.waiting import until

pytestmark = [pytest.mark.timeout(900), pytest.mark.slow]


def back(site: Site) -> None:
    until(lambda: set(site.nodes().values()) == {"READY"}, "all nodes to be back", 180, pause=1)


def attempts(site: Site, job: str) -> int:
    return len(site.json("job", job)["attempts"])


def moved(site: Site, job: str, before: dict[str, int]) -> bool:
    """Whether a second attempt runs, on hosts that are there."""
    ranks = site.ranks(job)
    return attempts(site, job) > 1 and len(ranks) == 2 and all(ranks.values()) and ranks != before


def test_a_partition_shorter_than_the_lease_ends_nothing(site: Site) -> None:
    job = site.steady()
    before = site.ranks(job)
    away = next(site.machine(node) for node in before if node != "head")
    away.unplug()
    until(lambda: site.nodes()[away.name] != "READY", "the head to miss it", 60, pause=0.5)
    away.plug()
    back(site)
    assert all(site.machine(node).runs(pid) for node, pid in before.items())
    assert site.ranks(job) == before
    view = site.finish(job)
    assert (view["state"], len(view["attempts"])) == ("SUCCEEDED", 1)


def test_a_partition_longer_than_the_lease_moves_the_job_and_no_copy_is_left(site: Site) -> None:
    job = site.steady(lease="20s")
    before = site.ranks(job)
    away = next(site.machine(node) for node in before if node != "head")
    away.unplug()
    until(lambda: moved(site, job, before), "the job to run elsewhere", 180, pause=1)
    assert away.name not in site.ranks(job)
    away.plug()
    back(site)
    assert not away.runs(before[away.name]), "the rank that was cut off ran on"
    view = site.finish(job)
    assert (view["state"], len(view["attempts"])) == ("SUCCEEDED", 2)


def test_a_host_whose_power_is_cut_costs_a_restart_and_comes_back(site: Site) -> None:
    job = site.steady(lease="20s")
    before = site.ranks(job)
    lost = next(site.machine(node) for node in before if node != "head")
    lost.power_off()
    try:
        until(lambda: moved(site, job, before), "the job to run elsewhere", 180, pause=1)
        assert lost.name not in site.ranks(job)
    finally:
        started = time.monotonic()
        lost.power_on()
    back(site)
    assert time.monotonic() - started < 180
    view = site.finish(job)
    assert (view["state"], len(view["attempts"])) == ("SUCCEEDED", 2)
