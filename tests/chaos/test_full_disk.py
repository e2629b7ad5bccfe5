"""A disk that is full, and a death at that moment: what could not be written down is found all the same."""

from __future__ import annotations

import contextlib

import psutil
import pytest

from agents.supervisor import record as records
from agents.supervisor import solo
from agents.supervisor.process import Identity
from tests.chaos.cluster import Cluster, running
from tests.waiting import until

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(180)]

SMALL, LARGE = 64 << 10, 512 << 10
"""KiB for the registry and for what belongs to the node."""


def holder(cluster: Cluster) -> Identity | None:
    return solo.known(cluster.places, None).get("controller")


def test_a_controller_that_was_never_written_down_stays_the_only_one() -> None:
    with running(disks=(SMALL, LARGE)) as cluster:
        if not cluster.places.state.is_mount():
            pytest.skip("a small file system cannot be mounted here")
        ballast, first = cluster.places.state / "ballast", cluster.controller()
        until(lambda: holder(cluster), "the controller to hold its lock")
        with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))
        first.kill()
        psutil.wait_procs([first], timeout=5)
        second = until(lambda: holder(cluster), "another controller")
        record = records.read(cluster.places.cluster_file)
        assert record is not None
        assert second is not None
        assert records.processes(record)["controller"] != second, "there was no room to write it"
        psutil.Process(record["supervisor"]["pid"]).kill()
        ballast.unlink()
        cluster.up()
        assert cluster.controller().pid == second.pid, "adopted"
        words = [process.cmdline() for process in cluster.processes()]
        assert sum("agents.daemon" in command for command in words) == 1
        assert cluster.wait(cluster.submit("true"))["state"] == "SUCCEEDED"
