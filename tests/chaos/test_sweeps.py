"""The controller is killed while a sweep runs: every trial is told once, and none is lost."""

from __future__ import annotations

from collections import Counter

import psutil
import pytest

from tests import sweeping
from tests.chaos.cluster import Cluster
from tests.waiting import until

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]


@pytest.mark.parametrize(
    ("trials", "kills"), [(24, 2), pytest.param(100, 5, marks=pytest.mark.slow)]
)
def test_a_sweep_outlives_controllers_that_are_killed(
    cluster: Cluster, trials: int, kills: int
) -> None:
    ledger = cluster.home / f"ledger-{trials}"
    command = f"echo $QD_RUN >> {ledger}; {sweeping.LOSS} sleep 0.3"
    sweep = sweeping.start(cluster.client, command, trials=trials, parallel=4)
    for kill in range(kills):
        seen = trials * (kill + 0.5) / kills  # spread over the whole of it

        def reached(seen: float = seen) -> bool:
            return ledger.exists() and len(ledger.read_text().split()) >= seen

        until(reached, f"{seen:g} trials")
        victim = cluster.controller()
        victim.kill()
        psutil.wait_procs([victim], timeout=5)
    view = sweeping.ended(cluster.client, sweep, 240)
    assert (view["state"], view["reason"]) == ("FINISHED", f"all {trials} trials are done")
    rows = sweeping.check_told_once(cluster.client, cluster.places.state / "state.db", sweep)
    assert [row["number"] for row in rows] == list(range(trials))
    assert {row["state"] for row in rows} == {"COMPLETE"}
    assert len({row["params"]["x"] for row in rows}) == trials, "the seed does not begin again"
    runs = Counter(ledger.read_text().split())
    assert runs == Counter(f"{row['job']}.1" for row in rows), "each trial has run once"
    names = [item["name"] for item in cluster.client.get("/v1/sweeps") if item["id"] == sweep]
    assert names == ["probe"]
    until(
        lambda: not sweeping.reservations(cluster.places, cluster.environ), "no reservation is left"
    )
