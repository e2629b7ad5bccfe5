"""The node agent: what a controller may ask of one node (`jobs.wire.AgentClient`).

It keeps nothing that the disk does not have: a new agent on the same folder finds the guards of the
old one and goes on. It ends without touching them.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import io
import logging
import os
import socket
import time
from collections.abc import Collection, Coroutine
from pathlib import Path
from typing import Any, TypeVar

from agents.node import checkpoints, environment, feed, records
from agents.node.attempts import Attempt, bury, job_of
from agents.node.blobcache import BlobCache
from agents.node.caches import Caretaker
from agents.node.config import AgentConfig
from agents.node.envcache import EnvCache
from agents.node.holdings import Holdings
from agents.node.interfaces import interface_of
from agents.node.launch import write_launch, write_lease
from agents.node.ledger import Ledger
from agents.node.meeting import Meetings
from agents.node.meter import Meter, Samples, installed
from agents.node.nursery import Nursery
from agents.node.stacks import stacks_of
from agents.node.staging import Stager
from agents.node.stagings import Stagings, reply
from agents.node.telemetry import GpuSource, Sampler, open_gpus
from jobs.errors import Conflict, NotFound, StorageFull, TimedOut
from jobs.paths import open_below
from jobs.wire import (
    PROTOCOL,
    AttemptReport,
    CheckpointFile,
    Hello,
    LaunchPlan,
    LaunchRequest,
    RankStack,
    StageReply,
    StopRequest,
    SyncReply,
    SyncRequest,
)

log = logging.getLogger(__name__)

T = TypeVar("T")

TICK = 0.2
"""Seconds between two looks at what runs; also the resolution of the times of log lines."""
IDLE_TICK = 2.0
"""The same while nothing is held that could change by itself: what begins is looked at as it begins."""
LOCK_PATIENCE = 10.0
"""Seconds for an earlier agent on the same folder to be gone."""
MAX_OUTPUT = 16 * 2**20
"""Bytes of an output file that one call gives."""


class NodeAgent:
    """The agent of one node. `start` it, then call it from any task of the same event loop.

    Args:
        config: see there.
        gpus: where GPUs come from; opened (and closed) here when not given.
        sampler: what takes samples; one over `gpus` when not given.
    """

    def __init__(
        self, config: AgentConfig, gpus: GpuSource | None = None, sampler: Samples | None = None
    ) -> None:
        self._config, self._root = config, config.root
        self._gpus, self._own_gpus = gpus, gpus is None
        self._sampler = sampler
        self._environ = environment.base_environment(os.environ)
        self._nursery = Nursery(self._environ)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._burying: set[str] = set()
        # Grows across restarts, so that a controller never takes new things for old ones.
        self._revision = int(time.time() * 1000)
        self._given = 0.0  # time of the sample that was given last
        self._wake = asyncio.Event()  # replaced whenever it is set: each waiter has its own
        self._hinted = asyncio.Event()
        self._about: set[str] = set()  # keys that the hints were about

    # --- Life ---

    async def start(self) -> None:
        """Adopt what is on disk and begin to watch it.

        Raises Conflict when another agent keeps hold of the same folder, StorageFull when the folder
        cannot be made.
        """
        try:
            self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(self._root / "agent.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
        except OSError as error:
            raise StorageFull(f"cannot use {self._root}: {error.strerror}") from error
        await self._take_lock()
        gpus = self._gpus
        if gpus is None:
            gpus = await asyncio.to_thread(open_gpus, self._config.simulate_gpus, self._config.node)
            self._gpus = gpus
        self._meter = Meter(gpus, self._sampler or Sampler(gpus, self._root), self._root)
        await self._meter.look()
        self._ledger = Ledger([gpu["uuid"] for gpu in self._meter.gpus])
        self._holdings = Holdings(self._root, self._ledger, time.time())
        self._blobs = BlobCache(self._root / "blobs")
        envs = EnvCache(self._root / "envs")
        builder = environment.builder_environment(os.environ)
        self._stagings = Stagings(
            Stager(
                self._blobs, envs, self._ledger, builder, self._meter.condition, self._checkpoints
            )
        )
        caretaker = Caretaker(
            (self._blobs, envs),
            self._config.caches,
            self._holdings.trash,
            quiet=lambda: self._stagings.quiet,
            in_use=lambda: {envs.of(python) for python in self._holdings.interpreters()},
        )
        self._meetings = Meetings()
        self._holdings.adopt(time.time(), records.boot_clock())
        for attempt in self._holdings:
            await self._meetings.resume(attempt)
        with contextlib.suppress(OSError):  # it is tried again when a guard is wanted
            await asyncio.to_thread(self._nursery.start)
        self._listen()
        self._begin(self._watch())
        self._begin(self._meter.run(self._holdings.bound, self._measured))
        self._begin(asyncio.to_thread(self._holdings.empty_trash))
        self._begin(caretaker.run(self._holdings.empty_trash))

    async def _take_lock(self) -> None:
        deadline = time.monotonic() + LOCK_PATIENCE
        while True:
            try:
                return fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    os.close(self._lock)
                    raise Conflict(f"another agent uses {self._root}") from None
                await asyncio.sleep(0.05)

    def _listen(self) -> None:
        """Hear the guards' hints. Bound through the folder's descriptor: a socket's path is short."""
        (self._root / "agent.sock").unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        folder = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            self._socket.bind(f"/proc/self/fd/{folder}/agent.sock")
        finally:
            os.close(folder)
        asyncio.get_running_loop().add_reader(self._socket, self._on_hint)

    def _on_hint(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                self._about.add(self._socket.recv(4096).decode(errors="replace"))
        self._hinted.set()

    async def close(self) -> None:
        """Stop watching. What runs goes on; the next agent on this folder adopts it."""
        await self._stagings.close()
        self._meetings.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.to_thread(self._nursery.close)
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()
        (self._root / "agent.sock").unlink(missing_ok=True)
        if self._own_gpus and self._gpus is not None:
            await asyncio.to_thread(self._gpus.close)
        os.close(self._lock)

    def _begin(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # --- Watching ---

    async def _watch(self) -> None:
        """Look at what runs: at each tick at all of it, at once at what a hint is about."""
        looked = -IDLE_TICK
        while True:
            self._hinted.clear()
            about, self._about = self._about, set()
            try:
                if time.monotonic() >= looked + self._tick:
                    looked = time.monotonic()
                    self._look()
                else:
                    self._look(about)
            except Exception:
                log.exception("looking at the attempts")
            # Not wait_for: before Python 3.12 it loses a cancellation that comes with the event.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, looked + self._tick - time.monotonic())):
                    await self._hinted.wait()

    @property
    def _tick(self) -> float:
        return TICK if self._holdings.busy else IDLE_TICK

    def _look(self, only: Collection[str] | None = None) -> None:
        """At all, or at the attempts with these keys."""
        changed, grew = self._holdings.refresh(time.time(), records.boot_clock(), only)
        for attempt in self._holdings:
            if attempt.standing.orphaned and attempt.key not in self._burying:
                self._burying.add(attempt.key)
                self._begin(self._bury(attempt))
        if changed:
            self._revision += 1
        if changed or grew:
            self._notify()

    async def _bury(self, attempt: Attempt) -> None:
        log.warning("the guard of %s is dead", attempt.key)
        try:
            await asyncio.to_thread(bury, attempt.folder, self._holdings.tag(attempt.key))
        except OSError as error:
            log.warning("cannot record the end of %s: %s", attempt.key, error)
            await asyncio.sleep(1.0)
        finally:
            self._burying.discard(attempt.key)
        self._about.add(attempt.key)
        self._hinted.set()

    def _measured(self) -> None:
        self._ledger.know([gpu["uuid"] for gpu in self._meter.gpus])
        self._notify()

    def _notify(self) -> None:
        self._wake.set()
        self._wake = asyncio.Event()

    # --- What a controller asks ---

    async def hello(self) -> Hello:
        """Who this is, what the node has and what it holds."""
        self._look()
        return Hello(
            protocol=PROTOCOL,
            version=installed("quarterdeck"),
            node=self._config.node,
            boot_id=records.boot_id(),
            clock=records.boot_clock(),
            facts=self._meter.facts(),
            attempts=[attempt.report() for attempt in self._holdings],
            problems=self._problems(),
        )

    async def stage(self, plan: LaunchPlan) -> StageReply:
        """Make an attempt ready to launch; call it again until it is `ready` or `failed`.

        Digests in `missing` are hex. Raises Conflict for a stale epoch, StorageFull.
        """
        previous = self._holdings.get(plan["key"])
        attempt = self._holdings.admit(plan)
        if attempt is not previous:
            self._stagings.drop(plan["key"])
            self._meetings.end(plan["key"])
            self._revision += 1  # nobody is woken for it: who stages hears of it here
        if attempt.standing.state == "ended":
            return reply(attempt, "failed", f"it is over: {attempt.standing.outcome}")
        if attempt.standing.state != "staged":
            return reply(attempt, "ready")
        if attempt.staged is not None:
            return await self._meetings.attend(attempt, plan)
        answer = await self._stagings.look_in(
            attempt, plan, self._meter.lost(), self._holdings.ports()
        )
        if answer["state"] == "ready":
            self._revision += 1
            return await self._meetings.attend(attempt, plan)
        return answer

    async def put_blobs(self, pack: bytes) -> int:
        """Store the blobs of a pack; how many there were. Raises InvalidInput, StorageFull."""
        return await asyncio.to_thread(self._blobs.put_pack, io.BytesIO(pack))

    async def launch(self, request: LaunchRequest) -> AttemptReport:
        """Start the ranks of a staged attempt, once however often this is called.

        Raises NotFound when it was not staged, Conflict for a stale epoch, TimedOut when the request
        may be made again: its lease is over, or an older attempt of the job is still being stopped.
        """
        # A caller that goes away does not leave it half done.
        return await asyncio.shield(self._begin(self._launch(request)))

    async def _launch(self, request: LaunchRequest) -> AttemptReport:
        attempt = self._holdings.known(request["key"], request["epoch"])
        async with attempt.lock:
            self._look([other.key for other in self._holdings if other.job == attempt.job])
            if attempt.standing.state != "staged":
                return attempt.report()
            plan, staged = attempt.plan, attempt.staged
            if plan is None or staged is None:
                raise NotFound(f"{attempt.key} is not staged yet", "Stage it until it is ready.")
            if rival := self._holdings.rival(attempt):
                raise TimedOut(f"{attempt.key} waits: {rival.key} still runs on this node")
            if request["lease_until"] <= records.boot_clock():
                raise TimedOut(f"the lease of {attempt.key} was over before it could start")
            node = environment.Node(
                folder=attempt.folder,
                checkpoints=self._checkpoints(attempt.key),
                tag=self._holdings.tag(attempt.key),
                python=staged.python,
                gpus=[gpu for gpu in self._meter.gpus if gpu["uuid"] in staged.gpus],
                base=self._environ,
                interface=interface_of(request["node_addresses"][plan["node_rank"]]),
            )
            write_launch(attempt.folder, plan, request, node)
            attempt.lease = request["lease_until"]
            self._meetings.end(attempt.key)
            try:
                await asyncio.to_thread(self._nursery.spawn, attempt.folder)
            except OSError as error:
                raise TimedOut(f"cannot start a guard now: {error.strerror}") from error
            self._look([attempt.key])
            report = attempt.report()
            if report["state"] == "staged":
                raise TimedOut(f"the guard of {attempt.key} did not start")
            return report

    async def stop(self, request: StopRequest) -> AttemptReport:
        """Stop an attempt, or keep it from ever starting; returns at once, the end is told by sync.

        Raises Conflict for a stale epoch, StorageFull.
        """
        attempt = self._holdings.stopped(request)
        async with attempt.lock:  # a launch that has begun is stopped, not overtaken
            self._look([attempt.key])
            if attempt.standing.state == "staged":
                self._stagings.drop(attempt.key)
                self._meetings.end(attempt.key)
                attempt.refuse(request["reason"])
                self._look([attempt.key])
            if attempt.live:
                attempt.ask_to_stop(request["grace"], request["reason"])
                self._look([attempt.key])
            self._changed()
            return attempt.report()

    def _changed(self) -> None:
        self._revision += 1
        self._hinted.set()
        self._notify()

    async def sync(self, request: SyncRequest) -> SyncReply:
        """One round of the controller's loop: takes leases and keys to forget, gives what is new,
        waiting up to `wait` seconds for something. Raises Conflict for another protocol."""
        if request["protocol"] != PROTOCOL:
            raise Conflict(
                f"this agent speaks protocol {PROTOCOL}, the controller {request['protocol']}",
                "Run the same version of Quarterdeck on all nodes.",
            )
        problems = self._renew(request["leases"])
        try:
            if self._holdings.forget(request["forget"], time.time()):
                self._begin(asyncio.to_thread(self._holdings.empty_trash))
        except OSError as error:
            problems.append(f"cannot forget attempts: {error.strerror}")
        deadline = time.monotonic() + request["wait"]
        while True:
            wake = self._wake
            logs, metrics = feed.chunks(
                self._holdings, request["logs"], request["metrics"], request["max_bytes"]
            )
            sample = self._meter.sample
            if sample is not None and sample["at"] == self._given:
                sample = None
            left = deadline - time.monotonic()
            news = logs or metrics or sample or request["seen"] != self._revision
            if news or left <= 0:
                break
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await wake.wait()
        if sample is not None:
            self._given = sample["at"]
        return SyncReply(
            revision=self._revision,
            clock=records.boot_clock(),
            boot_id=records.boot_id(),
            attempts=[attempt.report() for attempt in self._holdings],
            logs=logs,
            metrics=metrics,
            sample=sample,
            problems=problems + self._problems(),
        )

    def _renew(self, leases: dict[str, float]) -> list[str]:
        """Pass leases on to the guards; never a shorter one."""
        problems = []
        for key, until in leases.items():
            attempt = self._holdings.get(key)
            if attempt is None or not attempt.live or until <= attempt.lease:
                continue
            try:
                write_lease(attempt.folder, until)
                attempt.lease = until
            except OSError as error:
                problems.append(f"cannot renew the lease of {key}: {error.strerror}")
        return problems

    def _problems(self) -> list[str]:
        return self._meter.problems + self._holdings.problems

    async def stacks(self, key: str) -> list[RankStack]:
        """Where each local rank is now. Raises NotFound."""
        ranks = self._held(key).standing.ranks
        return await stacks_of(
            {rank["rank"]: None if rank["ended_at"] else rank["pid"] for rank in ranks}
        )

    async def read_output(self, key: str, path: str, offset: int, limit: int) -> bytes | None:
        """Bytes of a file in the attempt's work folder, at most `limit` of them; None when it is not
        there. Raises NotFound for an unknown attempt, InvalidInput for an unsafe path."""
        folder = self._held(key).folder / "work"
        try:
            descriptor = open_below(folder, path)
        except (NotFound, FileNotFoundError):
            return None
        try:
            return os.pread(descriptor, min(limit, MAX_OUTPUT), offset)
        finally:
            os.close(descriptor)

    async def list_checkpoint(self, key: str) -> list[CheckpointFile]:
        """The files of the checkpoint folder of an attempt's job. Raises NotFound for an unknown
        attempt, InvalidInput for too many files."""
        folder = self._checkpoints(self._held(key).key)
        return await asyncio.to_thread(checkpoints.listed, folder)

    async def read_checkpoint(self, key: str, path: str, offset: int, limit: int) -> bytes:
        """Bytes of such a file, at most `limit` of them. Raises NotFound, InvalidInput for an unsafe
        path."""
        folder = self._checkpoints(self._held(key).key)
        return checkpoints.read(folder, path, offset, min(limit, MAX_OUTPUT))

    def _checkpoints(self, key: str) -> Path:
        """The checkpoint folder of an attempt's job."""
        root = self._config.checkpoint_root or self._root / "checkpoints"
        return root / job_of(key)

    def _held(self, key: str) -> Attempt:
        attempt = self._holdings.get(key)
        if attempt is None:
            raise NotFound(f"this node holds no attempt {key}")
        return attempt
