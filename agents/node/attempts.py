"""An attempt on this node: its folder, what the folder tells, and what may be done to it.

The folder is the truth, so an agent that comes back knows what its predecessor knew. What it tells is
worked out anew each time (`look`): there is no state to keep in step with the guard.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import json
import os
import shutil
import signal
import stat
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from agents.node import accounts, checked
from agents.node.guard import containers, records
from agents.node.logtail import TimeIndex, lost_bytes, read_at
from agents.node.results import tree
from agents.node.results.kept import written_from
from agents.node.staging.containers import podman_environment
from agents.node.staging.images import Image
from agents.node.staging.steps import Staged
from agents.node.vitals import Signs
from jobs.base.disk import storage_full
from jobs.base.names import parse_key
from jobs.life.stalls import KEPT
from jobs.snapshots.patterns import Pattern
from jobs.wire.messages import AttemptReport, LaunchPlan, Leftover, RankReport

REMOVED = "the job removed its own folder, with its logs and its work, and was ended"
_UNFINISHED = "."
"""What the names of folders begin with that are not whole yet; no key does."""

State = Literal["staged", "running", "stopping", "ended"]
Outcome = Literal["", "done", "failed", "stopped", "fenced", "died", "refused"]


def job_of(key: str) -> str:
    """The job's name on this node's disk, from an attempt's key. Raises InvalidInput for no key."""
    return parse_key(key).name


@dataclass(frozen=True, slots=True)
class Standing:
    """Where an attempt is. `orphaned`: its guard is dead and has left no record, so what it may have
    left running has to be killed before it counts as ended. `removed`: the same, since its folder is
    gone, by which its guard could be told to stop."""

    state: State
    outcome: Outcome = ""
    reason: str = ""
    first_failed: int | None = None
    first_failed_at: float | None = None
    ranks: tuple[dict[str, Any], ...] = ()
    orphaned: bool = False
    removed: bool = False


@functools.cache
def _this_boot() -> str:
    return records.boot_id()


def guard_of(folder: Path) -> int | None:
    """Pid of the folder's live guard, if there is one."""
    handle = checked.handle(folder)
    if handle is None:  # perhaps it has only just begun
        return records.lock_holder(str(folder / records.LOCK))
    alive = (
        handle["boot_id"] == _this_boot()
        and records.start_time(handle["pid"]) == handle["start_time"]
    )
    return int(handle["pid"]) if alive else None


def look(folder: Path) -> Standing:
    """What a folder tells of its attempt."""
    guard = guard_of(folder)  # before the record: a guard writes it, then ends
    record = checked.state(folder, records.EXIT)
    if record is not None:
        return _standing("ended", record)
    state = checked.state(folder, records.STATE) or {}
    if guard is not None:
        stop = records.stop_request(str(folder / records.STOP))
        stopping = stop is not None or state.get("phase") == "stopping"
        reason = state.get("reason") or (stop or {}).get("reason", "")
        return _standing("stopping" if stopping else "running", {**state, "reason": reason})
    refused = records.read_json(str(folder / records.REFUSED))
    has_run = (folder / records.HANDLE).exists()
    if has_run or ((folder / records.STARTED).exists() and refused is None):
        # Asked again: the guard may have begun, or written its record and ended, since it was asked
        # for. It holds its lock from before it leaves any trace.
        if guard_of(folder) is not None or checked.state(folder, records.EXIT) is not None:
            return look(folder)
        return _standing("stopping", state, orphaned=True)
    if refused is not None:
        return Standing("ended", "refused", str(refused.get("reason", "")))
    # What came before a power cut may be on disk in part, so it is never begun after one. That is why
    # starting a gang need not wait for the disk.
    return (
        _standing("stopping", {}, orphaned=True) if _of_another_boot(folder) else Standing("staged")
    )


def _of_another_boot(folder: Path) -> bool:
    known = checked.handle(folder)
    known = known or records.read_json(str(folder / records.PLAN)) or {}
    return bool(known.get("boot_id", _this_boot()) != _this_boot())


def _standing(state: State, record: dict[str, Any], *, orphaned: bool = False) -> Standing:
    return Standing(
        state,
        record.get("outcome", "") if state == "ended" else "",
        record.get("reason", ""),
        record.get("first_failed"),
        record.get("first_failed_at"),
        tuple(record.get("ranks", ())),
        orphaned,
    )


def reap(folder: Path, tag: str) -> None:
    """Kill what an orphaned attempt has left running, and record that it died. Blocking, and it takes
    as long as the kernel holds on to a process: the record says that all of them are dead.

    Raises OSError when it cannot be written.
    """
    handle = checked.handle(folder)
    cgroup = handle["cgroup"] if handle else None
    containers.kill(tag, cgroup)
    _remove_containers(folder, tag)
    if cgroup:
        with contextlib.suppress(OSError):
            os.rmdir(cgroup)  # noqa: PTH106 - a cgroup
    reason = "the guard was killed, and its ranks with it"
    if _of_another_boot(folder):
        reason = "the node was restarted"
    elif handle is None:
        words: list[str] = []
        with contextlib.suppress(OSError):  # it may have died before it had a log
            words = (folder / records.LOG).read_text(errors="replace").strip().splitlines()
        reason = "the guard could not start" + (f": {words[-1]}" if words else "")
    state = checked.state(folder, records.STATE) or {}
    now = time.time()
    clock = None if _of_another_boot(folder) else records.boot_clock()
    ranks = [_over(rank, now, clock) for rank in state.get("ranks", ()) if rank["pid"]]
    record = {**state, "phase": "ended", "outcome": "died", "reason": reason, "ranks": ranks}
    if (folder / records.EXIT).is_dir() and not (folder / records.EXIT).is_symlink():
        shutil.rmtree(folder / records.EXIT)  # a rank has put it there
    records.write_file(str(folder / records.EXIT), json.dumps(record).encode(), durable=True)


def reap_removed(folder: Path, tag: str, plan: LaunchPlan | None, standing: Standing) -> None:
    """As `reap`, for an attempt that has removed its folder. Its guard ends with the last of its ranks.

    Raises OSError when it cannot be recorded.
    """
    containers.kill(tag, None)
    folder.mkdir(mode=0o700, exist_ok=True)
    if plan is not None:
        content = json.dumps({**plan, "boot_id": _this_boot()}).encode()
        records.write_file(str(folder / records.PLAN), content, durable=True)
    now = time.time()
    ranks = [_over(rank, now, records.boot_clock()) for rank in standing.ranks]
    record = {"phase": "ended", "outcome": "failed", "reason": REMOVED, "ranks": ranks}
    records.write_file(str(folder / records.EXIT), json.dumps(record).encode(), durable=True)


def _over(rank: dict[str, Any], now: float, clock: float | None) -> dict[str, Any]:
    """A rank that nobody has seen end, as one that has ended by now. `clock` is the boot clock, None when
    it began on another one."""
    if rank["ended_at"] is not None:
        return rank
    return {**rank, "ended_at": now, "ran": None if clock is None else _ran(rank, clock)}


def _ran(rank: dict[str, Any], clock: float) -> float | None:
    """For how many seconds a rank has run, on the boot clock; None when its guard does not count."""
    if rank["ended_at"] is not None or rank.get("began") is None:
        ran: float | None = rank.get("ran")
        return ran
    return max(0.0, clock - float(rank["began"]))


def _remove_containers(folder: Path, tag: str) -> None:
    """Those of a guard whose keeper was killed with it, or lost its power."""
    plan = records.read_json(str(folder / records.PLAN)) or {}
    if "image" in plan:
        ranks = range(plan["first_rank"], plan["first_rank"] + plan["procs"])
        containers.remove(tag, ranks, podman_environment(os.environ))


@dataclass(slots=True, eq=False)
class Streams:
    """What a rank's log and metrics file hold, as far as they were looked at, and how it is.

    `cut` is how many bytes of the log were seen and are in the file no more: `2> /dev/stderr` opens
    a rank's log anew and truncates it. Offsets of the log count on from there.
    """

    log: Path
    index: TimeIndex
    metrics: Path
    signs: Signs
    metrics_size: int = 0
    looked: bool = False
    cut: int = 0

    @classmethod
    def of(
        cls, folder: Path, rank: int, started: float | None, now: float, clock: float
    ) -> Streams:
        """The streams of a rank, with the rhythm in which its log grew before this agent came.

        Args:
            started: when the rank did, unix time.
            now: unix time. clock: the same moment on the boot clock.
        """
        index = TimeIndex(folder / f"rank-{rank}.times")
        signs = Signs(min(clock, clock - (now - started)) if started else clock)
        for at in index.recent(KEPT + 1):
            signs.wrote(min(clock, clock - (now - at)))
        cut = (records.read_json(str(folder / f"rank-{rank}.cut")) or {}).get("bytes", 0)
        log = folder / f"rank-{rank}.log"
        metrics = accounts.facing(folder) / f"metrics-{rank}.jsonl"
        return cls(log, index, metrics, signs, cut=cut)

    def observe(self, now: float, clock: float) -> bool:
        """Look at both; whether one of them grew. Arguments as for `of`."""
        grew, wrote = False, 0.0
        with contextlib.suppress(OSError):
            found = self._look(self.log)
            if self.cut + found.st_size < self.index.size:
                self.cut = self.index.size
                records.write_file(
                    str(self.log.with_suffix(".cut")),
                    json.dumps({"bytes": self.cut}).encode(),
                    durable=False,
                )
            # The last write is the better time: the agent may have been away for long.
            if self.index.observe(self.cut + found.st_size, min(now, found.st_mtime)):
                grew, wrote = True, found.st_mtime
        with contextlib.suppress(OSError):
            found = self._look(self.metrics)
            if found.st_size > self.metrics_size:
                grew, wrote = True, max(wrote, found.st_mtime)
            self.metrics_size = found.st_size
        if grew:
            # Later on the boot clock is the better one: it is never set.
            self.signs.wrote(clock if self.looked else min(clock, clock - (now - wrote)))
        self.looked = True
        return grew

    @staticmethod
    def _look(path: Path) -> os.stat_result:
        """Its stat, when it is the plain file that it should be: a rank could put a link there."""
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "not a plain file")
        return found

    def read_log(self, offset: int, size: int, *, final: bool) -> bytes:
        """Up to `size` bytes of the log from `offset` on.

        Bytes that were seen and can be read no more are made up for by a line that says so, of the
        same length: whoever follows the log can go on, and an attempt can end. With `final` that
        holds for all that cannot be read, since nothing will change any more.
        """
        if offset < self.cut:
            return lost_bytes(min(size, self.cut - offset))
        try:
            data = read_at(self.log, offset - self.cut, size)
        except OSError:
            data = b""
        return data or (lost_bytes(size) if final else b"")


@dataclass(eq=False)
class Attempt:
    """An attempt that this node holds. `plan` is None for one that was stopped before it came."""

    key: str
    epoch: int
    folder: Path
    plan: LaunchPlan | None = None
    staged: Staged | None = None
    standing: Standing = field(default_factory=lambda: Standing("staged"))
    left: Leftover | None = None  # once it is over, and what it wrote was counted
    streams: dict[int, Streams] = field(default_factory=dict)
    lease: float = 0.0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)  # one launch or stop at a time

    @classmethod
    def create(cls, folder: Path, plan: LaunchPlan) -> Attempt:
        """Make a new attempt's folder. Raises StorageFull."""
        content = {**plan, "boot_id": _this_boot()}
        cls._make(folder, records.PLAN, content, durable=False)
        return cls(plan["key"], plan["epoch"], folder, plan)

    @classmethod
    def tombstone(cls, folder: Path, key: str, epoch: int, reason: str) -> Attempt:
        """Note that an attempt was stopped before this node knew it. Raises StorageFull."""
        cls._make(folder, records.REFUSED, {"epoch": epoch, "reason": reason}, durable=True)
        return cls(key, epoch, folder, standing=look(folder))

    @staticmethod
    def _make(folder: Path, name: str, content: dict[str, Any], *, durable: bool) -> None:
        """Written beside, then renamed: a folder that is there says whose it is, and one that a full
        disk kept from being finished is in nobody's way."""
        beside = folder.with_name(f"{_UNFINISHED}{folder.name}")
        try:
            shutil.rmtree(beside, ignore_errors=True)
            beside.mkdir(mode=0o700)
            records.write_file(str(beside / name), json.dumps(content).encode(), durable=durable)
            # Named already, but its name could not be made durable: nobody was told of it.
            if folder.exists() and {path.name for path in folder.iterdir()} <= {name}:
                shutil.rmtree(folder)
            beside.rename(folder)
            if durable:
                records.sync_folder(str(folder.parent))
        except OSError as error:
            shutil.rmtree(beside, ignore_errors=True)
            raise storage_full(f"cannot write to {folder}", error) from error

    @classmethod
    def load(cls, folder: Path) -> Attempt | None:
        """Read back what an earlier agent left; None for a folder that was never finished."""
        if folder.name.startswith(_UNFINISHED):
            return None
        plan: Any = records.read_json(str(folder / records.PLAN))
        known = plan or records.read_json(str(folder / records.REFUSED))
        if known is None:
            return None
        attempt = cls(folder.name, int(known["epoch"]), folder, plan)
        staged = records.read_json(str(folder / "stage.json"))
        if staged is not None:
            image = staged.get("image")
            attempt.staged = Staged(
                staged["gpus"], staged["port"], staged["python"], Image(**image) if image else None
            )
        with contextlib.suppress(OSError, ValueError):
            attempt.lease = float((folder / records.LEASE).read_text())
        return attempt

    @property
    def job(self) -> str:
        """The job's name on this node's disk ("c1-j7")."""
        return job_of(self.key)

    @property
    def live(self) -> bool:
        return self.standing.state in ("running", "stopping")

    def remember(self, staged: Staged) -> None:
        """Keep what staging came to. Raises StorageFull."""
        content: dict[str, Any] = {
            "gpus": staged.gpus,
            "port": staged.port,
            "python": staged.python,
        }
        if staged.image is not None:
            content["image"] = staged.image.to_json()
        self._write("stage.json", content, durable=False)
        self.staged = staged

    def refresh(self, now: float, clock: float) -> tuple[bool, bool]:
        """Look again; (whether the standing changed, whether a file grew).

        Args:
            now: unix time. clock: the same moment on the boot clock.
        """
        before, found = self.standing, look(self.folder)
        if self._removed(found):
            found = Standing(
                "stopping", "", REMOVED, ranks=before.ranks, orphaned=True, removed=True
            )
        self.standing = found
        for rank in self.standing.ranks:
            number = rank["rank"]
            if number not in self.streams:
                self.streams[number] = Streams.of(
                    self.folder, number, rank["started_at"], now, clock
                )
            if rank["ended_at"] is None:
                self.streams[number].signs.look(rank["pid"], clock)
        grew = [stream.observe(now, clock) for stream in self.streams.values()]
        return self.standing != before, any(grew)

    def _removed(self, found: Standing) -> bool:
        """Whether the folder is gone, or enough of it that nobody can tell who the guard is."""
        if found.state == "ended" or not (found.orphaned or found.state == "staged"):
            return False
        has_run = self.standing.removed or bool(self.standing.ranks)
        return not self.folder.exists() or (has_run and not (self.folder / records.HANDLE).exists())

    def refuse(self, reason: str) -> None:
        """Keep a staged attempt from ever being launched, by whoever. Raises StorageFull."""
        self._write(records.REFUSED, {"epoch": self.epoch, "reason": reason}, durable=True)

    def ask_to_stop(self, grace: float, reason: str) -> None:
        """Tell the guard to stop, or to hurry when it does. Raises StorageFull."""
        known = records.stop_request(str(self.folder / records.STOP))
        if known is None or grace < known["grace"]:
            content = {"grace": grace, "reason": reason, "at": records.boot_clock()}
            self._write(records.STOP, content, durable=False)
        # A signal is only a wake-up: the guard looks at the file each second anyway.
        guard = guard_of(self.folder)
        if guard is not None and (self.folder / records.HANDLE).exists():
            with contextlib.suppress(OSError):
                descriptor = os.pidfd_open(guard)
                try:
                    if (
                        guard_of(self.folder) == guard
                    ):  # the pid is held now: it cannot be another's
                        signal.pidfd_send_signal(descriptor, signal.SIGTERM)
                finally:
                    os.close(descriptor)

    def _write(self, name: str, content: dict[str, Any], *, durable: bool) -> None:
        try:
            path = str(self.folder / name)
            records.write_file(path, json.dumps(content).encode(), durable=durable)
        except OSError as error:
            raise storage_full(f"cannot write to {self.folder}", error) from error

    def report(self) -> AttemptReport:
        standing = self.standing
        report = AttemptReport(
            key=self.key,
            epoch=self.epoch,
            state=standing.state,
            outcome=standing.outcome,
            reason=standing.reason,
            first_failed=standing.first_failed,
            first_failed_at=standing.first_failed_at,
            gpus=list(self.staged.gpus) if self.staged else [],
            ranks=[self._rank_report(rank, records.boot_clock()) for rank in standing.ranks],
            lease=self.lease,
        )
        if standing.state == "ended":
            report["left"] = self.left
        return report

    @property
    def work(self) -> Path:
        """The folder in which its ranks begin."""
        return self.folder / "work"

    def count_left(self, budget: int | None = None) -> Leftover | None:
        """What it wrote below its work folder that no output names; only what succeeds has outputs, and
        only where rank 0 was. None: there are more than `budget` files. Blocking."""
        if not self.standing.ranks:  # it never began
            return Leftover(files=0, bytes=0)
        plan, named = self.plan, []
        if plan is not None and self.standing.outcome == "done" and plan["first_rank"] == 0:
            named = [Pattern.parse(text) for text in plan["outputs"].values()]
        return tree.tally(self.work, named, written_from(self.folder), budget)

    def _rank_report(self, rank: dict[str, Any], clock: float) -> RankReport:
        stream = self.streams.get(rank["rank"])
        report = RankReport(
            rank=rank["rank"],
            local_rank=rank["local_rank"],
            pid=rank["pid"],
            started_at=rank["started_at"],
            exit_code=rank["exit_code"],
            signal=rank["signal"],
            ended_at=rank["ended_at"],
            log_size=stream.index.size if stream else 0,
            metrics_size=stream.metrics_size if stream else 0,
        )
        ran = _ran(rank, clock)
        if ran is not None:
            report["ran"] = ran
        if stream is not None and rank["ended_at"] is None:
            report["vitals"] = stream.signs.report(clock)
        return report
