"""Holding checkpoints as they are while the head copies them.

A file is held by a hard link, so that a script may replace it or remove it meanwhile, and costs room on the
disk only then. A script that writes over it changes what is held too: then its content has another
digest than was said, and the copy is not recorded.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

from agents.node import accounts
from agents.node.checkpoints.look import Identity, Looker, identity
from jobs.base.errors import QuarterdeckError
from jobs.base.paths import open_below
from jobs.checkpoints import units
from jobs.checkpoints.names import read_name
from jobs.wire.messages import HeldFile, HeldUnit, HoldReply

log = logging.getLogger(__name__)

LOOK_EVERY = 2.0
"""Seconds between two looks at a folder that is quickly looked at."""
SHARE = 20
"""A look that takes t seconds is followed by none for this many times t."""
PATIENCE = 0.2
"""Seconds that a call waits for the end."""
HELD = 3600.0
"""Seconds for which files stay held that nobody has let go of."""
NICENESS = 10
"""Of the thread that reads and hashes: the ranks go first."""
_UNNAMED = "new"
_READ = 1 << 20
_TAIL = 64 << 10

What = Literal["latest", "all"]


class Holder:
    """All that a node holds, and what it has seen, by the jobs' names on its disk.

    Args:
        root: the agent's folder.
        folder: the checkpoint folder of a job, by its name.
    """

    def __init__(self, root: Path, folder: Callable[[str], Path]) -> None:
        self._root, self._folder = root / "held", folder
        self._lookers: dict[str, Looker] = {}
        self._next: dict[str, float] = {}
        self._digests: dict[Identity, str] = {}
        self._tasks: dict[str, asyncio.Future[list[HeldUnit]]] = {}
        self._thread = ThreadPoolExecutor(1, "checkpoints", initializer=_be_nice)
        self._lock = threading.Lock()  # a look at a time
        self._said = ""

    def start(self) -> None:
        """Let go of what an earlier agent held. Blocking."""
        shutil.rmtree(self._root, ignore_errors=True)

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    def place(self, job: str) -> Path:
        """The folder with what is held of a job, by digest."""
        return self._root / job

    def revision(self, job: str) -> int:
        """Grows when other checkpoints of a job are whole; 0 before any is."""
        looker = self._lookers.get(job)
        return looker.revision if looker is not None else 0

    def look(self, job: str) -> bool:
        """Look at a job's folder, if it is time to; whether other checkpoints are whole. Blocking."""
        began = time.monotonic()
        if began < self._next.get(job, 0.0):
            return False
        with self._lock:
            news = self._looker(job).look(began)
        self._next[job] = time.monotonic() + max(LOOK_EVERY, SHARE * (time.monotonic() - began))
        return news

    def _looker(self, job: str) -> Looker:
        looker = self._lookers.get(job)
        if looker is None:
            looker = self._lookers[job] = Looker(self._folder(job))
        return looker

    def drop(self, job: str) -> None:
        """No attempt of a job is here any more. What is being copied stays for a while. Blocking."""
        with contextlib.suppress(OSError):
            if time.time() - self.place(job).stat().st_mtime < HELD:
                return
        self._lookers.pop(job, None)
        self._next.pop(job, None)
        self.release(job)

    def known(self) -> list[str]:
        """The jobs that were looked at."""
        return list(self._lookers)

    def release(self, job: str) -> None:
        """Let go of what is held of a job."""
        task = self._tasks.pop(job, None)
        if task is not None:
            task.cancel()
        shutil.rmtree(self.place(job), ignore_errors=True)

    async def hold(
        self, job: str, what: What, *, live: bool, shared: bool, metrics: Path | None
    ) -> HoldReply:
        """Hold what is whole; see `AgentClient.hold`.

        Args:
            live: ranks of it run here.
            shared: other nodes have shares of it, which may come later than this one's.
            metrics: where a local rank logs its metrics.
        """
        task = self._tasks.get(job)
        if task is None:
            loop = asyncio.get_running_loop()
            work = (job, what, live, 2 if shared else 1, metrics)
            task = self._tasks[job] = asyncio.ensure_future(
                loop.run_in_executor(self._thread, self._take, *work)
            )
            self._said = "looking at its checkpoints"
        await asyncio.wait({task}, timeout=PATIENCE)
        if not task.done():
            return HoldReply(state="working", detail=self._said, units=[])
        self._tasks.pop(job, None)
        return HoldReply(state="ready", detail="", units=task.result())

    def _take(
        self, job: str, what: What, live: bool, depth: int, metrics: Path | None
    ) -> list[HeldUnit]:
        """Blocking, for as long as it takes to read what is new."""
        with self._lock:
            looker = self._looker(job)
            looker.look(time.monotonic())
            if not live:  # nobody writes any more, and nobody has looked for some time
                looker.look(time.monotonic() + 0.001)
            found = list(looker.units)
        folder, place = self._folder(job), self.place(job)
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        wanted = {unit.name for unit in _chosen(found, what, depth)}
        kept: set[str] = set()
        replies = []
        for unit in found:
            files: list[HeldFile] | None = []
            if unit.name in wanted:
                files = self._files(folder, place, unit, kept)
            whole = unit.whole and files is not None
            if whole and unit.name not in wanted:
                continue
            replies.append(_reply(unit, files or [], whole, metrics))
        for path in place.iterdir():
            if path.name not in kept:
                path.unlink(missing_ok=True)
        return replies

    def _files(
        self, folder: Path, place: Path, unit: units.Unit, kept: set[str]
    ) -> list[HeldFile] | None:
        """The files of a unit, held; None when one of them is not any more what it was."""
        files: list[HeldFile] = []
        for path, seen in sorted(unit.files.items()):
            file = HeldFile(
                path=path,
                mode=seen.mode,
                size=seen.size,
                mtime=seen.mtime / 1e9,
                sha256="",
                held=False,
            )
            if seen.link is not None:
                if seen.link:
                    file["link"] = seen.link
                    files.append(file)
                continue
            self._said = f"reading {path}"
            try:
                digest, held = self._held(folder, place, path, seen)
            except (OSError, QuarterdeckError) as error:
                log.info("%s has changed: %s", path, error)
                return None
            kept.add(digest)
            file["sha256"], file["held"] = digest, held
            files.append(file)
        return files

    def _held(self, folder: Path, place: Path, path: str, seen: units.Seen) -> tuple[str, bool]:
        """The digest of a file, and whether it is held. Raises OSError, QuarterdeckError."""
        with accounts.acting_for(folder):
            descriptor = open_below(folder, path)
        try:
            found = identity(os.fstat(descriptor))
            if found[1:] != (seen.size, seen.mtime):
                raise OSError(f"it has {found[1]} bytes, not {seen.size}, or was written since")
            digest = self._digests.get(found)
            if digest is not None:
                return digest, _hold(descriptor, place, digest)
            held = _hold(descriptor, place, _UNNAMED)  # first: it may be replaced while it is read
            digest = _digest(descriptor)
            if identity(os.fstat(descriptor)) != found:
                raise OSError("it was written while it was read")
            if len(self._digests) > 100_000:
                self._digests.clear()
            self._digests[found] = digest
            if held:
                (place / _UNNAMED).rename(place / digest)
            return digest, held
        finally:
            os.close(descriptor)


def _chosen(found: list[units.Unit], what: What, depth: int) -> list[units.Unit]:
    """The units to hold: all that are whole, or the newest `depth` of each series."""
    whole = [unit for unit in found if unit.whole]
    if what == "all":
        return whole
    series: dict[str, list[tuple[int, str, units.Unit]]] = {}
    for unit in whole:
        named = read_name(unit.name)
        item = (-1 if named.order is None else named.order, unit.name, unit)
        series.setdefault(named.series, []).append(item)
    return [
        item[2]
        for items in series.values()
        for item in sorted(items, key=lambda item: item[:2])[-depth:]
    ]


def _reply(unit: units.Unit, files: list[HeldFile], whole: bool, metrics: Path | None) -> HeldUnit:
    heads = [
        seen.mtime / 1e9
        for path, seen in unit.files.items()
        if path == f"{unit.name}/{units.METADATA}"
    ]
    return HeldUnit(
        name=unit.name,
        whole=whole,
        files=files,
        missing=sorted(unit.missing),
        sharded=bool(heads) or any(path.endswith(".distcp") for path in unit.files),
        headed_at=heads[0] if heads else None,
        step=_step_at(metrics, unit.mtime / 1e9) if whole and metrics is not None else None,
    )


def _digest(descriptor: int) -> str:
    sha256, offset = hashlib.sha256(), 0
    while data := os.pread(descriptor, _READ, offset):
        sha256.update(data)
        offset += len(data)
    return sha256.hexdigest()


def _hold(descriptor: int, place: Path, name: str) -> bool:
    """Hold an open file under a name; False where the file system does not let us."""
    target = place / name
    try:
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(target.stat(), os.fstat(descriptor)):
                return True
            target.unlink()
        folder = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
        try:  # with a folder's descriptor, since only then is the link in /proc followed
            os.link(f"/proc/self/fd/{descriptor}", name, dst_dir_fd=folder)
        finally:
            os.close(folder)
    except OSError:
        return False
    return True


def _step_at(metrics: Path, moment: float) -> int | None:
    """The last step that was logged before a moment, of the last some hundred points."""
    lines: list[bytes] = []
    with (
        contextlib.suppress(OSError),
        accounts.acting_for(metrics.parent),
        metrics.open("rb") as file,
    ):
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _TAIL))
        lines = file.read(_TAIL).splitlines()
    found = None
    for line in lines:
        try:
            point: Mapping[str, object] = json.loads(line)
            step, at = point["s"], point["t"]
        except (ValueError, KeyError, TypeError):
            continue
        if isinstance(step, int) and isinstance(at, int | float) and at <= moment:
            found = step
    return found


def _be_nice() -> None:
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
