"""What a gang may use of a node's memory."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from agents.node.guard import memlimit
from tests.agents.node.conftest import Node

MIB = 1 << 20

HOG = "import sys, time; x = bytearray(int(sys.argv[1])); time.sleep(60)"
SHARE = """
import os, sys, time
x = bytearray(b"x") * int(sys.argv[1])
for _ in range(4):
    if os.fork() == 0:
        time.sleep(4)
        os._exit(0)
time.sleep(4)
"""


async def test_a_rank_that_holds_more_than_the_job_asked_for_ends_its_gang(node: Node) -> None:
    script = f"if [ $RANK = 1 ]; then exec {sys.executable} -c '{HOG}' {200 * MIB}; fi; sleep 60"
    await node.run("sh", "-c", script, procs=2, memory=150 * MIB)
    report = await node.end()
    assert (report["outcome"], report["first_failed"]) == ("failed", 1)
    assert report["reason"].startswith("rank 1 ran out of memory: ")
    assert "memory: allows 150 MiB" in report["reason"]
    assert node.processes() == []


async def test_what_forks_share_is_counted_once(node: Node) -> None:
    """Data loaders are forks of the rank: all of its memory is in each of them."""
    await node.run(sys.executable, "-S", "-c", SHARE, str(80 * MIB), memory=200 * MIB)
    report = await node.end()
    assert report["outcome"] == "done"


def test_shared_memory_is_told_from_own() -> None:
    block = bytearray(b"x") * (64 * MIB)
    ready, told = os.pipe()
    child = os.fork()
    if child == 0:
        os.read(ready, 1)
        os._exit(0)
    try:
        roughly = memlimit.used([os.getpid()])[os.getpid()]
        exactly = memlimit.used_exactly([os.getpid()])[os.getpid()]
        assert memlimit.over([os.getpid()], (roughly + exactly) // 2) == {}
        assert exactly + 50 * MIB < roughly
        assert sum(memlimit.over([os.getpid()], exactly // 2).values()) > exactly // 2
    finally:
        os.write(told, b"!")
        os.waitpid(child, 0)
        os.close(ready)
        os.close(told)
        del block


def process(proc: Path, pid: int, parent: int, resident: int, pss: int | None) -> None:
    """A process as the kernel tells of it; without `pss`, it has ended since it was listed."""
    folder = proc / str(pid)
    folder.mkdir()
    pages = resident // os.sysconf("SC_PAGE_SIZE")
    (folder / "stat").write_text(f"{pid} (a) b) S {parent} {'0 ' * 19}{pages} 0\n")
    if pss is not None:
        (folder / "smaps_rollup").write_text(f"Rss: 1 kB\nPss: {pss // 1024} kB\n")


def test_a_fork_that_ends_while_it_is_looked_at_holds_nothing(tmp_path: Path) -> None:
    process(tmp_path, 10, 1, 80 * MIB, 80 * MIB)
    process(tmp_path, 11, 10, 80 * MIB, None)
    process(tmp_path, 12, 10, 80 * MIB, None)
    (tmp_path / "12" / "smaps_rollup").mkdir()  # lives, and nobody may look into it
    assert memlimit.used([10], str(tmp_path)) == {10: 240 * MIB}
    assert memlimit.used_exactly([10], str(tmp_path)) == {10: 160 * MIB}


def test_what_is_over_once_is_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """While forks end one after the other, those that are looked at later have larger shares."""
    seen = [{10: 300}, {10: 100}, {10: 300}, {10: 250}]
    monkeypatch.setattr(memlimit, "used", lambda roots: {10: 400})
    monkeypatch.setattr(memlimit, "used_exactly", lambda roots: seen.pop(0))
    assert memlimit.over([10], 200) == {}
    assert memlimit.over([10], 200) == {10: 250}


def test_the_kernel_is_told_where_it_listens(tmp_path: Path) -> None:
    group = tmp_path / "qd-1"
    group.mkdir()
    limit = memlimit.Limit(8 << 30, str(group))
    assert (group / "memory.max").read_text() == str(8 << 30)
    assert (tmp_path / "cgroup.subtree_control").read_text() == "+memory"
    assert limit.passed([os.getpid()], 1e9) is None, "nobody has to look"
    assert limit.story() == ""
    (group / "memory.events").write_text("low 0\noom 1\noom_kill 1\n")
    assert limit.story() == "the kernel killed it, for memory: allows 8.0 GiB here"


def test_a_child_that_the_kernel_killed_ends_the_gang(tmp_path: Path) -> None:
    """The rank lives on, and may wait for it without end."""
    group = tmp_path / "qd-1"
    group.mkdir()
    limit = memlimit.Limit(8 << 30, str(group))
    (group / "memory.events").write_text("low 0\noom 1\noom_kill 1\n")
    assert limit.passed([os.getpid()], 100.0) is None, "if it was a rank, that is reaped meanwhile"
    assert limit.passed([os.getpid()], 100.5) is None
    passed = limit.passed([os.getpid()], 101.0)
    assert passed is not None
    assert passed[0] == os.getpid()
    assert "killed a process of the ranks here, for memory: allows 8.0 GiB" in passed[1]


def test_without_a_cgroup_somebody_looks_once_a_second() -> None:
    limit = memlimit.Limit(MIB, "/nowhere/qd-1")
    passed = limit.passed([os.getpid()], 100.0)
    assert passed is not None
    assert passed[0] == os.getpid()
    assert limit.passed([os.getpid()], 100.5) is None
    assert limit.passed([os.getpid()], 101.0) is not None
    assert memlimit.Limit(None, None).passed([os.getpid()], 100.0) is None
