"""Bringing what an attempt wrote in its work folder to the next one (`resume: workdir`).

Where the next attempt has the same node, that node copies it. Elsewhere it travels through the head's store,
as outputs do; blobs that nobody refers to are pruned there after a day.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from sqlmodel import Session, col, select

from agents.controller.core.live import Live
from agents.controller.core.transfers import receive
from agents.controller.nodes.links import Links
from agents.controller.stores.blobs import BlobStore
from agents.controller.stores.database import Database
from agents.controller.stores.hub import Hub
from jobs.base.errors import InvalidInput, NotFound, Unreachable
from jobs.base.names import AttemptKey
from jobs.base.units import format_size
from jobs.base.words import counted
from jobs.life.lifecycle import Note
from jobs.snapshots.manifest import FileEntry, Manifest
from jobs.store import writing
from jobs.store.tables import AllocationRow, AttemptRow
from jobs.wire import messages as wire

EVENT = "job.resume"


@dataclass(frozen=True, slots=True)
class _Before:
    """The newest attempt that was launched before this one: its number, identity, and node of a rank."""

    number: int
    identity: str
    node: str


class Carrier:
    """Args:
    tell: takes what is being done for a job, in words.
    now: unix time, seconds.
    """

    def __init__(
        self,
        cluster: str,
        database: Database,
        links: Links,
        blobs: BlobStore,
        hub: Hub,
        *,
        tell: Callable[[Live, str], None],
        now: Callable[[], float],
    ) -> None:
        self._cluster, self._db, self._links, self._blobs = cluster, database, links, blobs
        self._hub, self._tell, self._now = hub, tell, now
        self._known: dict[
            int, tuple[int, dict[int, wire.Carried | None]]
        ] = {}  # by job: epoch, ranks

    async def carried(self, live: Live, node_rank: int, node: str) -> wire.Carried | None:
        """What a node's share of the newest attempt begins with; None for nothing but what was submitted.

        What is in the way of it is told in an event: the attempt begins all the same.
        """
        attempt = live.job.attempt
        if live.spec.resume != "workdir" or attempt is None or attempt.number == 1:
            return None
        epoch, known = self._known.get(live.job.id, (0, {}))
        if epoch != attempt.epoch:
            epoch, known = self._known[live.job.id] = (attempt.epoch, {})
        if node_rank not in known:
            known[node_rank] = await self._carry(live, node_rank, node)
        return known[node_rank]

    def ended(self, job: int) -> None:
        """A job is over."""
        self._known.pop(job, None)

    async def _carry(self, live: Live, node_rank: int, node: str) -> wire.Carried | None:
        assert live.job.attempt is not None
        number = live.job.attempt.number
        before = await self._db.read(lambda s: _before(s, live.job.id, number, node_rank))
        if before is None:
            return None
        job, run = live.job.id, f"j{live.job.id}.{before.number}"
        key = str(AttemptKey(self._cluster, job, before.number, live.token, before.identity))
        try:
            agent = self._links.agent(before.node)[1]
            listing = await agent.list_files(key, "work", [], True)
            files = listing["files"]
            size = sum(file["size"] for file in files)
            if not files:
                return None
            what = f"{counted(len(files), 'file')}, {format_size(size)}"
            digest = ""
            if before.node != node:
                self._tell(live, f"{node}: fetching what {run} wrote on {before.node}: {what}")
                digest = await self._fetch(agent, key, files)
        except (NotFound, Unreachable, InvalidInput) as error:
            text = (
                f"what {run} wrote in its work folder on {before.node} cannot be had "
                f"({error.message}): attempt {number} begins with what was submitted"
            )
            await self._event(live, text, "warning")
            return None
        left = f"; {counted(listing['more'], 'file')} left out" if listing["more"] else ""
        text = f"attempt {number} begins with what {run} wrote on {before.node}: {what}{left}"
        await self._event(live, text, "warning" if left else "info")
        return {"key": key, "digest": digest, "size": size}

    async def _fetch(self, agent: wire.AgentClient, key: str, files: list[wire.NodeFile]) -> str:
        """Store the files and their manifest; its digest."""
        entries = []
        for file in files:
            if "link" in file:
                entries.append(FileEntry(file["path"], 0o644, 0, "", file["link"]))
                continue
            size = 0
            read = functools.partial(agent.read_file, key, "work", file["path"])
            with self._blobs.incoming() as incoming:
                async with contextlib.aclosing(receive(read)) as chunks:
                    async for chunk in chunks:
                        await asyncio.to_thread(incoming.write, chunk)
                        size += len(chunk)
                digest = await asyncio.to_thread(incoming.commit)
            entries.append(FileEntry(file["path"], file["mode"], size, digest))
        manifest = Manifest.of(entries)
        await asyncio.to_thread(self._blobs.put, manifest.digest, io.BytesIO(manifest.to_bytes()))
        return manifest.digest

    async def _event(self, live: Live, text: str, level: Literal["info", "warning"]) -> None:
        now, note = self._now(), Note(EVENT, text, level)
        self._hub.announce(
            await self._db.write(lambda s: writing.add_events(s, live.job.id, [note], now))
        )


def _before(session: Session, job: int, number: int, node_rank: int) -> _Before | None:
    launched = select(AttemptRow).where(
        AttemptRow.job_id == job,
        AttemptRow.number < number,
        col(AttemptRow.started_at).is_not(None),
    )
    attempt = session.exec(launched.order_by(col(AttemptRow.number).desc()).limit(1)).first()
    if attempt is None:
        return None
    allocation = session.exec(
        select(AllocationRow).where(
            AllocationRow.attempt_id == attempt.id, AllocationRow.node_rank == node_rank
        )
    ).first()
    return (
        _Before(attempt.number, attempt.identity, allocation.node)
        if allocation is not None
        else None
    )
