"""A host is switched off in the middle of a training, and the gang goes on elsewhere from its last copy."""

from __future__ import annotations

import sys
from typing import Any

from tests.cluster.fleet import GATE, Fleet
from tests.cluster.hosts import ROOT
from tests.waiting import until

SHARDS = ROOT / "tests" / "cluster" / "shards.py"


def test_a_gang_goes_on_from_its_last_copy_when_a_host_is_gone(fleet: Fleet) -> None:
    for host in fleet.network.hosts:
        (host.folder / "tmp" / "gate").unlink(missing_ok=True)
    command = f"{sys.executable} {SHARDS} {GATE}"
    job = fleet.submit(command, lease=8.0, checkpoint={"every": 0, "copy": "all"})

    def copied() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = fleet.job(job)["checkpoint"]["copies"]
        return found

    until(lambda: copied() and (copied()[0]["step"] or 0) >= 10, "a copy of step 10")
    fleet.spare(True)
    fleet.host("w1").power_off()
    until(lambda: "begins at" in fleet.log(job, 2, 0), "the next attempt", patience=60)
    until(lambda: "begins at" in fleet.log(job, 2, 1), "its other rank")
    assert sorted(fleet.ranks(job, 2)) == ["head", "w2"]
    ranks = {rank["node"]: rank["rank"] for rank in fleet.attempt(job, 2)["ranks"]}
    newest = next(copy for copy in copied() if copy["attempt"] == 1)
    assert newest["step"] >= 10
    both = [n.partition("-step-")[2] for n in newest["names"] if n.startswith("rank0")]
    whole = [n for n in both if f"rank1-step-{n}" in newest["names"]]
    begun = max(int(n.removesuffix(".pt")) for n in whole)
    logs = [fleet.log(job, 2, ranks[host]).splitlines()[0] for host in ("head", "w2")]
    # Both have all shards of it; w2 has later ones of its own, which are worth nothing alone.
    assert [int(line.split()[2]) for line in logs] == [begun] * 2, logs
    assert "torn" not in logs[0]
    fleet.spare(False)
    fleet.join_again(fleet.host("w1"))
    fleet.finish(job)
