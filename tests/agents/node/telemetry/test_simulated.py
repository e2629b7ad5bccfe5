"""Simulated GPUs: what they show follows from what the bound processes do, and from nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from agents.node.telemetry import open_gpus
from agents.node.telemetry.processes import Process, parse_stat, process_table, trees
from agents.node.telemetry.simulated import MEMORY, SimulatedGpus, utilisation
from jobs.base.errors import InvalidInput
from tests.agents.node.telemetry.contract import keeps

GIB = 2**30


def process(pid: int, parent: int = 1, cpu: float = 0.0, rss: int = 0, started: int = 0) -> Process:
    return Process(pid, parent, started, cpu, rss)


class World:
    """A clock and a process table to move by hand."""

    def __init__(self) -> None:
        self.now = 0.0
        self.processes: list[Process] = []

    def gpus(self, count: int = 2) -> SimulatedGpus:
        return SimulatedGpus(
            count, "n1", lambda: self.now, lambda: {p.pid: p for p in self.processes}
        )


@pytest.mark.parametrize("gpus", [0, 1, 3])
def test_they_keep_to_the_contract_of_real_ones(gpus: int) -> None:
    keeps(open_gpus(gpus, node="n1"), gpus)


def test_facts_are_marked_and_stay_the_same_after_a_restart() -> None:
    facts = open_gpus(2, node="n1").facts()
    assert facts == open_gpus(2, node="n1").facts() != open_gpus(2, node="n2").facts()
    assert [fact["simulated"] for fact in facts] == [True, True]
    assert [fact["uuid"] for fact in facts] == [f"{facts[0]['uuid'][:-2]}-{i}" for i in (0, 1)]
    assert facts[0]["uuid"].startswith("SIM-")
    assert facts[0]["model"] == "Simulated GPU"
    assert open_gpus(0).facts() == []
    with pytest.raises(InvalidInput):
        open_gpus(-1)


def test_a_gpu_shows_the_work_of_its_ranks_and_their_children() -> None:
    world = World()
    gpus = world.gpus()
    busy, idle = (fact["uuid"] for fact in gpus.facts())
    # A shell (10) that runs a rank (11) with a data loader (12); another rank (20) is elsewhere.
    world.processes = [process(10), process(11, 10), process(12, 11), process(20)]
    gpus.sample({busy: [10]})

    world.now = 2.0
    world.processes = [
        process(10),
        process(11, 10, cpu=0.8, rss=GIB),
        process(12, 11, cpu=0.2, rss=2 * GIB),
        process(20, cpu=2.0, rss=GIB),
    ]
    first, second = gpus.sample({busy: [10]})

    assert (first["util"], first["mem_used"], first["power"], first["temp"]) == (
        50.0, 3 * GIB, 180.0, 55.0,
    )  # fmt: skip
    assert [p["pid"] for p in first["processes"]] == [10, 11, 12]
    assert (second["uuid"], second["util"], second["mem_used"]) == (idle, 0.0, 0)
    assert (second["power"], second["temp"], second["processes"]) == (60.0, 35.0, [])
    assert first["simulated"] and first["error"] == "" and first["ecc_errors"] is None


def test_memory_and_utilisation_stay_within_a_gpu() -> None:
    world = World()
    gpus = world.gpus(1)
    (uuid,) = (fact["uuid"] for fact in gpus.facts())
    world.processes = [process(10), process(11)]
    gpus.sample({uuid: [10, 11]})
    world.now = 1.0
    world.processes = [process(10, cpu=1.0, rss=MEMORY), process(11, cpu=1.0, rss=MEMORY)]
    (sample,) = gpus.sample({uuid: [10, 11]})
    assert (sample["util"], sample["mem_used"], sample["power"]) == (100.0, MEMORY, 300.0)


def test_a_dead_rank_and_a_pid_that_came_again() -> None:
    world = World()
    gpus = world.gpus(1)
    (uuid,) = (fact["uuid"] for fact in gpus.facts())
    world.processes = [process(10, cpu=500.0, started=1)]
    gpus.sample({uuid: [10]})
    world.now = 1.0
    world.processes = [process(10, cpu=900.0, started=2)]  # somebody else's time
    assert gpus.sample({uuid: [10]})[0]["util"] == 0.0
    world.now = 2.0
    world.processes = []
    sample = gpus.sample({uuid: [10]})[0]
    assert (sample["util"], sample["mem_used"], sample["processes"]) == (0.0, 0, [])


def test_utilisation_needs_time_to_pass() -> None:
    assert utilisation({(1, 1): 0.0}, {(1, 1): 1.0}, 0.0) == 0.0
    assert utilisation({(1, 1): 0.0}, {(1, 1): 0.25}, 1.0) == 25.0
    assert utilisation({}, {(1, 1): 5.0}, 1.0) == 0.0


def test_names_with_brackets_and_spaces_are_parsed() -> None:
    tail = "S 7 " + " ".join(str(i) for i in range(5, 25))
    parsed = parse_stat(f"42 (a) (b c) {tail}")
    assert (parsed.pid, parsed.parent, parsed.started) == (42, 7, 22)
    assert parsed.cpu == (14 + 15) / os.sysconf("SC_CLK_TCK")
    assert parsed.rss == 24 * os.sysconf("SC_PAGE_SIZE")
    with pytest.raises(ValueError, match="not a line"):
        parse_stat("42 (gone)")


def test_trees_visit_each_process_once() -> None:
    table = {p.pid: p for p in [process(1, 0), process(2, 1), process(3, 2), process(9, 0)]}
    assert sorted(p.pid for p in trees(table, [1, 2, 404])) == [1, 2, 3]
    assert [p.pid for p in trees({5: process(5, 5)}, [5])] == [5]  # its own parent


def test_a_real_busy_process_moves_the_gauges() -> None:
    spin = "import os; print(os.getpid(), flush=True)\nwhile os.getppid() > 1: pass"
    shell = subprocess.Popen(
        ["/bin/sh", "-c", f'"{sys.executable}" -c "{spin}"; true'],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert shell.stdout is not None
    child = int(shell.stdout.readline())
    try:
        gpus = open_gpus(1)
        uuid = gpus.facts()[0]["uuid"]
        gpus.sample({uuid: [shell.pid]})
        deadline = time.monotonic() + 20
        while (sample := gpus.sample({uuid: [shell.pid]})[0])["util"] == 0.0:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert child in process_table()
        assert {p["pid"] for p in sample["processes"]} == {shell.pid, child}
        assert sample["mem_used"] is not None and sample["mem_used"] > 2**20
        assert sample["power"] is not None and sample["power"] > 60
    finally:
        os.kill(child, 9)
        shell.communicate(timeout=20)
