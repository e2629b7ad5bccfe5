"""Every part of a one-machine cluster is killed for real while a job runs."""

from __future__ import annotations

import signal
import time

import psutil
import pytest

from tests.chaos.cluster import Cluster
from tests.waiting import until

pytestmark = [pytest.mark.ray, pytest.mark.timeout(180)]

GRACE = 2.0


@pytest.mark.parametrize(
    "part",
    [
        "controller",
        "agent",
        pytest.param("raylet", marks=pytest.mark.slow),
        pytest.param("gcs_server", marks=pytest.mark.slow),
        pytest.param("both", marks=pytest.mark.slow),
    ],
)
def test_training_outlives_it(cluster: Cluster, part: str) -> None:
    job = cluster.steady()
    pids, before = cluster.pids(job.id), cluster.controller().pid
    victims = {
        "controller": lambda: [cluster.controller()],
        "agent": lambda: [cluster.agent()],
        "raylet": lambda: [cluster.of_ray("raylet")],
        "gcs_server": lambda: [cluster.of_ray("gcs_server")],
        "both": lambda: [cluster.of_ray("gcs_server"), cluster.controller()],
    }[part]()
    for victim in victims:
        victim.kill()
    psutil.wait_procs(victims, timeout=5)
    said = cluster.log(job.id, 1, 0).count("tick")
    until(lambda: cluster.log(job.id, 1, 0).count("tick") > said + 40, "its lines to come again")
    assert (cluster.controller().pid != before) == (part in ("controller", "both"))
    assert cluster.pids(job.id) == pids
    assert all(psutil.pid_exists(pid) for pid in pids)
    view = cluster.finish(job)
    assert [attempt["state"] for attempt in view["attempts"]] == ["SUCCEEDED"]
    assert cluster.pids(job.id) == pids
    cluster.check_once(job.id)


def test_a_killed_rank_takes_its_gang_along_and_the_next_attempt_resumes(cluster: Cluster) -> None:
    job = cluster.steady(max_restarts=1)
    first = cluster.pids(job.id)
    psutil.Process(first[1]).kill()
    began = time.monotonic()
    until(lambda: not psutil.pid_exists(first[0]), "the other rank to be stopped")
    assert time.monotonic() - began < GRACE + 1
    cluster.until_ticking(job, attempt=2)
    view = cluster.finish(job)
    assert [attempt["state"] for attempt in view["attempts"]] == ["FAILED", "SUCCEEDED"]
    failure = view["attempts"][0]["first_failure"]
    assert (failure["rank"], failure["signal"]) == (1, "SIGKILL")
    assert view["restarts"] == 1
    for rank in (0, 1):
        ticks = [line for line in cluster.log(job.id, 1, rank).splitlines() if "tick" in line]
        resumed = int(cluster.log(job.id, 2, rank).split()[1])
        # Killed between the print and the checkpoint it may have one tick more in its log.
        assert int(ticks[-1].split()[1]) - resumed in (0, 1)
    cluster.check_once(job.id)


def test_a_killed_guard_takes_its_ranks_along(cluster: Cluster) -> None:
    job = cluster.steady()
    first, guard = cluster.pids(job.id), cluster.guard(job.id)
    guard.kill()
    until(lambda: not any(psutil.pid_exists(pid) for pid in first), "its ranks to die", 5)
    cluster.until_ticking(job, attempt=2)
    view = cluster.finish(job)
    assert [attempt["state"] for attempt in view["attempts"]] == ["LOST", "SUCCEEDED"]
    assert "guard was killed" in view["attempts"][0]["reason"]
    cluster.check_once(job.id)


def test_a_rank_that_ignores_sigterm_is_killed_after_its_grace(cluster: Cluster) -> None:
    job = cluster.steady("--deaf", grace=GRACE)
    pids = cluster.pids(job.id)
    cluster.client.post(f"/v1/jobs/{job.id}/cancel")
    began = time.monotonic()
    until(lambda: not any(psutil.pid_exists(pid) for pid in pids), "the ranks to be killed", 10)
    assert GRACE - 0.2 < time.monotonic() - began < GRACE + 2
    view = cluster.wait(job.id)
    assert view["state"] == "CANCELLED"
    assert [rank["signal"] for rank in view["attempts"][0]["ranks"]] == ["SIGKILL"] * 2
    cluster.check_once(job.id)


@pytest.mark.slow
def test_ranks_stop_when_their_lease_ends_and_none_start_before(cluster: Cluster) -> None:
    job = cluster.steady(lease=10.0, grace=GRACE)
    first, agent = cluster.pids(job.id), cluster.agent()
    agent.send_signal(signal.SIGSTOP)
    stopped = time.monotonic()
    try:
        until(lambda: not any(psutil.pid_exists(pid) for pid in first), "the lease to end", 30)
        assert 5 < time.monotonic() - stopped < 10 + GRACE + 2
        ended = time.clock_gettime(time.CLOCK_BOOTTIME)
        assert cluster.job(job.id)["attempt"] == 1, "it is not said to be dead before it must be"
        until(lambda: cluster.job(job.id)["attempts"][0]["state"] == "LOST", "it to be lost", 30)
    finally:
        agent.send_signal(signal.SIGCONT)
    cluster.until_ticking(job, attempt=2)
    began = float(cluster.log(job.id, 2, 0).split()[5])
    assert began > ended
    view = cluster.finish(job)
    assert [attempt["state"] for attempt in view["attempts"]] == ["LOST", "SUCCEEDED"]
    cluster.check_once(job.id)


@pytest.mark.slow
@pytest.mark.parametrize("part", ["controller", "agent"])
def test_killed_at_any_moment_of_a_launch_each_rank_starts_once(
    cluster: Cluster, part: str
) -> None:
    """From the submit to the first line takes some 0.3 s: the kills are spread over that."""
    ledger = cluster.home / f"ledger-{part}"
    jobs = []
    for moment in range(4):
        jobs.append(cluster.submit(f"echo $QD_RUN/$RANK >> {ledger}; sleep 1", procs_per_node=2))
        time.sleep(moment * 0.1)
        (cluster.controller() if part == "controller" else cluster.agent()).kill()
        assert cluster.wait(jobs[-1])["state"] == "SUCCEEDED"
    started = ledger.read_text().split()
    assert len(set(started)) == len(started)
    for job in jobs:
        view = cluster.job(job)
        # The agent may be killed between the guard's first steps: then that attempt starts nothing.
        assert part == "agent" or len(view["attempts"]) == 1
        runs = {line.partition("/")[0] for line in started if line.startswith(f"{job}.")}
        assert runs == {view["attempts"][-1]["id"]}
