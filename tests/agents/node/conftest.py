"""A real agent with real guards in a temporary folder, and nothing left behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from agents.node import checked
from agents.node.agent import NodeAgent
from agents.node.config import AgentConfig
from agents.node.guard import records
from jobs.wire.messages import (
    PROTOCOL,
    AttemptReport,
    GpuFacts,
    LaunchPlan,
    LaunchRequest,
    NodeSample,
    StageReply,
    StopRequest,
    SyncReply,
    SyncRequest,
)

PATIENCE = 60.0
"""Seconds within which anything here must have happened, on a machine that is busy."""


class FakeGpus:
    """A few simulated GPUs that take no time to look at."""

    def __init__(self, count: int) -> None:
        self.uuids = [f"SIM-{index}" for index in range(count)]

    def facts(self) -> list[GpuFacts]:
        return [
            GpuFacts(index=index, uuid=uuid, model="Fake", memory=1 << 30, simulated=True)
            for index, uuid in enumerate(self.uuids)
        ]

    def sample(self, bound: Mapping[str, Sequence[int]]) -> list[Any]:
        return []

    def driver(self) -> tuple[str, str]:
        return "", ""

    def problems(self) -> list[str]:
        return []

    def close(self) -> None:
        pass


class NoSamples:
    """A sampler whose samples never come, so that a sync is not answered because of one."""

    def sample(self, bound: Mapping[str, Sequence[int]], now: float) -> NodeSample:
        raise OSError("not measured in this test")


def plan_of(key: str = "c-j1.1", epoch: int = 1, /, *argv: str, **changes: Any) -> LaunchPlan:
    """A plan for one node; `procs` ranks, no GPUs, short graces."""
    job, attempt = key.rpartition("-")[2].split(".")
    procs = changes.get("procs", 1)
    plan: dict[str, Any] = {
        "key": key,
        "job": job,
        "attempt": int(attempt),
        "epoch": epoch,
        "kind": "gang",
        "node_rank": 0,
        "nnodes": 1,
        "procs": procs,
        "first_rank": 0,
        "world_size": procs,
        "argv": list(argv) or ["true"],
        "env": {},
        "python": None,
        "requirements": None,
        "snapshot": None,
        "gpus": 0,
        "cpus": 1,
        "memory": None,
        "params": {},
        "seed": None,
        "grace": 5.0,
        "notice": 0.2,
        "lease": 90.0,
        "outputs": {},
        "user": "tester",
    }
    return LaunchPlan(**{**plan, **changes})  # type: ignore[typeddict-item]


class Node:
    """A node under test: an agent that can be replaced by a new one on the same folder."""

    def __init__(self, root: Path, gpus: int = 0) -> None:
        self.root, self.gpus = root, gpus
        self.agent = self.make()

    def make(self) -> NodeAgent:
        config = AgentConfig(self.root, "n1", "c", checkpoint_root=None)
        return NodeAgent(config, FakeGpus(self.gpus), NoSamples())

    async def restart(self) -> None:
        await self.agent.close()
        self.agent = self.make()
        await self.agent.start()

    def folder(self, key: str = "c-j1.1") -> Path:
        return self.root / "attempts" / key

    def tag(self, key: str = "c-j1.1") -> str:
        return f"{key}@{self.root}"

    def request(self, key: str = "c-j1.1", epoch: int = 1, **changes: Any) -> LaunchRequest:
        request: dict[str, Any] = {
            "key": key,
            "epoch": epoch,
            "master_addr": "127.0.0.1",
            "master_port": 29500,
            "node_addresses": ["127.0.0.1"],
            "secrets": {},
            "lease_until": records.boot_clock() + 60,
        }
        return LaunchRequest(**{**request, **changes})  # type: ignore[typeddict-item]

    async def stage(self, plan: LaunchPlan) -> StageReply:
        """Stage until it is ready or failed, or blobs are missing."""
        deadline = time.monotonic() + PATIENCE
        while True:
            reply = await self.agent.stage(plan)
            if reply["state"] != "working" or reply["missing"] or time.monotonic() > deadline:
                return reply
            await asyncio.sleep(0.01)

    async def stage_ready(self, *argv: str, **changes: Any) -> StageReply:
        """Stage c-j1.1."""
        reply = await self.stage(plan_of("c-j1.1", 1, *argv, **changes))
        assert reply["state"] == "ready", reply
        return reply

    async def run(self, *argv: str, **changes: Any) -> AttemptReport:
        """Stage and launch c-j1.1."""
        await self.stage_ready(*argv, **changes)
        return await self.agent.launch(self.request())

    async def stop(self, key: str = "c-j1.1", epoch: int = 1, grace: float = 5.0) -> AttemptReport:
        return await self.agent.stop(
            StopRequest(key=key, epoch=epoch, grace=grace, reason="cancelled")
        )

    async def sync(self, **changes: Any) -> SyncReply:
        request: dict[str, Any] = {
            "protocol": PROTOCOL,
            "seen": 0,
            "wait": 0.0,
            "leases": {},
            "logs": {},
            "metrics": {},
            "forget": [],
            "max_bytes": 1 << 20,
        }
        return await self.agent.sync(SyncRequest(**{**request, **changes}))  # type: ignore[typeddict-item]

    async def report(self, key: str = "c-j1.1") -> AttemptReport:
        reply = await self.sync()
        return next(report for report in reply["attempts"] if report["key"] == key)

    async def until(
        self, test: Callable[[AttemptReport], bool], key: str = "c-j1.1"
    ) -> AttemptReport:
        """Wait, as the controller does, until the attempt's report passes a test."""
        deadline, seen = time.monotonic() + PATIENCE, 0
        while True:
            reply = await self.sync(seen=seen, wait=0.5)
            seen = reply["revision"]
            report = next(report for report in reply["attempts"] if report["key"] == key)
            if test(report):
                return report
            assert time.monotonic() < deadline, report

    async def end(self, key: str = "c-j1.1") -> AttemptReport:
        return await self.until(lambda report: report["state"] == "ended", key)

    async def log(self, text: str, rank: int = 0, key: str = "c-j1.1") -> bytes:
        """Wait until a rank's log has this text."""
        path = self.folder(key) / f"rank-{rank}.log"
        await eventually(lambda: path.exists() and text.encode() in path.read_bytes())
        return path.read_bytes()

    def guard_pid(self, key: str = "c-j1.1") -> int:
        handle = records.read_json(str(self.folder(key) / records.HANDLE))
        assert handle is not None
        return int(handle["pid"])

    def processes(self, key: str = "c-j1.1") -> list[int]:
        return list(records.tagged(self.tag(key)))


async def eventually(test: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not test():
        assert time.monotonic() < deadline, "it did not happen"
        await asyncio.sleep(0.01)


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """An agent's folder. What still runs from it at the end is killed, and fails the test."""
    folder = tmp_path / "node"
    yield folder
    left = []
    for attempt in folder.glob("attempts/*"):
        handle = checked.handle(attempt)
        if handle and records.start_time(handle["pid"]) == handle["start_time"]:
            left.append(f"guard of {attempt.name}")
            with contextlib.suppress(OSError):
                os.kill(handle["pid"], signal.SIGKILL)
        tag = f"{attempt.name}@{folder}"
        pids = list(records.tagged(tag))
        if pids:
            left.append(f"{len(pids)} processes of {attempt.name}")
        while records.kill_left_over(tag, handle["cgroup"] if handle else None):
            time.sleep(0.01)
        if handle and handle["cgroup"] and Path(handle["cgroup"]).exists():
            left.append(handle["cgroup"])
            Path(handle["cgroup"]).rmdir()
    assert not left


@pytest.fixture
async def node(root: Path) -> AsyncIterator[Node]:
    """A node without GPUs. At the end its attempts are stopped and must be gone."""
    node = Node(root)
    await node.agent.start()
    try:
        yield node
    finally:
        await end_all(node)


async def end_all(node: Node) -> None:
    try:
        for report in (await node.sync())["attempts"]:
            if report["state"] != "ended":
                await node.stop(report["key"], report["epoch"], grace=0.0)
                await node.end(report["key"])
        for report in (await node.sync())["attempts"]:
            handle = checked.handle(node.folder(report["key"]))
            if handle:  # its record is written just before it ends

                def over(pid: int = handle["pid"], began: float = handle["start_time"]) -> bool:
                    return records.start_time(pid) != began

                await eventually(over)
    finally:
        await node.agent.close()
