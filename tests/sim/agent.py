"""A node agent that keeps to `agents/node`: idempotent, refuses stale epochs, knows what its disk knows.

It is one process on a `Machine`; a new one on the same machine finds the folders of the old one.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Callable
from typing import Any

from agents.node.staging.ledger import GpusTaken, Ledger
from jobs.base.errors import Conflict, NotFound, TimedOut
from jobs.base.names import parse_key
from jobs.wire import messages as wire
from tests.sim.loop import Process
from tests.sim.machine import Folder, Machine
from tests.sim.reports import sample_of, told

SAMPLE_EVERY = 2.0
"""Seconds between telemetry samples. The real one takes one each second; a history costs half so."""
LOG_CHUNK = 200
"""Bytes of one rank's log that a sync gives at most, so that long logs need several."""


class Agent:
    """Args:
    machine: where it runs.
    on_forget: told of a folder that is about to be removed because the controller said so.
    """

    def __init__(self, machine: Machine, on_forget: Callable[[Folder], None]) -> None:
        self._machine, self._on_forget = machine, on_forget
        self.process = Process(machine.loop, f"agent-{machine.name}")
        self._revision = int(machine.loop.time() * 1000)
        self._given = 0.0
        self._changed_event = asyncio.Event()
        self._locks: dict[str, asyncio.Lock] = {}
        self._progress: dict[str, int] = {}  # key -> calls to stage until it is ready
        self._ledger = Ledger(machine.gpus)
        self._standings: dict[str, tuple[Any, ...]] = {}
        for folder in machine.folders.values():
            if folder.staged and folder.plan and self._look(folder)[0] != "ended":
                self._ledger.restore(folder.key, folder.staged["gpus"], folder.plan["gpus"])
        self.process.spawn(self._watch())

    @property
    def _rng(self) -> random.Random:
        return self._machine.rng

    # -- looking ------------------------------------------------------------------------------------

    async def _watch(self) -> None:
        while True:
            self._look_at_all()
            await asyncio.sleep(0.5)

    def _look_at_all(self) -> None:
        changed = False
        for folder in list(self._machine.folders.values()):
            standing = self._look(folder)
            if standing[0] == "orphaned":
                self._reap(folder)
                standing = self._look(folder)
            told = sum(rank.told for rank in folder.ranks)
            if self._standings.get(folder.key) != (standing, told):
                self._standings[folder.key] = (standing, told)
                changed = True
            if standing[0] == "ended":
                self._ledger.release(folder.key)
        if changed:
            self._news()

    def _news(self) -> None:
        self._revision += 1
        self._changed_event.set()
        self._changed_event = asyncio.Event()

    def _look(self, folder: Folder) -> tuple[str, str, str]:
        """(state, outcome, reason)"""
        if folder.exit is not None:
            return "ended", folder.exit["outcome"], folder.exit["reason"]
        guard = folder.guard
        if guard is not None and guard.alive:
            stopping = folder.stop is not None or guard.outcome
            return ("stopping" if stopping else "running"), "", guard.reason
        if guard is not None or (folder.started and folder.refused is None):
            return "orphaned", "", ""
        if folder.refused is not None:
            return "ended", "refused", folder.refused
        return "staged", "", ""

    def _reap(self, folder: Folder) -> None:
        for rank in folder.ranks:
            rank.kill(self._machine.loop.time(), 9)
            rank.told = True
        gone = folder.guard is not None and folder.guard.boot_id != self._machine.boot_id
        reason = "the node was restarted" if gone else "the guard was killed"
        folder.exit = {"outcome": "died", "reason": reason, "first_failed": None}
        self._machine.story.tell(self._machine.name, f"{folder.key} e{folder.epoch} died: {reason}")

    def _report(self, folder: Folder) -> wire.AttemptReport:
        state, outcome, reason = self._look(folder)
        if state == "orphaned":
            state = "stopping"  # until it is buried
        return told(folder, state, outcome, reason, self._machine.loop.time())

    # -- what a controller asks ---------------------------------------------------------------------

    async def hello(self) -> wire.Hello:
        self._look_at_all()
        machine = self._machine
        return {
            "protocol": wire.PROTOCOL,
            "version": "0",
            "node": machine.name,
            "boot_id": machine.boot_id,
            "clock": machine.clock(),
            "facts": {
                "cpus": int(machine.cpus),
                "memory": 64 << 30,
                "gpus": [
                    {"index": i, "uuid": uuid, "model": "sim", "memory": 1 << 30, "simulated": True}
                    for i, uuid in enumerate(machine.gpus)
                ],
                "driver": "",
                "cuda": "",
                "kernel": "",
                "python": "",
                "ray": "",
            },
            "attempts": [self._report(folder) for folder in machine.folders.values()],
            "problems": [],
            "given": self._given_numbers(),
            "boot": f"{machine.name}/{machine.boot_id}",
        }

    def _given_numbers(self) -> dict[str, wire.Given]:
        machine, found = self._machine, wire.Given(job=0, epoch=0)
        here = [(folder.job, folder.epoch) for folder in machine.folders.values()]
        for job, epoch in (*here, *machine.closed.items()):
            found["job"] = max(found["job"], parse_key(f"{job}.0").job)
            found["epoch"] = max(found["epoch"], epoch)
        return {"sim": found}

    async def stage(self, plan: wire.LaunchPlan) -> wire.StageReply:
        folder = self._admit(plan)
        state, outcome, _ = self._look(folder)
        if state == "ended":
            return self._reply(folder, "failed", f"it is over: {outcome}")
        if state != "staged" or folder.staged is not None:
            return self._reply(folder, "ready")
        if self._machine.unfit:
            return {**self._reply(folder, "failed", "it is not fit"), "blame": "node"}
        try:
            gpus = self._ledger.allot(folder.key, plan["gpus"])
        except GpusTaken as error:
            return self._reply(folder, "working", error.message)
        except Conflict as error:
            return self._reply(folder, "failed", error.message)
        left = self._progress.setdefault(folder.key, self._rng.choice((0, 0, 2, 8)))
        if left:
            self._progress[folder.key] = left - 1
            return self._reply(folder, "working", "getting ready")
        folder.staged = {"gpus": gpus, "port": 29_500 if plan["node_rank"] == 0 else None}
        self._news()
        return self._reply(folder, "ready")

    def _reply(self, folder: Folder, state: Any, detail: str = "") -> wire.StageReply:
        staged = folder.staged or {"gpus": [], "port": None}
        return {
            "state": state,
            "detail": detail,
            "missing": [],
            "port": staged["port"],
            "gpus": list(staged["gpus"]),
            "clock": self._machine.clock(),
            "boot": f"{self._machine.name}/{self._machine.boot_id}",
        }

    async def launch(self, request: wire.LaunchRequest) -> wire.AttemptReport:
        key, epoch = request["key"], request["epoch"]
        folder = self._known(key, epoch)
        async with self._locks.setdefault(key, asyncio.Lock()):
            self._look_at_all()
            if self._look(folder)[0] != "staged":
                return self._report(folder)
            if folder.plan is None or folder.staged is None:
                raise NotFound(f"{key} is not staged yet")
            if self._rival(folder):
                raise TimedOut(f"{key} waits: another attempt still runs here")
            if request["lease_until"] <= self._machine.clock():
                raise TimedOut(f"the lease of {key} was over before it could start")
            folder.lease = request["lease_until"]
            begun = asyncio.Event()
            self._machine.spawn_guard(folder, begun.set)
            await begun.wait()
            self._look_at_all()
            if self._look(folder)[0] == "staged":
                raise TimedOut(f"the guard of {key} did not start")
            return self._report(folder)

    async def stop(self, request: wire.StopRequest) -> wire.AttemptReport:
        key, epoch = request["key"], request["epoch"]
        folder = self._machine.folders.get(key)
        if folder is None:
            self._check_epoch(key, epoch)
            folder = Folder(key, epoch, refused=request["reason"])
            self._machine.folders[key] = folder
        elif epoch < folder.epoch:
            raise _stale(key, epoch)
        async with self._locks.setdefault(key, asyncio.Lock()):
            self._look_at_all()
            if self._look(folder)[0] == "staged":
                folder.refused = request["reason"]
                self._look_at_all()
            if self._live(folder):
                known = folder.stop
                if known is None or request["grace"] < known["grace"]:
                    folder.stop = {
                        "grace": request["grace"],
                        "reason": request["reason"],
                        "at": self._machine.clock(),
                    }
                if folder.guard is not None:
                    folder.guard.poke()
            self._news()
            return self._report(folder)

    async def sync(self, request: wire.SyncRequest) -> wire.SyncReply:
        machine = self._machine
        for key, until in request["leases"].items():
            folder = machine.folders.get(key)
            if folder is not None and self._live(folder) and until > folder.lease:
                folder.lease = until
        self._forget(request["forget"])
        deadline = machine.loop.time() + request["wait"]
        while True:
            changed = self._changed_event
            now = machine.loop.time()
            logs, metrics = self._chunks(request)
            sample = now - now % SAMPLE_EVERY
            fresh = sample != self._given
            if logs or metrics or fresh or request["seen"] != self._revision or now >= deadline:
                break
            try:
                async with asyncio.timeout(min(deadline, sample + SAMPLE_EVERY) - now + 1e-6):
                    await changed.wait()
            except TimeoutError:
                pass
        if fresh:
            self._given = sample
        return {
            "revision": self._revision,
            "clock": machine.clock(),
            "boot_id": machine.boot_id,
            "attempts": [self._report(f) for f in machine.folders.values()],
            "logs": logs,
            "metrics": metrics,
            "sample": sample_of(sample) if fresh else None,
            "problems": [],
        }

    async def put_blobs(self, pack: bytes) -> int:
        return 0

    async def put_chunk(self, digest: str, offset: int, size: int, data: bytes) -> int:
        return size

    async def stacks(self, key: str) -> list[wire.RankStack]:
        return []

    async def open_shell(self, key: str, rank: int, request: wire.ShellRequest) -> bool:
        raise NotFound("a fleet of no processes has no shells")

    async def shell(
        self, key: str, name: str, kind: str, number: int, data: bytes, wait: float
    ) -> wire.ShellReply:
        raise NotFound("a fleet of no processes has no shells")

    async def list_files(
        self, key: str, place: wire.Place, patterns: list[str], written: bool
    ) -> wire.FileList:
        if key not in self._machine.folders:
            raise NotFound(f"this node holds no attempt {key}")
        files: list[wire.NodeFile] = [
            {"path": path, "mode": 0o644, "size": 7, "mtime": 0.0} for path in patterns
        ]
        return {"files": files, "more": 0, "until": None}

    async def read_file(
        self, key: str, place: wire.Place, path: str, offset: int, limit: int
    ) -> bytes:
        if key not in self._machine.folders:
            raise NotFound(f"this node holds no attempt {key}")
        return b"weights"[offset : offset + limit]

    async def left_folders(
        self, jobs: list[str] | None, before: float, remove: bool
    ) -> list[wire.LeftFolder]:
        return []

    async def hold(self, key: str, what: str) -> wire.HoldReply:
        return {"state": "ready", "detail": "", "units": []}

    async def exchange(self, key: str, letter: bytes) -> bytes:
        return b""

    async def hash_file(
        self, key: str, place: wire.Place, path: str, offset: int, limit: int
    ) -> str:
        return hashlib.sha256(b"weights"[offset : offset + limit]).hexdigest()

    # -- its parts ----------------------------------------------------------------------------------

    def _chunks(
        self, request: wire.SyncRequest
    ) -> tuple[list[wire.LogChunk], list[wire.MetricChunk]]:
        now = self._machine.loop.time()
        logs: list[wire.LogChunk] = []
        metrics: list[wire.MetricChunk] = []
        for key, folder in self._machine.folders.items():
            for rank in folder.ranks:
                offset = request["logs"].get(key, {}).get(rank.number)
                if offset is not None and (data := rank.log(now)[offset : offset + LOG_CHUNK]):
                    times = [(offset, now)]
                    logs.append(
                        {
                            "key": key,
                            "rank": rank.number,
                            "offset": offset,
                            "data": data,
                            "times": times,
                        }
                    )
                offset = request["metrics"].get(key, {}).get(rank.number)
                if offset is not None:
                    if self._rng.random() < 0.1:
                        offset = 0  # as if it had not heard how much is known
                    data = rank.metrics(now)[offset : offset + LOG_CHUNK]
                    data = data[: data.rfind(b"\n") + 1]
                    if data:
                        metrics.append(
                            {"key": key, "rank": rank.number, "offset": offset, "data": data}
                        )
        return logs, metrics

    def _live(self, folder: Folder) -> bool:
        return self._look(folder)[0] in ("running", "stopping")

    def _admit(self, plan: wire.LaunchPlan) -> Folder:
        key, epoch = plan["key"], plan["epoch"]
        folder = self._machine.folders.get(key)
        if folder is not None and folder.epoch < epoch:
            if self._look(folder)[0] == "staged":
                folder.refused = "a newer attempt took its place"
            if self._look(folder)[1] != "refused":
                raise Conflict(f"{key} has started already with epoch {folder.epoch}")
            self._remove(folder)
            folder = None
        if folder is None:
            self._check_epoch(key, epoch)
            folder = self._machine.folders[key] = Folder(key, epoch, plan)
            self._news()
        elif epoch < folder.epoch:
            raise _stale(key, epoch)
        return folder

    def _known(self, key: str, epoch: int) -> Folder:
        folder = self._machine.folders.get(key)
        if folder is None:
            self._check_epoch(key, epoch)
            raise NotFound(f"{key} was not staged on this node")
        if epoch != folder.epoch:
            raise _stale(key, epoch)
        self._check_epoch(key, epoch)
        return folder

    def _check_epoch(self, key: str, epoch: int) -> None:
        job = key.rpartition(".")[0]
        known = [folder.epoch for folder in self._machine.folders.values() if folder.job == job]
        if epoch < max(known, default=-1) or epoch <= self._machine.closed.get(job, -1):
            raise _stale(key, epoch)

    def _rival(self, folder: Folder) -> bool:
        return any(
            other.job == folder.job and other is not folder and self._live(other)
            for other in self._machine.folders.values()
        )

    def _forget(self, keys: list[str]) -> None:
        folders = self._machine.folders
        over = [folders[key] for key in keys if key in folders]
        for folder in over:
            if self._look(folder)[0] == "ended":
                self._on_forget(folder)
                closed = self._machine.closed
                closed[folder.job] = max(folder.epoch, closed.get(folder.job, -1))
                self._remove(folder)
                self._news()

    def _remove(self, folder: Folder) -> None:
        self._ledger.release(folder.key)
        self._standings.pop(folder.key, None)
        self._progress.pop(folder.key, None)
        del self._machine.folders[folder.key]

    def ledger_is_empty(self) -> bool:
        return not any(self._ledger.held(key) for key in self._ledger._held)


def _stale(key: str, epoch: int) -> Conflict:
    return Conflict(f"a message for {key} with epoch {epoch} came too late")
