"""The fabric on Ray. Ray itself lives in a process beside this one (`agents.fabric.driver`)."""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

from agents.controller.nodes.fabric import Bundle, FabricNode
from agents.fabric.actor import Reply
from agents.fabric.channel import Channel
from agents.fabric.members import Members
from agents.supervisor import tls
from jobs.base import python
from jobs.base.errors import Unreachable, from_json
from jobs.base.places import Places
from jobs.wire.messages import (
    AgentClient,
    AttemptReport,
    FileList,
    Hello,
    HoldReply,
    LaunchPlan,
    LaunchRequest,
    LeftFolder,
    Place,
    RankStack,
    ShellReply,
    ShellRequest,
    StageReply,
    StopRequest,
    SyncReply,
    SyncRequest,
)

CONNECT_TIMEOUT = 60.0
"""Seconds for a driver to import Ray and join. It gives up by itself long before."""

PROBE_TIMEOUT = 3.0
"""Seconds in which a head that is well lists its nodes; it takes milliseconds."""

RESERVE_PATIENCE = 2.0
"""Seconds that a reservation may take. Granting one takes 10 ms; the rest is for a busy head."""

LISTED_FOR = 2.0
"""Seconds for which a reservation goes by the list of nodes: they are listed each second, and of one that
has died since, a reservation is not granted."""

FRESH_AGENT = 30.0
"""Seconds that the first call to an agent may take on top: it is started then (0.6 s when idle)."""

BULK_CALLS = 4
"""Calls that carry megabytes, under way at a time, over all nodes: two for each of two transfers keep a
link busy, and their chunks are all the memory that a transfer takes."""

BULK_BUFFER = 4 << 20
"""Bytes that the pipe for them holds before its reader has taken a message whole."""

SYNC_SLACK = 15.0
"""Seconds beyond its own wait that a `sync` may take."""


@dataclass(frozen=True, slots=True)
class Target:
    """A cluster to join. A new `incarnation` at the same address is another cluster: it knows nothing
    of what was, and a driver of the old one cannot talk to it."""

    address: str
    incarnation: int


def target_of(places: Places, environ: Mapping[str, str]) -> Callable[[], Target | None]:
    """Finds the cluster to join each time it is called: QD_RAY_ADDRESS when it is set, else what the
    supervisor wrote. None while there is nothing to join."""
    fixed = environ.get("QD_RAY_ADDRESS")
    if fixed:
        return lambda: Target(fixed, 0)
    seen: tuple[int, Target | None] = (0, None)

    def find() -> Target | None:
        nonlocal seen
        from agents.node.guard.records import read_json

        try:
            changed = places.cluster_file.stat().st_mtime_ns
        except OSError:
            return None
        if changed != seen[0]:
            record = read_json(str(places.cluster_file)) or {}
            ray = record.get("ray") or {}
            up = ray.get("process") is not None
            target = Target(str(record["ray_address"]), int(ray["incarnation"])) if up else None
            seen = (changed, target)
        return seen[1]

    return find


LOSE_CALLS = "QD_TESTING_RPC_FAILURE"
"""What Ray's own failure injection is to lose of the driver's calls, as RAY_testing_rpc_failure takes it
(JSON). For tests: of what the user has set for Ray itself, nothing reaches the driver."""


def driver_environment(places: Places, environ: Mapping[str, str]) -> dict[str, str]:
    """What the driver is started with. None of the user's settings for Ray reach it, but for TLS."""
    env = {name: value for name, value in environ.items() if not name.startswith("RAY_")}
    env |= tls.variables(environ)
    env |= {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": environ.get("RAY_AUTH_TOKEN_PATH", str(places.ray_token)),
        "RAY_USAGE_STATS_ENABLED": "0",
        # So long the driver bears a head that is away; agents answer it all the while.
        "RAY_gcs_rpc_server_reconnect_timeout_s": "86400",
        # A call that was lost is told of when it is known whether the actor has died: by default after
        # two seconds. We ask again either way.
        "RAY_timeout_ms_task_wait_for_death_info": "100",
        "RAY_core_worker_internal_heartbeat_ms": "200",
    }
    if lost := environ.get(LOSE_CALLS):
        env["RAY_testing_rpc_failure"] = lost
        env["RAY_testing_rpc_failure_avoid_intra_node_failures"] = "false"
    if not environ.get("QD_RAY_ADDRESS"):
        env["RAY_AUTH_TOKEN_PATH"] = str(places.ray_token)
    return env


def one_machine(address: str) -> dict[str, str]:
    """What a driver must know of a head that believes in no cluster beyond 127.0.0.1
    (supervisor/head.py); nothing for one that listens to a network."""
    return {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"} if address.startswith("127.") else {}


class Link:
    """A driver process and the requests that wait for it.

    What carries megabytes has a pipe of its own, so that nothing which keeps a lease alive ever waits
    behind it, and only so much of it is under way at a time.
    """

    def __init__(self, target: Target, process: asyncio.subprocess.Process) -> None:
        self.target = target
        self._process = process
        self._channel: Channel
        self._bulk: Channel
        self._turns = asyncio.Semaphore(BULK_CALLS)  # first come, first served: transfers share it
        self._waiting: dict[int, asyncio.Future[Reply]] = {}
        self._numbers = itertools.count(1)
        self._readers: list[asyncio.Task[None]] = []
        self.alive = True

    @classmethod
    async def start(cls, target: Target, env: Mapping[str, str]) -> Link:
        """Start a driver and join the cluster. Raises Unreachable."""
        ours, theirs = socket.socketpair()
        our_bulk, their_bulk = socket.socketpair()
        with theirs, their_bulk:
            ends = [theirs.fileno(), their_bulk.fileno()]
            command = python.module("agents.fabric.driver", *map(str, ends))
            process = await asyncio.create_subprocess_exec(
                *command,
                target.address,
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=ends,
                env=dict(env) | one_machine(target.address),
            )
        link = cls(target, process)
        joined = asyncio.get_running_loop().create_future()
        link._waiting[0] = joined
        link._channel = await Channel.open(ours)
        link._bulk = await Channel.open(our_bulk, BULK_BUFFER)
        link._readers = [
            asyncio.create_task(link._read(channel)) for channel in (link._channel, link._bulk)
        ]
        try:
            await link._result(0, joined, CONNECT_TIMEOUT)
        except BaseException:
            await link.close()
            raise
        return link

    async def request(self, timeout: float, operation: str, *args: Any) -> Any:
        """Ask the driver. Raises Unreachable when it does not answer in `timeout` seconds, or what
        the other side raised."""
        return await self._ask(self._channel, timeout, operation, *args)

    async def carry(self, timeout: float, operation: str, *args: Any) -> Any:
        """As `request`, for megabytes. Waits for its turn, which does not count as time."""
        async with self._turns:
            return await self._ask(self._bulk, timeout, operation, *args)

    async def _ask(self, channel: Channel, timeout: float, operation: str, *args: Any) -> Any:
        if not self.alive:
            raise Unreachable("the connection to Ray is lost", "It is made again by itself.")
        number = next(self._numbers)
        future = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        try:
            await channel.send((number, operation, args))
        except EOFError as error:
            self._waiting.pop(number, None)
            raise Unreachable("the connection to Ray is lost") from error
        what = args[2] if operation == "call" else operation
        return await self._result(number, future, timeout, str(what))

    async def _result(
        self, number: int, future: asyncio.Future[Reply], timeout: float, what: str = "join"
    ) -> Any:
        try:
            reply = await asyncio.wait_for(future, timeout)
        except TimeoutError:
            raise Unreachable(f"no answer to '{what}' in {timeout:g} s") from None
        finally:
            self._waiting.pop(number, None)
        if "error" in reply:
            raise from_json(reply)
        return reply["value"]

    async def _read(self, channel: Channel) -> None:
        """Hand answers to those who wait; at the end, tell all that it is over. The driver closes both
        pipes at once, and what it said last is on the first."""
        with suppress(EOFError):
            while True:
                number, reply = await channel.receive()
                future = self._waiting.get(number)
                if future is not None and not future.done():
                    future.set_result(reply)
        if channel is self._bulk:
            return
        self.alive = False
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(Unreachable("the connection to Ray is lost"))

    async def close(self) -> None:
        """End the driver, whatever it is doing."""
        self.alive = False
        with suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()
        await asyncio.gather(*self._readers)  # the driver's ends are closed, so these end
        await self._channel.close()
        await self._bulk.close()


class RayFabric:
    """Implements `agents.controller.nodes.fabric.Fabric`.

    Joins the cluster that the supervisor of these places runs, or the one at QD_RAY_ADDRESS (then
    with the token at RAY_AUTH_TOKEN_PATH).
    """

    def __init__(self, where: Places, environ: Mapping[str, str] | None = None) -> None:
        base = os.environ if environ is None else environ
        self._target = target_of(where, base)
        self._environ = driver_environment(where, base)
        self._link: Link | None = None
        self._doubted = False
        self._members = Members()
        self._ids: dict[str, str] = {}  # of the nodes as they were listed last
        self._listed_at = -LISTED_FOR
        self._connecting = asyncio.Lock()

    @property
    def state(self) -> str:
        return "connected" if self._current() is not None and not self._doubted else "connecting"

    def _current(self) -> Link | None:
        """The driver, if it lives and its cluster is still the one to join."""
        link = self._link
        return link if link is not None and link.alive and link.target == self._target() else None

    async def connect(self) -> None:
        """Join the cluster, or join it again.

        A driver whose head does not answer is kept until another one has joined: it still reaches
        the agents. Raises Unreachable when no head answers; call it again then.
        """
        async with self._connecting:
            if self._current() is not None:
                with suppress(Unreachable):
                    await self._request(PROBE_TIMEOUT, "nodes")
                    return
            target = self._target()
            if target is None:
                raise Unreachable("Ray is not running", "Start the cluster with `qd up`.")
            link = await Link.start(target, self._environ)
            old, self._link, self._doubted = self._link, link, False
            self._listed_at = -LISTED_FOR
            if old is not None:
                await old.close()

    async def _request(self, timeout: float, operation: str, *args: Any) -> Any:
        """A request to the head. No answer puts the whole connection in doubt."""
        link = self._current()
        if link is None:
            raise Unreachable("not connected to Ray", "It is tried again by itself.")
        try:
            result = await link.request(timeout, operation, *args)
        except Unreachable:
            self._doubted = True
            raise
        self._doubted = False
        return result

    async def nodes(self) -> list[FabricNode]:
        members = self._members.take(await self._request(5.0, "nodes"))
        self._ids, self._listed_at = {node.name: node.id for node in members}, time.monotonic()
        return members

    async def agent(self, node: FabricNode) -> AgentClient:
        """A client that reaches the node's agent now and later; the agent starts with the first call
        and is started again by any call when it has died."""
        return RayAgentClient(self, node)

    async def call(
        self, node: FabricNode, timeout: float, method: str, *args: Any, bulk: bool = False
    ) -> Any:
        """Call a method of a node's agent; `bulk` for one that carries megabytes. Raises Unreachable, or
        what the agent raised."""
        link = self._current()
        if link is None:
            raise Unreachable(f"not connected to Ray, so {node.name} cannot be asked")
        try:
            ask = link.carry if bulk else link.request
            return await ask(timeout, "call", node.name, node.id, method, args)
        except Unreachable as error:
            raise Unreachable(
                f"agent of {node.name}: {error.message}", error.hint, node=node.name
            ) from error

    async def reserve(self, name: str, bundles: list[Bundle]) -> bool:
        if time.monotonic() > self._listed_at + LISTED_FOR:
            await self.nodes()
        ids = self._ids
        if any(bundle.node not in ids for bundle in bundles):
            return False  # a node has gone: not granted, which is not an error
        wanted = [(ids[bundle.node], bundle.cpus, bundle.gpus) for bundle in bundles]
        return bool(
            await self._request(RESERVE_PATIENCE + 8, "reserve", name, wanted, RESERVE_PATIENCE)
        )

    async def release(self, name: str) -> None:
        await self._request(5.0, "release", name)

    async def reservations(self) -> set[str]:
        return set(await self._request(5.0, "reservations"))

    async def close(self) -> None:
        """End the driver. Agents and reservations stay."""
        async with self._connecting:
            link, self._link = self._link, None
            if link is not None:
                await link.close()


class RayAgentClient:
    """jobs.wire.messages.AgentClient over the fabric. Timeouts are seconds."""

    def __init__(self, fabric: RayFabric, node: FabricNode) -> None:
        self._fabric, self._node = fabric, node
        self._answered = False

    async def _call(self, timeout: float, method: str, *args: Any, bulk: bool = False) -> Any:
        extra = 0.0 if self._answered else FRESH_AGENT
        try:
            value = await self._fabric.call(self._node, timeout + extra, method, *args, bulk=bulk)
        except Unreachable:
            self._answered = False
            raise
        self._answered = True
        return value

    async def hello(self) -> Hello:
        reply: Hello = await self._call(15, "hello")
        return reply

    async def stage(self, plan: LaunchPlan) -> StageReply:
        reply: StageReply = await self._call(30, "stage", plan)
        return reply

    async def put_blobs(self, pack: bytes) -> int:
        return int(await self._call(120, "put_blobs", pack, bulk=True))

    async def put_chunk(self, digest: str, offset: int, size: int, data: bytes) -> int:
        return int(await self._call(120, "put_chunk", digest, offset, size, data, bulk=True))

    async def fetch_blob(self, digest: str, size: int, url: str) -> int:
        return int(await self._call(120, "fetch_blob", digest, size, url, bulk=True))

    async def launch(self, request: LaunchRequest) -> AttemptReport:
        reply: AttemptReport = await self._call(30, "launch", request)
        return reply

    async def stop(self, request: StopRequest) -> AttemptReport:
        reply: AttemptReport = await self._call(15, "stop", request)
        return reply

    async def sync(self, request: SyncRequest) -> SyncReply:
        reply: SyncReply = await self._call(request["wait"] + SYNC_SLACK, "sync", request)
        return reply

    async def stacks(self, key: str) -> list[RankStack]:
        reply: list[RankStack] = await self._call(30, "stacks", key)
        return reply

    async def exchange(self, key: str, letter: bytes) -> bytes:
        reply: bytes = await self._call(15, "exchange", key, letter)
        return reply

    async def open_shell(self, key: str, rank: int, request: ShellRequest) -> bool:
        return bool(await self._call(30, "open_shell", key, rank, request))

    async def shell(
        self, key: str, name: str, kind: str, number: int, data: bytes, wait: float
    ) -> ShellReply:
        reply: ShellReply = await self._call(
            wait + 15, "shell", key, name, kind, number, data, wait
        )
        return reply

    async def list_files(
        self, key: str, place: Place, patterns: list[str], written: bool
    ) -> FileList:
        reply: FileList = await self._call(
            60, "list_files", key, place, patterns, written, bulk=True
        )
        return reply

    async def read_file(self, key: str, place: Place, path: str, offset: int, limit: int) -> bytes:
        reply: bytes = await self._call(30, "read_file", key, place, path, offset, limit, bulk=True)
        return reply

    async def hold(self, key: str, what: Literal["latest", "all", ""]) -> HoldReply:
        reply: HoldReply = await self._call(60, "hold", key, what, bulk=True)
        return reply

    async def left_folders(
        self, jobs: list[str] | None, before: float, remove: bool
    ) -> list[LeftFolder]:
        reply: list[LeftFolder] = await self._call(
            60, "left_folders", jobs, before, remove, bulk=True
        )
        return reply

    async def hash_file(self, key: str, place: Place, path: str, offset: int, limit: int) -> str:
        reply: str = await self._call(60, "hash_file", key, place, path, offset, limit)
        return reply
