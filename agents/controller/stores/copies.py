"""The head's copies of checkpoints: a store of blobs of their own, and which copies there are.

Their blobs lie apart from all others (`checkpoints/sha256/`), so that what a dropped copy alone needed goes
at once: a job may leave a terabyte a day, and nobody else counts on any of it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from sqlmodel import Session

from agents.controller.stores.blobs import FolderBlobs
from agents.controller.stores.database import Database
from jobs.base.errors import InvalidInput, QuarterdeckError, StorageFull
from jobs.base.units import format_size, parse_size
from jobs.snapshots.manifest import Manifest
from jobs.store import copies
from jobs.store.copies import Copy
from jobs.store.copytables import CopyRow

log = logging.getLogger(__name__)

RATE = 100 << 20
"""Bytes a second that copies take of the network, by default: a tenth of a link of 10 Gbit/s."""
RESERVE = 1 << 30
"""Bytes of the head's disk that copies leave free, for the registry and logs."""
AGE = 7 * 86_400.0
"""Seconds for which the copies of a job stay that is over."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """`rate`: bytes a second. `space`: bytes of all copies; None for a quarter of the disk."""

    rate: float = RATE
    space: int | None = None

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> tuple[Bounds, str]:
        """QD_CHECKPOINT_RATE and QD_CHECKPOINT_SPACE, such as "200MiB" and "2TiB"; and what is wrong with
        them. A typing error is no reason to be without a controller."""
        given: dict[str, int] = {}
        complaints = []
        for name in ("rate", "space"):
            variable = f"QD_CHECKPOINT_{name.upper()}"
            text = environ.get(variable)
            try:
                if text:
                    given[name] = max(1, parse_size(text))
            except ValueError as error:
                complaints.append(f"{variable}: {error}")
        return cls(given.get("rate", RATE), given.get("space")), "; ".join(complaints)


class Copies:
    """Args:
    folder: of the store. bounds: see there.
    """

    def __init__(
        self, folder: Path, database: Database, now: Callable[[], float], bounds: Bounds
    ) -> None:
        self.blobs = FolderBlobs(folder, now)
        self.bounds = bounds
        self._folder, self._db, self._now = folder, database, now
        self._of: dict[int, list[Copy]] = {}  # by job, oldest first
        self._making: dict[int, frozenset[str]] = {}  # digests of what is being copied, by job

    async def load(self) -> None:
        for copy in await self._db.read(copies.load):
            self._of.setdefault(copy.job, []).append(copy)

    def of(self, job: int) -> list[Copy]:
        """The copies of a job, oldest first."""
        return self._of.get(job, [])

    async def newest(self, job: int) -> Copy | None:
        """The newest copy of a job of which everything is here."""
        for copy in reversed(self.of(job)):
            if await asyncio.to_thread(self._is_here, copy):
                return copy
            log.warning("a copy of a checkpoint of j%d is not all here any more", job)
        return None

    def _is_here(self, copy: Copy) -> bool:
        try:
            manifest = Manifest.from_bytes(self.blobs.read(copy.digest))
            return all(self.blobs.path(digest).exists() for digest in manifest.blobs)
        except (QuarterdeckError, OSError):
            return False

    # -- making one ---------------------------------------------------------------------------------

    async def make_room(self, job: int, manifest: Manifest) -> list[tuple[str, int]]:
        """Begin a copy: the (digest, bytes) of what is not here yet. It is not removed until `done`.

        Older copies go when there is no room: of jobs that are over, then of this one.

        Raises StorageFull, in words, when it does not fit all the same.
        """
        self._making[job] = manifest.blobs | {manifest.digest.removeprefix("sha256:")}
        swept = False
        sizes = {entry.sha256: entry.size for entry in manifest.files if entry.link is None}
        while True:
            lacking, used = await asyncio.to_thread(self._lacking, sizes)
            needed = sum(size for _, size in lacking)
            problem = await asyncio.to_thread(self._problem, used, needed)
            if not problem:
                return lacking
            if not swept:
                swept = True
                await asyncio.to_thread(self._sweep)
            elif not await self._drop_one(job):
                raise StorageFull(problem, "Free disk space on the head, or raise the bound.")

    def _lacking(self, sizes: Mapping[str, int]) -> tuple[list[tuple[str, int]], int]:
        lacking = [(d, size) for d, size in sizes.items() if not self.blobs.path(d).exists()]
        return lacking, sum(item.size for item in self.blobs.items())

    def _problem(self, used: int, needed: int) -> str:
        disk = shutil.disk_usage(self._folder)
        space = disk.total // 4 if self.bounds.space is None else self.bounds.space
        if used + needed > space:
            return (
                f"copies of checkpoints may take {format_size(space)} on the head "
                f"(QD_CHECKPOINT_SPACE); they take {format_size(used)}, and this one needs "
                f"{format_size(needed)} more"
            )
        if needed > 0 and disk.free < needed + RESERVE:
            return (
                f"the head's disk has {format_size(disk.free)} free, of which {format_size(RESERVE)} "
                f"stay, and this copy needs {format_size(needed)}"
            )
        return ""

    async def _drop_one(self, job: int) -> bool:
        ended = await self._db.read(lambda s: copies.of_ended(s, self._now()))
        own = [copy.id for copy in self.of(job)[:-1]]
        if not (ended or own):
            return False
        await self._drop([(ended or own)[0]])
        return True

    async def record(self, row: CopyRow, manifest: Manifest, keep: int) -> Copy:
        """A copy is whole: note it, and let go of those of the job beyond the newest `keep`.

        Raises InvalidInput when something of it was deleted meanwhile.
        """
        job = row.job_id
        await asyncio.to_thread(self._put_manifest, manifest)
        mine = self.of(job)
        drop = [copy.id for copy in mine[: max(0, len(mine) + 1 - keep)]]
        copy = await self._db.write(lambda s: copies.record(s, row, drop))
        self._of[job] = [other for other in mine if other.id not in drop] + [copy]
        if drop:
            await asyncio.to_thread(self._sweep)
        return copy

    def _put_manifest(self, manifest: Manifest) -> None:
        for digest in manifest.blobs:
            if not self.blobs.path(digest).exists():
                raise InvalidInput(f"blob {digest[:12]} was deleted meanwhile")
        with self.blobs.incoming() as incoming:
            incoming.write(manifest.to_bytes())
            incoming.commit()

    def done(self, job: int) -> None:
        """Nothing is copied of a job now, and what was begun is not gone on with."""
        self._making.pop(job, None)

    # -- letting go ---------------------------------------------------------------------------------

    async def tidy(self) -> int:
        """Let go of the copies of jobs that have been over for long, and of what no copy needs; bytes
        that were freed."""
        old = await self._db.read(lambda s: copies.of_ended(s, self._now() - AGE))
        return await self._drop(old)

    async def _drop(self, ids: Collection[int]) -> int:
        if ids:

            def write(session: Session) -> None:
                copies.forget(session, ids)

            await self._db.write(write)
            for job, mine in list(self._of.items()):
                self._of[job] = [copy for copy in mine if copy.id not in ids]
                if not self._of[job]:
                    del self._of[job]
        return await asyncio.to_thread(self._sweep)

    def _sweep(self) -> int:
        """Remove what no copy needs, recorded or in the making. Blocking."""
        wanted = {digest for digests in list(self._making.values()) for digest in digests}
        for mine in list(self._of.values()):
            for copy in mine:
                wanted.add(copy.digest.removeprefix("sha256:"))
                try:
                    wanted |= Manifest.from_bytes(self.blobs.read(copy.digest)).blobs
                except QuarterdeckError:  # it has gone, and with it nothing is known to be needed
                    continue
                except OSError:
                    return 0  # nobody knows what it needs
        freed = 0
        for item in self.blobs.items():
            if item.digest not in wanted:
                try:
                    os.unlink(self.blobs.path(item.digest))  # noqa: PTH108
                    freed += item.size
                except OSError as error:
                    log.warning("a copied file cannot be removed: %s", error)
        return freed
