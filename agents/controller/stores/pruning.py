"""Letting go of blobs that nothing refers to: every day, and when a person asks (`qd prune`).

A blob goes when no row of the registry refers to it and nobody has counted on it for a grace time.
The grace is what makes this safe beside submissions, which come in three steps (which blobs do you lack,
here they are, now run it): whoever stores a blob or is told that it is here has at least that long until
something refers to it. The order does the rest:

    what may go is listed → what is referred to is read → each is looked at once more, and removed

so whatever was counted on after the list was made is left alone, and whatever was referred to by then
was counted on. Nothing is to be undone after a crash, and the next pass finds what this one has left.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import re
import shutil
from collections.abc import Callable, Collection
from pathlib import Path

from sqlmodel import Session

from agents.controller.stores.blobs import BlobStore, Stored
from agents.controller.stores.copies import Copies
from agents.controller.stores.database import Database
from agents.controller.stores.hub import Hub
from agents.loops import loop
from jobs.base.errors import InvalidInput, NotFound, StorageFull
from jobs.base.times import rfc3339
from jobs.base.units import format_duration, format_size
from jobs.base.words import counted
from jobs.life.lifecycle import Note
from jobs.store import audit, blobrefs, writing
from jobs.store.writing import Caller
from jobs.wire.views import EventView, PruneView, StorageView

log = logging.getLogger(__name__)

GRACE = 86_400.0
"""Seconds for which a blob stays that nothing refers to."""
SHORTEST = 3_600.0
"""The least that a person may ask for: the longest that an honest submission lies between its steps."""
EVERY = 86_400.0
FIRST_AFTER = 600.0
"""Seconds from a controller's start to its first pass: there is other work to do at first."""
MEASURE_EVERY = 600.0
_AT_ONCE = 500
"""Blobs removed before others may have the thread's turn."""
_DIGEST = re.compile(rb"[0-9a-f]{64}")


class Pruning:
    """Prunes, and knows how large the store is.

    Args:
        now: unix time, seconds.
    """

    def __init__(
        self,
        blobs: BlobStore,
        database: Database,
        hub: Hub,
        copies: Copies,
        folder: Path,
        now: Callable[[], float],
        grace: float = GRACE,
    ) -> None:
        self._blobs, self._db, self._hub, self._folder = blobs, database, hub, folder
        self._copies = copies
        self._now, self._grace = now, max(grace, SHORTEST)
        self._busy = asyncio.Lock()
        self._measured: tuple[int, int, float] | None = None  # blobs, their bytes, and when

    def storage(self) -> StorageView | None:
        """How large the store is, as it was last measured; None before it ever was."""
        if self._measured is None:
            return None
        blobs, size, at = self._measured
        return {
            "blobs": blobs,
            "bytes": size,
            "free": shutil.disk_usage(self._folder).free,
            "measured_at": rfc3339(at),
        }

    async def run(self) -> None:
        """Measure and prune for ever."""
        due = itertools.count(EVERY - FIRST_AFTER, MEASURE_EVERY)

        async def turn() -> None:
            if next(due) % EVERY < MEASURE_EVERY:  # once in each `EVERY`
                await self.prune()
            else:
                self._measure(await asyncio.to_thread(self._blobs.items))

        await loop("pruning", turn, MEASURE_EVERY)

    async def prune(
        self, older_than: float | None = None, *, dry_run: bool = False, who: Caller | None = None
    ) -> PruneView:
        """Let go of what nobody needs, or only say what that would be.

        Args:
            older_than: seconds for which a blob must have been left alone; None for the usual time.
            who: the person who asks for it.

        Raises:
            InvalidInput: less time than a submission may take.
            StorageFull: the disk does not let itself be read or written.
        """
        grace = self._grace if older_than is None else older_than
        if grace < SHORTEST:
            raise InvalidInput(
                f"older_than: {format_duration(grace)}; allowed: {format_duration(SHORTEST)} or more",
                "A file stored more recently may belong to a job that is being submitted.",
            )
        async with self._busy:
            return await self._prune(grace, dry_run, who)

    async def _prune(self, grace: float, dry_run: bool, who: Caller | None) -> PruneView:
        before = self._now() - grace
        try:
            items = await asyncio.to_thread(self._blobs.items)
            roots, checkpoints = await self._roots(before, dry_run)
            kept = await asyncio.to_thread(marked, self._blobs, roots)
            doomed = [i for i in items if i.held_at < before and i.digest not in kept]
            gone = doomed if dry_run else await self._remove(doomed, before)
            if not dry_run:
                await asyncio.to_thread(self._blobs.tidy, before)
        except OSError as error:
            raise StorageFull(
                f"the blobs in {self._blobs.place} cannot be looked through: {error.strerror}",
                "What nothing refers to is let go of next time.",
            ) from error
        freed = sum(item.size for item in gone)
        if not dry_run:
            freed += await self._copies.tidy()
        view: PruneView = {
            "dry_run": dry_run,
            "older_than": grace,
            "blobs": len(gone),
            "bytes": freed,
            "checkpoints": checkpoints,
            "kept": len(items) - len(gone),
            "kept_bytes": sum(item.size for item in items) - freed,
            "left": [],
            "unanswered": [],
        }
        if not dry_run:
            self._measured = view["kept"], view["kept_bytes"], self._now()
            if gone or checkpoints or who is not None:
                await self._tell(view, who)
        return view

    async def _roots(self, before: float, dry_run: bool) -> tuple[blobrefs.Roots, int]:
        """What is referred to, and how many checkpoints of populations are let go of."""

        def look(session: Session) -> tuple[blobrefs.Roots, int]:
            spent = blobrefs.spent_checkpoints(session, before)
            return blobrefs.roots(session, without=spent), len(spent)

        if dry_run:
            return await self._db.read(look)
        forgotten = 0
        # On a full disk nothing can be recorded until there is room, which the rest may well make.
        with contextlib.suppress(StorageFull):
            forgotten = await self._db.write(lambda s: blobrefs.forget_spent(s, before))
        return await self._db.read(blobrefs.roots), forgotten

    async def _remove(self, doomed: Collection[Stored], before: float) -> list[Stored]:
        doomed, gone = list(doomed), []
        for at in range(0, len(doomed), _AT_ONCE):
            batch = doomed[at : at + _AT_ONCE]
            gone += await asyncio.to_thread(self._removed, batch, before)
        return gone

    def _removed(self, batch: Collection[Stored], before: float) -> list[Stored]:
        return [item for item in batch if self._blobs.remove(item.digest, before)]

    def _measure(self, items: Collection[Stored]) -> None:
        self._measured = len(items), sum(item.size for item in items), self._now()

    async def _tell(self, view: PruneView, who: Caller | None) -> None:
        """Write down what went, if anything, as an event, and that a person has asked for it."""
        now = self._now()
        text = f"pruned {counted(view['blobs'], 'blob')}, {format_size(view['bytes'])}"
        if view["checkpoints"]:
            text += f"; {counted(view['checkpoints'], 'checkpoint')} of populations let go of"
        note = Note("store.pruned", text, user=who.user if who else None)
        something = view["blobs"] or view["checkpoints"]

        def write(session: Session) -> list[EventView]:
            if who is not None:
                audit.append(
                    session,
                    at=now,
                    user=who.user,
                    uid=who.uid,
                    action="store.prune",
                    target="blobs",
                    data=view,
                )
            return writing.add_events(session, None, [note] if something else [], now)

        self._hub.announce(await self._db.write(write))


def marked(blobs: BlobStore, roots: blobrefs.Roots) -> set[str]:
    """Hex digests of everything that is referred to, directly or by a manifest. Blocking.

    A manifest's own words are searched for digests instead of being understood: one that another
    version wrote keeps its files too, and a name that looks like a digest keeps one blob too many.

    Raises:
        OSError, Unreachable: a manifest is there and cannot be read, so nobody knows what it refers to.
    """
    found = {digest.removeprefix("sha256:") for digest in roots.blobs | roots.manifests}
    for digest in roots.manifests:
        try:
            text = blobs.read(digest)
        except NotFound:
            continue
        found.update(match.decode() for match in _DIGEST.findall(text))
    return found
