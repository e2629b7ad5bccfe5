"""A host dies under a sweep: its trials are asked for again elsewhere, and the sampler never knows."""

from __future__ import annotations

from collections import Counter

import pytest

from tests import sweeping
from tests.cluster.fleet import GATE, Fleet
from tests.waiting import until

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]


def test_the_trials_of_a_host_that_dies_run_again_with_the_same_points(fleet: Fleet) -> None:
    for host in fleet.network.hosts:
        (host.folder / "tmp" / "gate").unlink(missing_ok=True)
    # Each start of a trial is noted on the host where it was.
    command = (
        "echo $QD_JOB {x} >> /tmp/starts; "
        f"while ! test -e {GATE}; do sleep 0.1; done; {sweeping.LOSS} true"
    )
    sweep = sweeping.start(
        fleet.client,
        command,
        trials=6,
        parallel=4,
        job={"resources": {"cpu": 1}, "lease": 10.0},
    )

    def running() -> dict[str, list[int]]:
        found: dict[str, list[int]] = {"w1": [], "w2": []}
        for row in sweeping.trials(fleet.client, sweep):
            if row["state"] == "RUNNING":
                found[row["nodes"][0]].append(row["number"])
        return found

    until(lambda: [len(numbers) for numbers in running().values()] == [2, 2], "two on each host")
    before = {row["number"]: row for row in sweeping.trials(fleet.client, sweep)}
    host, lost = fleet.host("w1"), running()["w1"]
    fleet.spare(True)  # the head has room for what w1 had
    host.power_off()
    until(
        lambda: all(
            row["state"] == "RUNNING" and row["nodes"] == ["head"]
            for row in sweeping.trials(fleet.client, sweep)
            if row["number"] in lost
        ),
        "its trials to run elsewhere",
        90,
    )
    fleet.open_gate()
    view = sweeping.ended(fleet.client, sweep)
    assert (view["state"], view["counts"]["complete"]) == ("FINISHED", 6)
    registry = fleet.head.home / "state" / "state.db"
    rows = {row["number"]: row for row in sweeping.check_told_once(fleet.client, registry, sweep)}
    assert all(rows[number]["params"] == row["params"] for number, row in before.items())
    assert {row["state"] for row in rows.values()} == {"COMPLETE"}
    starts = Counter(
        line
        for name in ("head", "w1", "w2")
        if (path := fleet.host(name).folder / "tmp" / "starts").exists()
        for line in path.read_text().splitlines()
    )
    again = [line for line, count in starts.items() if count == 2]
    points = [f"{rows[number]['job']} {rows[number]['params']['x']}" for number in lost]
    assert sorted(again) == sorted(points), "the lost ones, with their points, and no others"
    fleet.spare(False)
    fleet.join_again(host)
