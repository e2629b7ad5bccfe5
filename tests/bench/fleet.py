"""A large fleet for a real controller: `python -m tests.bench.fleet FOLDER` serves its API at FOLDER/api.

The agents are stand-ins in the same process: they answer as real ones do (samples each second, leases,
reports), and whatever they are told to launch runs until it is stopped. The fabric's room is counted.
Once the fleet is full and the queue is long, a line with how long that took goes to stdout; a line on
stdin asks for the figures and ends it.
"""

from __future__ import annotations

import asyncio
import gc
import json
import random
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import uvicorn

from agents.controller.api import create_app
from agents.controller.api.identity import PeerProtocol
from agents.controller.commands.requests import SubmitRequest, Submitted
from agents.controller.commands.submitting import submit
from agents.controller.controller import Controller
from agents.controller.nodes.fabric import Bundle, FabricNode
from agents.daemon import TURN, bind
from jobs.base.errors import NotFound
from jobs.spec.job import JobSpec
from jobs.store.writing import Caller
from jobs.wire import messages as wire

NODES, GPUS, CPUS = 1_000, 8, 64
QUEUED = 10_000
TOGETHER = 200
"""Submissions under way at once while the queue is filled."""
SETTLE = 10.0
"""Seconds of rest before anything is measured."""

_GIB = 1 << 30


class Agent:
    """One node's agent. See `jobs.wire.messages.AgentClient`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._reports: dict[str, wire.AttemptReport] = {}
        self._revision, self._given = 1, 0.0
        self._news = asyncio.Event()
        self._gpus = [f"{name}-{n}" for n in range(GPUS)]
        self._phase = random.random()
        self._samples = [_gpu(i, uuid) for i, uuid in enumerate(self._gpus)]

    async def hello(self) -> wire.Hello:
        return {
            "protocol": wire.PROTOCOL,
            "version": "0",
            "node": self.name,
            "boot_id": "boot",
            "clock": time.monotonic(),
            "facts": {
                "cpus": CPUS,
                "memory": 512 * _GIB,
                "gpus": [
                    {
                        "index": i,
                        "uuid": uuid,
                        "model": "H100",
                        "memory": 80 << 30,
                        "simulated": True,
                    }
                    for i, uuid in enumerate(self._gpus)
                ],
                "driver": "",
                "cuda": "",
                "kernel": "",
                "python": "",
                "ray": "",
            },
            "attempts": list(self._reports.values()),
            "problems": [],
        }

    async def stage(self, plan: wire.LaunchPlan) -> wire.StageReply:
        self._tell(plan["key"], plan["epoch"], "staged", plan["procs"])
        return {
            "state": "ready",
            "detail": "",
            "missing": [],
            "port": 29_500 if plan["node_rank"] == 0 else None,
            "gpus": self._gpus,
            "clock": time.monotonic(),
        }

    async def launch(self, request: wire.LaunchRequest) -> wire.AttemptReport:
        known = self._reports[request["key"]]
        return self._tell(request["key"], request["epoch"], "running", len(known["ranks"]))

    async def stop(self, request: wire.StopRequest) -> wire.AttemptReport:
        known = self._reports.get(request["key"])
        ranks = len(known["ranks"]) if known else 0
        return self._tell(request["key"], request["epoch"], "ended", ranks)

    def _tell(self, key: str, epoch: int, state: Any, ranks: int) -> wire.AttemptReport:
        started = state != "staged"
        report: wire.AttemptReport = {
            "key": key,
            "epoch": epoch,
            "state": state,
            "outcome": "stopped" if state == "ended" else "",
            "reason": "",
            "first_failed": None,
            "first_failed_at": None,
            "gpus": self._gpus,
            "ranks": [
                {
                    "rank": n,
                    "local_rank": n,
                    "pid": 1000 + n if started else None,
                    "started_at": time.time() if started else None,
                    "exit_code": None,
                    "signal": 15 if state == "ended" else None,
                    "ended_at": None,
                    "log_size": 0,
                    "metrics_size": 0,
                }
                for n in range(ranks)
            ],
        }
        self._reports[key] = report
        self._revision += 1
        self._news.set()
        return report

    async def sync(self, request: wire.SyncRequest) -> wire.SyncReply:
        for key in request["forget"]:
            self._reports.pop(key, None)
        now = time.time()
        sample = now - (now + self._phase) % 1.0
        if request["wait"] and sample == self._given and request["seen"] == self._revision:
            self._news.clear()
            try:
                async with asyncio.timeout(sample + 1.0 - now):
                    await self._news.wait()
            except TimeoutError:
                sample += 1.0
        fresh, self._given = sample != self._given, sample
        return {
            "revision": self._revision,
            "clock": time.monotonic(),
            "boot_id": "boot",
            "attempts": list(self._reports.values()),
            "logs": [],
            "metrics": [],
            "sample": self._sample(sample) if fresh else None,
            "problems": [],
        }

    def _sample(self, at: float) -> wire.NodeSample:
        return {
            "at": at,
            "cpu_util": 50.0,
            "load": 8.0,
            "mem_used": 100 * _GIB,
            "mem_total": 512 * _GIB,
            "disk_used": 1 << 40,
            "disk_total": 2 << 40,
            "net_rx": 0.0,
            "net_tx": 0.0,
            "gpus": self._samples,
        }

    async def put_blobs(self, pack: bytes) -> int:
        return 0

    async def put_chunk(self, digest: str, offset: int, size: int, data: bytes) -> int:
        return size

    async def fetch_blob(self, digest: str, size: int, url: str) -> int:
        return size

    async def stacks(self, key: str) -> list[wire.RankStack]:
        return []

    async def open_shell(self, key: str, rank: int, request: wire.ShellRequest) -> bool:
        raise NotFound("a fleet of no processes has no shells")

    async def shell(
        self, key: str, name: str, kind: str, number: int, data: bytes, wait: float
    ) -> wire.ShellReply:
        raise NotFound("a fleet of no processes has no shells")

    async def exchange(self, key: str, letter: bytes) -> bytes:
        return b""

    async def list_files(
        self, key: str, place: wire.Place, patterns: list[str], written: bool
    ) -> wire.FileList:
        return {"files": [], "more": 0, "until": None}

    async def read_file(
        self, key: str, place: wire.Place, path: str, offset: int, limit: int
    ) -> bytes:
        raise NotFound(f"there is no file {path}")

    async def left_folders(
        self, jobs: list[str] | None, before: float, remove: bool
    ) -> list[wire.LeftFolder]:
        return []

    async def hold(self, key: str, what: str) -> wire.HoldReply:
        return {"state": "ready", "detail": "", "units": []}

    async def hash_file(
        self, key: str, place: wire.Place, path: str, offset: int, limit: int
    ) -> str:
        raise NotFound(f"there is no file {path}")


def _gpu(index: int, uuid: str) -> wire.GpuSample:
    return {
        "index": index,
        "uuid": uuid,
        "model": "H100",
        "simulated": True,
        "util": 90.0,
        "mem_used": 60 * _GIB,
        "mem_total": 80 * _GIB,
        "power": 600.0,
        "power_limit": 700.0,
        "temp": 60.0,
        "sm_clock": 1980,
        "mem_clock": 2619,
        "throttle": [],
        "ecc_errors": 0,
        "ecc_corrected": 0,
        "xid": None,
        "pcie_rx": 0.0,
        "pcie_tx": 0.0,
        "nvlink_rx": 0.0,
        "nvlink_tx": 0.0,
        "processes": [],
        "error": "",
    }


class Fleet:
    """Implements `agents.controller.nodes.fabric.Fabric`."""

    state = "connected"

    def __init__(self) -> None:
        self._agents = {f"n{i}": Agent(f"n{i}") for i in range(NODES)}
        self._held: dict[str, list[Bundle]] = {}
        self._nodes = [
            FabricNode(name, "10.0.0.1", name, CPUS, GPUS, 512 * _GIB) for name in self._agents
        ]

    async def connect(self) -> None:
        pass

    async def nodes(self) -> list[FabricNode]:
        return self._nodes

    async def agent(self, node: FabricNode) -> wire.AgentClient:
        return self._agents[node.name]

    async def reserve(self, name: str, bundles: list[Bundle]) -> bool:
        self._held.setdefault(name, bundles)
        return True

    async def release(self, name: str) -> None:
        self._held.pop(name, None)

    async def reservations(self) -> set[str]:
        return set(self._held)

    async def close(self) -> None:
        pass


def spec(rng: random.Random) -> dict[str, Any]:
    """A job of one of many shapes."""
    nodes, gpus = rng.choice(((1, 1), (1, 2), (1, 4), (1, 8), (2, 8), (4, 8), (16, 8)))
    return JobSpec.from_json(
        {
            "command": "python train.py --config base.yaml",
            "nodes": nodes,
            "procs_per_node": gpus,
            "resources": {"gpu": float(gpus), "cpu": float(gpus * rng.choice((1, 4, 8)))},
            "priority": rng.choice((20, 50, 50, 50, 90)),
            "timeout": rng.choice((None, 600.0, 7200.0)),
        }
    ).to_json()


def full_node() -> dict[str, Any]:
    """A job that takes all of a node."""
    return JobSpec.from_json(
        {
            "command": "python train.py",
            "procs_per_node": GPUS,
            "resources": {"gpu": float(GPUS), "cpu": float(CPUS)},
            "priority": 100,
        }
    ).to_json()


async def fill(controller: Controller, specs: list[dict[str, Any]]) -> float:
    """Submit them, many at once. Seconds."""
    who, began, left = Caller("ann", 1000), time.perf_counter(), iter(enumerate(specs))

    async def one_after_another() -> None:
        for number, wanted in left:
            request = SubmitRequest(spec=wanted, key=f"fill-{began}-{number}")
            await submit(controller, who, Submitted(request, JobSpec.from_json(wanted)))

    await asyncio.gather(*(one_after_another() for _ in range(TOGETHER)))
    return time.perf_counter() - began


def timed(owner: Any, name: str, into: list[float]) -> None:
    """Have a method's CPU-bound duration noted, in seconds."""
    method: Callable[..., Any] = getattr(owner, name)

    def noted(*args: Any) -> Any:
        began = time.perf_counter()
        try:
            return method(*args)
        finally:
            into.append(time.perf_counter() - began)

    setattr(owner, name, noted)


async def serve(folder: Path) -> None:
    sys.setswitchinterval(TURN)  # as the controller's process has it
    controller = await Controller.open(state=folder / "state", fabric=Fleet())
    await controller.start()
    passes: list[float] = []
    timed(controller.reconciler.planner, "decide", passes)
    server = uvicorn.Server(
        uvicorn.Config(create_app(controller), http=PeerProtocol, lifespan="off", log_config=None)
    )
    serving = asyncio.create_task(server._serve([bind(folder / "api")]))
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    while sum(node.facts is not None for node in controller.cluster.nodes.values()) < NODES:  # noqa: ASYNC110
        await asyncio.sleep(0.1)
    began = time.perf_counter()
    await fill(controller, [full_node() for _ in range(NODES)])
    while sum(live.job.state == "RUNNING" for live in controller.reconciler.holding()) < NODES:  # noqa: ASYNC110
        await asyncio.sleep(0.1)
    started = time.perf_counter() - began
    placing = list(passes)
    rng = random.Random(7)
    queued = await fill(controller, [spec(rng) for _ in range(QUEUED)])
    await asyncio.sleep(SETTLE)
    passes.clear()
    _tell({"started": started, "queued": queued, "placing": max(placing)})
    before, process = time.process_time(), time.perf_counter()
    await reader.readline()
    busy = (time.process_time() - before) / (time.perf_counter() - process)
    gc.collect()
    _tell(
        {
            "passes": len(passes),
            "pass": statistics.median(passes),
            "longest": max(passes),
            "memory": psutil.Process().memory_info().rss / 1e6,
            "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
            "busy": busy,
            "live": len(controller.reconciler.live),
        }
    )
    server.should_exit = True
    await serving
    await controller.close()


def _tell(figures: dict[str, Any]) -> None:
    print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1])))
