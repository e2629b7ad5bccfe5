"""Sweeps on a real cluster: what ends them, what their trials may do, and that nothing is left."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress

import psutil
import pytest

from tests import sweeping
from tests.integration.conftest import Cluster, processes_of, until

pytestmark = pytest.mark.ray


@pytest.fixture(autouse=True)
def nothing_left(cluster: Cluster) -> Iterator[None]:
    """After each test: no process of a trial, no folder of an attempt, no GPU and no reservation held."""
    yield

    def idle() -> bool:
        (node,) = cluster.client.get("/v1/nodes")
        return (node["free_gpus"], node["free_cpus"], node["jobs"]) == (2, 4, [])

    until(idle)
    until(lambda: not list((cluster.where.node / "attempts").iterdir()))
    ranks = []
    for process in processes_of(cluster.where.state.parent):
        with suppress(psutil.Error):
            ranks += [process.cmdline()] if "QD_GUARD" in process.environ() else []
    assert ranks == []
    until(lambda: not sweeping.reservations(cluster.where, cluster.environ))


def test_a_grid_with_points_that_fail_is_tried_to_its_end(cluster: Cluster) -> None:
    """A third of the points fails, one gives NaN, one says nothing; the sweep ends by itself."""
    log = sweeping.LOSS.replace("{x}", "{n}")
    command = (
        f"case {{n}} in 3|6|9) echo broken; exit 3;; 4) {log.replace('{n}', 'null')};; 5) ;; "
        f"*) {log};; esac"
    )
    sweep = sweeping.start(
        cluster.client,
        command,
        space={"n": {"low": 1, "high": 9}},
        sampler="grid",
        parallel=4,
    )
    view = sweeping.ended(cluster.client, sweep)
    assert (view["state"], view["reason"]) == ("FINISHED", "all 9 trials are done")
    rows = sweeping.check_told_once(cluster.client, cluster.where.state / "state.db", sweep)
    by_point = {row["params"]["n"]: row for row in rows}
    assert sorted(by_point) == list(range(1, 10))
    assert Counter(row["state"] for row in rows) == {"COMPLETE": 4, "FAILED": 5}
    assert "exit code 3" in by_point[3]["reason"]
    assert "not a number" in by_point[4]["reason"]
    assert "never logged 'loss'" in by_point[5]["reason"]
    assert view["best"]["params"] == {"n": 1}


def test_an_objective_that_no_trial_reports_ends_the_sweep(cluster: Cluster) -> None:
    sweep = sweeping.start(cluster.client, "true", trials=50, parallel=2)
    view = sweeping.ended(cluster.client, sweep)
    assert view["state"] == "FAILED"
    assert "none has logged the objective" in view["reason"]
    assert view["counts"]["total"] < 10
    sweeping.check_told_once(cluster.client, cluster.where.state / "state.db", sweep)


def test_a_time_budget_ends_in_time_and_counts_what_was_in_flight(cluster: Cluster) -> None:
    began = time.monotonic()
    sweep = sweeping.start(
        cluster.client,
        f"{sweeping.LOSS} exec sleep 100",
        parallel=3,
        budget={"time": "3s"},
    )
    view = sweeping.ended(cluster.client, sweep)
    assert time.monotonic() - began < 15
    assert (view["state"], view["reason"]) == ("FINISHED", "its time of 3s is used up")
    assert view["counts"]["cancelled"] == view["counts"]["total"] == 3
    rows = sweeping.check_told_once(cluster.client, cluster.where.state / "state.db", sweep)
    assert {row["state"] for row in rows} == {"CANCELLED"}


def test_two_trials_share_a_gpu(cluster: Cluster) -> None:
    gate = cluster.where.state.parent / "gate"
    command = f"{sweeping.LOSS} while ! test -e {gate}; do sleep 0.1; done"
    sweep = sweeping.start(
        cluster.client,
        command,
        job={"resources": {"cpu": 0.5, "gpu": 0.5}},
        trials=6,
        parallel=4,
    )

    def running() -> list[str]:
        rows = sweeping.trials(cluster.client, sweep)
        return [gpu for row in rows if row["state"] == "RUNNING" for gpu in row["gpus"]]

    until(lambda: len(running()) == 4)
    assert sorted(Counter(running()).values()) == [2, 2], "two on each of the two"
    gate.touch()
    view = sweeping.ended(cluster.client, sweep)
    assert view["counts"]["complete"] == 6
    gate.unlink()
