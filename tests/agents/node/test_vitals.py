"""Signs of life: what processes do, and rhythms that outlive the agent."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

from agents.node.guard import records
from agents.node.vitals import EVERY, QUIET, Signs, state_of
from jobs.wire.messages import AttemptReport, RankVitals
from tests.agents.node.conftest import Node

TALK = "i=0; while :; do i=$((i+1)); echo line $i; sleep 0.05; done"


def vitals(report: AttemptReport, rank: int = 0) -> RankVitals:
    return report["ranks"][rank]["vitals"]


async def test_a_rank_that_is_stopped_is_told(node: Node) -> None:
    report = await node.run("sh", "-c", TALK, procs=2)
    pid = report["ranks"][1]["pid"]
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    report = await node.until(lambda report: vitals(report, 1)["process"] == "stopped")
    assert vitals(report, 0)["process"] in ("sleeping", "running")
    os.kill(pid, signal.SIGCONT)
    report = await node.until(lambda report: vitals(report, 1)["process"] != "stopped")
    await node.stop(grace=0.0)
    report = await node.end()
    assert all("vitals" not in rank for rank in report["ranks"])


async def test_a_rank_has_the_rhythm_of_what_it_writes(node: Node) -> None:
    await node.run("sh", "-c", TALK)
    report = await node.until(lambda report: vitals(report)["usual"] is not None)
    assert vitals(report)["quiet"] < 5
    assert vitals(report)["kept"] > 0


async def test_a_new_agent_knows_the_rhythm_of_the_old_one(node: Node) -> None:
    """And for how long it has been quiet, of which nobody was there to see the beginning."""
    await node.run(
        "sh", "-c", "for i in 1 2 3 4 5 6 7; do echo $i; sleep 0.25; done; exec sleep 99"
    )
    await node.until(lambda report: vitals(report)["quiet"] > 0.6)
    before = vitals(await node.report())
    await node.restart()
    after = vitals(await node.report())
    assert after["quiet"] >= before["quiet"]
    assert after["usual"] is not None
    assert after["kept"] > 1


async def test_metrics_are_signs_of_life_too(node: Node) -> None:
    script = 'while :; do echo "{}" >> $QD_METRICS_FILE; sleep 0.05; done'
    await node.run("sh", "-c", script)
    report = await node.until(lambda report: vitals(report)["usual"] is not None)
    assert report["ranks"][0]["log_size"] == 0
    await node.restart()  # of metrics no times are kept, but the file has one
    assert vitals(await node.report())["quiet"] < 5


def test_a_stopped_child_is_found_only_when_it_is_looked_for() -> None:
    with subprocess.Popen(["sh", "-c", "sleep 99; :"], start_new_session=True) as shell:
        try:
            child = first_child(shell.pid)
            os.kill(child, signal.SIGSTOP)
            wait_for(lambda: state_of(child, children=False) == "stopped")
            wait_for(lambda: state_of(shell.pid, children=False) == "sleeping")
            assert state_of(shell.pid, children=True) == "stopped"
        finally:
            os.killpg(shell.pid, signal.SIGKILL)


def first_child(pid: int) -> int:
    path = Path(f"/proc/{pid}/task/{pid}/children")
    wait_for(lambda: bool(path.read_text()))
    child = int(path.read_text().split()[0])
    # Between vfork and exec its parent cannot run, and could not be told from one that hangs.
    wait_for(lambda: Path(f"/proc/{child}/comm").read_text() == "sleep\n")
    return child


def wait_for(test: Callable[[], bool]) -> None:
    end = records.boot_clock() + 10
    while not test():
        assert records.boot_clock() < end


def test_a_process_that_is_not_there_has_no_state(tmp_path: Path) -> None:
    assert state_of(1, children=True, proc=tmp_path) == ""


def test_a_command_with_brackets_in_its_name_is_read_right(tmp_path: Path) -> None:
    for pid, name, state in ((7, "a) T (b", "S"), (8, "x", "D")):
        (tmp_path / f"{pid}" / "task" / f"{pid}").mkdir(parents=True)
        (tmp_path / f"{pid}" / "stat").write_text(f"{pid} ({name}) {state} 1 1")
    (tmp_path / "7/task/7/children").write_text("8 ")
    assert state_of(7, children=True, proc=tmp_path) == "sleeping"
    assert state_of(8, children=True, proc=tmp_path) == "disk"


def test_looks_are_few_and_only_the_quiet_are_looked_at_whole() -> None:
    signs = Signs(since=100.0)
    signs.look(os.getpid(), 100.0)
    assert signs.process in ("running", "sleeping")
    signs.process = "before"
    signs.look(os.getpid(), 100.0 + EVERY / 2)
    assert signs.process == "before", "not yet due"
    signs.look(os.getpid(), 100.0 + EVERY)
    assert (signs.process, signs.process_since) == ("running", 100.0 + EVERY)
    assert signs.quiet(100.0 + QUIET) == QUIET, "counted from its start"
    signs.wrote(103.0)
    assert signs.quiet(100.0 + QUIET) == QUIET - 3
