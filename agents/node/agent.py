"""The node agent: what a controller may ask of one node (`jobs.wire.messages.AgentClient`).

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
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

from agents.loops import each, loop, woken
from agents.node import accounts, feed, machine
from agents.node.attempts import Attempt, job_of, reap, reap_removed
from agents.node.checkpoints import holding
from agents.node.checkpoints.leftover import LeftFolders
from agents.node.config import AgentConfig
from agents.node.guard import records
from agents.node.guard.forkserver import ForkServer
from agents.node.guard.launch import write_launch, write_lease
from agents.node.holdings import Holdings
from agents.node.interfaces import interface_of
from agents.node.meter import Meter, Samples, installed
from agents.node.results import sources, tree
from agents.node.results.kept import written_from
from agents.node.shells import shells
from agents.node.stacks import stacks_of
from agents.node.staging import environment, fetching
from agents.node.staging.arrivals import Arrivals
from agents.node.staging.blobcache import BlobCache
from agents.node.staging.caches import Caretaker
from agents.node.staging.datasets import DataCache
from agents.node.staging.envcache import EnvCache
from agents.node.staging.ledger import Ledger
from agents.node.staging.rendezvous import Meetings
from agents.node.staging.stagings import Stagings, reply
from agents.node.staging.steps import Stager
from agents.node.telemetry import GpuSource, Sampler, open_gpus
from jobs.base.disk import storage_full
from jobs.base.errors import Conflict, InvalidInput, NotFound, StorageFull, TimedOut
from jobs.snapshots.patterns import Pattern
from jobs.wire.messages import (
    PROTOCOL,
    AttemptReport,
    FileList,
    Hello,
    HoldReply,
    LaunchPlan,
    LaunchRequest,
    LeftFolder,
    Leftover,
    Place,
    RankStack,
    ShellReply,
    ShellRequest,
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
"""Bytes of a file that one call gives."""
MAX_HASHED = 256 * 2**20
"""Bytes that one call reads to give their digest: well below a second."""
COUNTED_AT_ONCE = 256
"""Files of an ended attempt that are counted without a thread of their own: below a millisecond."""


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
        self._fork_server = ForkServer(environment.guard_environment(os.environ))
        self._tasks: set[asyncio.Task[Any]] = set()
        self._reaping: set[str] = set()
        self._counting: set[str] = set()
        self._feeds = sources.Feeds()
        self._holder = holding.Holder(self._root, self._checkpoints_of)
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
        try:
            await self._begin_with_lock()
        except BaseException:  # else the next agent of this process could never have the folder
            os.close(self._lock)
            raise

    async def _begin_with_lock(self) -> None:
        gpus = self._gpus
        if gpus is None:
            gpus = await asyncio.to_thread(open_gpus, self._config.simulate_gpus, self._config.node)
            self._gpus = gpus
        self._meter = Meter(gpus, self._sampler or Sampler(gpus, self._root), self._root)
        await self._meter.look()
        self._ledger = Ledger([gpu["uuid"] for gpu in self._meter.gpus])
        self._holdings = Holdings(self._root, self._ledger, time.time(), self._config.left)
        self._leftover = LeftFolders(
            self._root / "checkpoints",
            self._holdings.trash,
            busy=lambda: {attempt.job for attempt in self._holdings},
        )
        self._blobs = BlobCache(self._root / "blobs")
        self._arrivals = Arrivals(self._blobs)
        envs = EnvCache(self._root / "envs")
        self._data = DataCache(self._root / "data", self._blobs)
        builder = environment.builder_environment(os.environ)
        self._stagings = Stagings(
            Stager(
                self._blobs,
                envs,
                self._ledger,
                builder,
                self._meter.condition,
                self._written,
                self._checkpoints,
                self._data,
            )
        )
        caretaker = Caretaker(
            (self._blobs, envs, self._data),
            self._config.caches,
            self._holdings.trash,
            quiet=lambda: self._stagings.quiet,
            in_use=lambda: {
                *(envs.of(python) for python in self._holdings.interpreters()),
                *(self._data.folder(pin) for pin in self._holdings.data()),
            },
        )
        self._meetings = Meetings()
        await asyncio.to_thread(self._holder.start)
        self._holdings.adopt(time.time(), records.boot_clock())
        self._leftover.drop_empty()
        for attempt in self._holdings:
            await self._meetings.resume(attempt)
        with contextlib.suppress(OSError):  # it is tried again when a guard is wanted
            await asyncio.to_thread(self._fork_server.start)
        self._listen()
        self._begin(self._watch())
        self._begin(self._follow())
        self._begin(self._watch_checkpoints())
        self._begin(self._meter.run(self._holdings.bound, self._measured))
        self._begin(asyncio.to_thread(self._holdings.tidy))
        self._begin(caretaker.run(self._holdings.tidy))

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
        self._holder.close()
        await asyncio.to_thread(self._fork_server.close)
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
            await woken(self._hinted, looked + self._tick - time.monotonic())

    @property
    def _tick(self) -> float:
        return TICK if self._holdings.busy else IDLE_TICK

    def _look(self, only: Collection[str] | None = None) -> None:
        """At all, or at the attempts with these keys."""
        changed, grew = self._holdings.refresh(time.time(), records.boot_clock(), only)
        for attempt in self._holdings:
            if attempt.standing.orphaned and attempt.key not in self._reaping:
                self._reaping.add(attempt.key)
                self._begin(self._reap(attempt))
            if attempt.standing.state == "ended" and attempt.left is None:
                self._settle(attempt)
        if changed:
            self._revision += 1
        if changed or grew:
            self._notify()

    async def _reap(self, attempt: Attempt) -> None:
        tag, standing = self._holdings.tag(attempt.key), attempt.standing
        try:
            if standing.removed:
                log.warning("the folder of %s is gone", attempt.key)
                await asyncio.to_thread(reap_removed, attempt.folder, tag, attempt.plan, standing)
            else:
                log.warning("the guard of %s is dead", attempt.key)
                await asyncio.to_thread(reap, attempt.folder, tag)
        except OSError as error:
            log.warning("cannot record the end of %s: %s", attempt.key, error)
            await asyncio.sleep(1.0)
        finally:
            self._reaping.discard(attempt.key)
        self._about.add(attempt.key)
        self._hinted.set()

    def _settle(self, attempt: Attempt) -> None:
        """See what an attempt that is over has left: at once when that is little."""
        if attempt.key in self._counting:
            return
        left = attempt.count_left(COUNTED_AT_ONCE)
        if left is None or self._feeds.wanted(attempt, COUNTED_AT_ONCE):
            self._counting.add(attempt.key)
            self._begin(self._count(attempt))
        else:
            self._feeds.drop(attempt.key)
            attempt.left = left

    async def _count(self, attempt: Attempt) -> None:
        """Bring the metrics that an attempt left in files, and count what is in a large folder; its end is
        told when that is done."""
        try:
            await asyncio.to_thread(self._feeds.finish, attempt)
            now, clock = time.time(), records.boot_clock()
            for streams in attempt.streams.values():
                streams.observe(now, clock)
            attempt.left = await asyncio.to_thread(attempt.count_left)
        except Exception as error:
            log.warning("cannot count the files of %s: %s", attempt.key, error)
            attempt.left = Leftover(files=0, bytes=0)
        finally:
            self._counting.discard(attempt.key)
        self._changed()

    async def _follow(self) -> None:
        """Bring metrics from what running attempts print and write."""

        async def poll() -> None:
            live = [attempt for attempt in self._holdings if attempt.live]
            await each(
                "metrics", [partial(asyncio.to_thread, self._feeds.poll, one) for one in live]
            )

        await loop("metrics", poll, sources.EVERY)

    async def _watch_checkpoints(self) -> None:
        """See what becomes whole in the checkpoint folders of what runs here."""

        async def look(attempt: Attempt) -> None:
            if await asyncio.to_thread(self._holder.look, attempt.job):
                self._changed()

        async def turn() -> None:
            held = list(self._holdings)
            for job in set(self._holder.known()) - {attempt.job for attempt in held}:
                self._holder.drop(job)
            copied = [attempt for attempt in held if attempt.live and self._copies(attempt)]
            await each("checkpoints", [partial(look, attempt) for attempt in copied])

        await loop("checkpoints", turn, holding.LOOK_EVERY / 2)

    def _copies(self, attempt: Attempt) -> bool:
        """Whether its checkpoints are copied. A folder that nodes share needs no copy, unless one is
        asked for."""
        copy = attempt.plan.get("copy") if attempt.plan is not None else None
        return copy is not None and (self._config.checkpoint_root is None or copy["asked"])

    def _report(self, attempt: Attempt) -> AttemptReport:
        report = attempt.report()
        if revision := self._holder.revision(attempt.job):
            report["checkpoints"] = revision
        return report

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
            attempts=[self._report(attempt) for attempt in self._holdings],
            problems=self._problems(),
            given=self._holdings.given(),
            boot=machine.boot(),
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

    async def put_chunk(self, digest: str, offset: int, size: int, data: bytes) -> int:
        """Store a chunk of a blob of `size` bytes; how many of them are here (see `Arrivals.put`)."""
        # A caller that goes away does not leave a chunk half written.
        return await asyncio.shield(self._begin(self._arrivals.put(digest, offset, size, data)))

    async def fetch_blob(self, digest: str, size: int, url: str) -> int:
        """Fetch a blob from object storage, or continue; how many of its bytes are here (see `fetch`)."""
        return await asyncio.shield(self._begin(fetching.fetch(self._arrivals, digest, size, url)))

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
            if self._config.checkpoint_root is None:
                await asyncio.to_thread(self._leftover.drop_unfinished, attempt.job)
            account = accounts.of_attempt(attempt.folder)
            own = None if account is None else account.environment()
            node = environment.Node(
                folder=attempt.folder,
                checkpoints=self._checkpoints(attempt.key),
                tag=self._holdings.tag(attempt.key),
                python=staged.python,
                gpus=[gpu for gpu in self._meter.gpus if gpu["uuid"] in staged.gpus],
                base=self._environ
                if own is None
                else environment.user_environment(
                    self._environ, {"HOME": str(attempt.work), **own}
                ),
                own=None if own is None else accounts.facing(attempt.folder),
                interface=interface_of(request["node_addresses"][plan["node_rank"]]),
                data={name: self._data.path(pin) for name, pin in (plan.get("data") or {}).items()},
                models={
                    name: self._data.path(pin) for name, pin in (plan.get("models") or {}).items()
                },
            )
            write_launch(attempt.folder, plan, request, node, staged.image)
            attempt.lease = request["lease_until"]
            self._meetings.end(attempt.key)
            try:
                await asyncio.to_thread(self._fork_server.spawn, attempt.folder)
            except OSError as error:
                raise TimedOut(f"cannot start a guard now: {error.strerror or error}") from error
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
                self._leftover.drop_empty({job_of(key) for key in request["forget"]})
                self._begin(asyncio.to_thread(self._holdings.tidy))
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
            await woken(wake, left)
        if sample is not None:
            self._given = sample["at"]
        return SyncReply(
            revision=self._revision,
            clock=records.boot_clock(),
            boot_id=records.boot_id(),
            attempts=[self._report(attempt) for attempt in self._holdings],
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

    async def open_shell(self, key: str, rank: int, request: ShellRequest) -> bool:
        """Run a program beside a rank; False when one of that name is there. Raises NotFound, Conflict."""
        attempt = self._held(key)
        found = [one for one in attempt.standing.ranks if one["rank"] == rank]
        pid = found[0]["pid"] if found and not found[0]["ended_at"] else None
        if pid is None:
            raise Conflict(f"rank {rank} does not run here")
        return await shells.begin(attempt.folder, pid, request)

    async def shell(
        self, key: str, name: str, kind: str, number: int, data: bytes, wait: float
    ) -> ShellReply:
        """Talk to such a program. Raises NotFound when it has ended."""
        return await shells.talk(self._held(key).folder, name, kind, number, data, wait)

    async def exchange(self, key: str, letter: bytes) -> bytes:
        """Leave a letter where a service of ours looks for it (QD_INBOX), and give what it last wrote
        itself (QD_OUTBOX), empty before it has. An empty letter leaves the one that is there.

        Raises NotFound for an unknown attempt, StorageFull.
        """
        folder = accounts.facing(self._held(key).folder)
        return await asyncio.to_thread(_exchanged, folder, letter)

    async def list_files(
        self, key: str, place: Place, patterns: list[str], written: bool
    ) -> FileList:
        """The files of an attempt, also of one that was forgotten a while ago.

        Args:
            patterns: which are meant (`jobs.snapshots.patterns`); all without any.
            written: leave out what came with the job.

        Raises NotFound when there is nothing of it here any more, InvalidInput for a bad pattern.
        """
        folder, until = self._folder_of(key, place)
        try:
            wanted = [Pattern.parse(text) for text in patterns]
        except ValueError as error:
            raise InvalidInput(str(error)) from error
        since = None
        if written and place == "work":
            held = self._holdings.get(key)
            since = self._holdings.kept.since(key) if held is None else written_from(held.folder)
            if held is not None and since is None:  # it has not begun
                return FileList(files=[], more=0, until=until)
        files, more = await asyncio.to_thread(tree.listed, folder, wanted, since)
        return FileList(files=files, more=more, until=until)

    async def read_file(self, key: str, place: Place, path: str, offset: int, limit: int) -> bytes:
        """Bytes of such a file, at most `limit` of them. Raises NotFound, InvalidInput for an unsafe
        path."""
        folder, _ = self._folder_of(key, place)
        return await asyncio.to_thread(tree.read, folder, path, offset, min(limit, MAX_OUTPUT))

    async def hash_file(self, key: str, place: Place, path: str, offset: int, limit: int) -> str:
        """sha256 in hex of up to `limit` bytes of such a file, `MAX_HASHED` at most. Raises as
        `read_file`."""
        folder, _ = self._folder_of(key, place)
        return await asyncio.to_thread(tree.digest, folder, path, offset, min(limit, MAX_HASHED))

    async def hold(self, key: str, what: Literal["latest", "all", ""]) -> HoldReply:
        """Keep what is whole in a job's checkpoint folder until it is copied (`AgentClient.hold`).

        Raises InvalidInput for what is no key, NotFound when nothing is there.
        """
        job = job_of(key)
        if what == "":
            await asyncio.to_thread(self._holder.release, job)
            return HoldReply(state="ready", detail="", units=[])
        if not self._checkpoints_of(job).is_dir():
            raise NotFound(f"this node has no checkpoints of {key}")
        attempt = self._holdings.get(key)
        plan = attempt.plan if attempt is not None else None
        return await self._holder.hold(
            job,
            what,
            live=any(other.live for other in self._holdings if other.job == job),
            shared=plan is not None and plan["nnodes"] > 1,
            metrics=accounts.facing(attempt.folder) / f"metrics-{plan['first_rank']}.jsonl"
            if attempt is not None and plan is not None
            else None,
        )

    async def left_folders(
        self, jobs: list[str] | None, before: float, remove: bool
    ) -> list[LeftFolder]:
        """See `AgentClient.left_folders`."""
        if self._config.checkpoint_root is not None:
            return []  # other nodes, and other clusters, have theirs there
        if jobs is None:
            names = await asyncio.to_thread(self._leftover.jobs)
            return [LeftFolder(job=name, files=0, bytes=0) for name in names]
        found = await asyncio.to_thread(self._leftover.measured, jobs, before)
        if remove:
            found = self._leftover.remove(found)
            self._begin(asyncio.to_thread(self._holdings.tidy))
        return found

    def _folder_of(self, key: str, place: Place) -> tuple[Path, float | None]:
        """A folder of an attempt, and until when it is kept. Raises NotFound."""
        job_of(key)  # it becomes the name of a folder
        held = self._holdings.get(key)
        if place == "checkpoint":
            folder: Path | None = self._checkpoints(key)
        elif place == "held":
            folder = self._holder.place(job_of(key))
        else:
            folder = held.work if held is not None else self._holdings.kept.work(key)
        if folder is None or not folder.is_dir():
            raise NotFound(f"this node has nothing of attempt {key}")
        return folder, None if held or place != "work" else self._holdings.kept.until(key)

    def _written(self, key: str) -> tuple[Path, int | None] | None:
        """An attempt's work folder, and since when its files are its own; None when it is here no more."""
        held = self._holdings.get(key)
        if held is not None:
            return (held.work, written_from(held.folder)) if held.work.is_dir() else None
        folder = self._holdings.kept.work(key)
        return None if folder is None else (folder, self._holdings.kept.since(key))

    def _checkpoints(self, key: str) -> Path:
        """The checkpoint folder of an attempt's job."""
        return self._checkpoints_of(job_of(key))

    def _checkpoints_of(self, job: str) -> Path:
        root = self._config.checkpoint_root or self._root / "checkpoints"
        return root / job

    def _held(self, key: str) -> Attempt:
        attempt = self._holdings.get(key)
        if attempt is None:
            raise NotFound(f"this node holds no attempt {key}")
        return attempt


def _exchanged(folder: Path, letter: bytes) -> bytes:
    with accounts.acting_for(folder):
        return _left(folder, letter)


def _left(folder: Path, letter: bytes) -> bytes:
    if letter:
        try:
            records.write_file(str(folder / environment.INBOX), letter, durable=False)
        except OSError as error:
            raise storage_full(f"cannot write to {folder}", error) from error
    try:
        return (folder / environment.OUTBOX).read_bytes()
    except OSError:
        return b""
