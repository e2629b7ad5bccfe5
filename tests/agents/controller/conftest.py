"""A whole control plane in one process: real controller, API on a real socket, real agents and guards.
Only Ray is replaced, by `LocalFabric`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
import uvicorn

from agents.controller.api import create_app
from agents.controller.api.identity import PeerProtocol
from agents.controller.commands.stepping import Stepping
from agents.controller.controller import Controller
from agents.controller.stores.blobs import BlobStore
from agents.daemon import bind
from agents.fabric.local import LocalFabric, LocalNode
from agents.node.agent import NodeAgent
from agents.node.config import AgentConfig
from console.client import Client
from jobs.spec.job import JobSpec
from tests.agents.controller.registries import make_empty, postgres_server

DEADLINE = 60.0


@dataclass
class Clock:
    """The controller's monotonic clock; `skip` makes it jump, so that nothing has to wait."""

    offset: float = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.offset

    def skip(self, seconds: float) -> None:
        self.offset += seconds


@dataclass
class WallClock:
    """The controller's unix time, which may be set to another time as an administrator's clock is."""

    offset: float = 0.0

    def __call__(self) -> float:
        return time.time() + self.offset


@dataclass
class Plane:
    """What a test holds."""

    root: Path
    nodes: dict[str, NodeAgent]
    fabric: LocalFabric
    clock: Clock = field(default_factory=Clock)
    now: WallClock = field(default_factory=WallClock)
    database_url: str | None = None
    blobs: Callable[[], BlobStore] | None = None
    controller: Controller = field(init=False)
    _serving: asyncio.Task[None] | None = None
    _server: uvicorn.Server | None = None
    starts: int = 0

    @property
    def client(self) -> Client:
        return Client(self.root / f"api{self.starts}.sock")

    @property
    def gateway_socket(self) -> Path:
        """Where a gateway looks for it whose QD_HOME is `root`."""
        return self.root / "run" / "gateway.sock"

    async def start(self) -> None:
        self.starts += 1
        self.controller = await Controller.open(
            state=self.root / "state",
            blobs=self.blobs() if self.blobs is not None else None,
            fabric=self.fabric,
            database_url=self.database_url,
            now=self.now,
            monotonic=self.clock,
            acts=Stepping,
        )
        await self.controller.start()
        config = uvicorn.Config(
            create_app(self.controller),
            http=PeerProtocol,
            lifespan="off",
            log_config=None,
            timeout_graceful_shutdown=1,
        )
        self._server = uvicorn.Server(config)
        listeners = [bind(self.root / f"api{self.starts}.sock"), bind(self.gateway_socket)]
        self._serving = asyncio.create_task(self._server._serve(listeners))
        await until(lambda: self._server is not None and self._server.started)

    async def stop(self) -> None:
        assert self._server is not None
        assert self._serving is not None
        self._server.should_exit = True
        await self._serving
        await self.controller.close()

    async def restart(self) -> None:
        await self.stop()
        await self.start()

    async def get(self, path: str, **query: Any) -> Any:
        return await asyncio.to_thread(self.client.get, path, **query)

    async def post(self, path: str, body: Any = None) -> Any:
        return await asyncio.to_thread(self.client.post, path, body)

    async def lines(self, path: str, **query: Any) -> list[dict[str, Any]]:
        def read() -> list[dict[str, Any]]:
            with self.client.stream(path, **query) as stream:
                return list(stream)

        return await asyncio.to_thread(read)

    async def submit(self, command: str, *, key: str | None = None, **fields: Any) -> str:
        spec = JobSpec.from_json({"command": command, **fields}).to_json()
        answer = await self.post("/v1/jobs", {"spec": spec, "key": key})
        job: str = answer["id"]
        return job

    async def wait(self, job: str, *states: str) -> dict[str, Any]:
        """The job once it is in one of `states` (any that is final without)."""
        wanted = states or ("SUCCEEDED", "FAILED", "CANCELLED")

        async def look() -> dict[str, Any] | None:
            view: dict[str, Any] = await self.get(f"/v1/jobs/{job}")
            return view if view["state"] in wanted else None

        view: dict[str, Any] = await until(
            look, what=lambda: f"{job} {wanted}: {self.controller.reconciler.live}"
        )
        return view


async def until(look: Callable[[], Any], what: Callable[[], str] = lambda: "it") -> Any:
    """What `look` gives once it is truthy. Polls a real process, with a deadline."""
    deadline = time.monotonic() + DEADLINE
    while True:
        found = look()
        if asyncio.iscoroutine(found):
            found = await found
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {DEADLINE:g} s for {what()}")
        await asyncio.sleep(0.02)


def guards_of(root: Path) -> list[psutil.Process]:
    """Processes of attempts below `root`, guards and ranks."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if any(str(root) in part for part in (*process.cmdline(), *process.environ().values())):
                found.append(process)
    return [process for process in found if process.pid != os.getpid()]


@pytest.fixture
async def make_plane(tmp_path: Path) -> AsyncIterator[Callable[..., Any]]:
    planes: list[Plane] = []

    async def make(
        nodes: int = 1,
        cpus: float = 2,
        gpus: int = 0,
        database_url: str | None = None,
        blobs: Callable[[], BlobStore] | None = None,
    ) -> Plane:
        agents: dict[str, NodeAgent] = {}
        for number in range(1, nodes + 1):
            name = f"n{number}"
            config = AgentConfig(
                root=tmp_path / name, node=name, cluster="test", simulate_gpus=gpus or None
            )
            agents[name] = NodeAgent(config)
            await agents[name].start()
        fabric = LocalFabric([LocalNode(n, cpus, gpus, agent) for n, agent in agents.items()])
        plane = Plane(tmp_path, agents, fabric, database_url=database_url, blobs=blobs)
        planes.append(plane)
        await plane.start()
        return plane

    try:
        yield make
    finally:
        for plane in planes:
            with contextlib.suppress(Exception):
                await plane.stop()
            for agent in plane.nodes.values():
                await agent.close()
        left = guards_of(tmp_path)
        for process in left:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(left, timeout=5)


@pytest.fixture
async def plane(make_plane: Callable[..., Any]) -> Plane:
    made: Plane = await make_plane()
    return made


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The URL of a PostgreSQL server that all tests share; each makes its database empty."""
    with postgres_server() as url:
        yield url


@pytest.fixture
async def postgres_plane(make_plane: Callable[..., Any], postgres: str) -> AsyncIterator[Plane]:
    """A control plane with its registry on PostgreSQL."""
    make_empty(postgres)
    made: Plane = await make_plane(database_url=postgres)
    yield made
    await made.stop()
