"""What a job leaves behind, brought from its node: outputs, and the checkpoint folder when it is kept.

It may take minutes, so it happens beside the link's rounds, which go on with everybody else's lines.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import io
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from agents.controller.core.live import Live
from agents.controller.core.transfers import receive
from agents.controller.stores.blobs import BlobStore
from agents.controller.stores.database import Database
from agents.controller.stores.hub import Hub
from jobs.base.errors import InvalidInput, NotFound
from jobs.base.names import CHECKPOINT, OUTPUT_EVENT
from jobs.life.lifecycle import Note
from jobs.snapshots.manifest import FileEntry, Manifest
from jobs.snapshots.patterns import Pattern
from jobs.store import writing
from jobs.store.tables import ArtifactRow
from jobs.wire import messages as wire

PATIENCE = 0.5
"""Seconds that a round waits for what is small, so that a short job ends with the round that tells of it."""

Read = Callable[[int, int], Awaitable[bytes]]


@dataclass(frozen=True, slots=True)
class Collected:
    """What a job has left. `lacking`: the required outputs that are not among it."""

    rows: list[ArtifactRow] = field(default_factory=list)
    lacking: list[str] = field(default_factory=list)


Place = tuple[str, str]
"""Node, key of the attempt: every node of a gang reports on the same attempt, each on its own share."""


class Collector:
    """Fetches in the background, for each attempt once at a time.

    Args:
        now: unix time, seconds.
    """

    def __init__(
        self, database: Database, blobs: BlobStore, hub: Hub, now: Callable[[], float]
    ) -> None:
        self._db, self._blobs, self._hub, self._now = database, blobs, hub, now
        self._tasks: dict[Place, asyncio.Task[Collected]] = {}

    async def of(
        self, node: str, live: Live, agent: wire.AgentClient, report: wire.AttemptReport
    ) -> Collected | None:
        """What an attempt that has ended leaves, stored; None while it is on its way. Only one that has
        succeeded leaves something, on the node of rank 0.

        Raises StorageFull, and Unreachable when the node does not answer; both begin anew when asked
        again.
        """
        if report["outcome"] != "done" or all(rank["rank"] != 0 for rank in report["ranks"]):
            return Collected()
        if live.job.attempt is None or not (live.spec.outputs or live.spec.checkpoint.artifact):
            return Collected()
        place = node, report["key"]
        if place not in self._tasks:
            work = self._collect(live, live.job.attempt.epoch, agent, report["key"])
            self._tasks[place] = asyncio.create_task(work, name=f"collect-{report['key']}")
            self._tasks[place].add_done_callback(_noticed)
        task = self._tasks[place]
        await asyncio.wait({task}, timeout=PATIENCE)
        if not task.done():
            return None
        if task.cancelled() or task.exception() is not None:
            self._tasks.pop(place, None)
        return None if task.cancelled() else task.result()

    def busy(self, node: str, key: str) -> bool:
        """Whether something of this attempt is on its way from this node."""
        task = self._tasks.get((node, key))
        return task is not None and not task.done()

    def drop(self, node: str, key: str) -> None:
        """All that a node holds of an attempt is recorded, or nobody wants it any more."""
        task = self._tasks.pop((node, key), None)
        if task is not None:
            task.cancel()

    async def close(self) -> None:
        tasks = list(self._tasks.values())
        self._tasks.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _collect(
        self, live: Live, epoch: int, agent: wire.AgentClient, key: str
    ) -> Collected:
        rows, lacking = [], []
        for name, output in live.spec.outputs.items():
            try:
                row = await self._output(live, epoch, agent, key, name)
            except (InvalidInput, NotFound) as error:
                row = None
                await self._warn(live, f"output '{name}': {error.message}")
            if row is not None:
                rows.append(row)
            elif output.required:
                lacking.append(name)
        if live.spec.checkpoint.artifact:
            try:
                manifest = await self._folder(agent, key, "checkpoint")
            except (InvalidInput, NotFound) as error:
                await self._warn(live, f"checkpoint: {error.message}")
            else:
                if manifest.files:
                    rows.append(_folder_row(live, epoch, CHECKPOINT, "", manifest))
        return Collected(rows, lacking)

    async def _output(
        self, live: Live, epoch: int, agent: wire.AgentClient, key: str, name: str
    ) -> ArtifactRow | None:
        """An output, stored; None when there is nothing of it, of which people are warned."""
        path = live.spec.outputs[name].path
        listing = await agent.list_files(key, "work", [path], False)
        files = [file for file in listing["files"] if "link" not in file]
        if listing["more"]:
            await self._warn(live, f"output '{name}': {listing['more']} files were left out")
        if not files:
            link = listing["files"][0]["path"] if listing["files"] else ""
            why = (
                f"{link} is a link, which is not kept" if link else f"the job did not write {path}"
            )
            await self._warn(live, f"output '{name}': {why}")
            return None
        if Pattern.parse(path).is_plain and [file["path"] for file in files] == [path]:
            digest, size = await self._store(functools.partial(agent.read_file, key, "work", path))
            return _row(live, epoch, name, path, f"sha256:{digest}", size)
        manifest = await self._folder(agent, key, "work", listing)
        return _folder_row(live, epoch, name, path, manifest)

    async def _folder(
        self,
        agent: wire.AgentClient,
        key: str,
        place: wire.Place,
        listing: wire.FileList | None = None,
    ) -> Manifest:
        """Store the files of a folder and its manifest, if there is anything in it.

        Args:
            listing: of which files; all, without one.

        Raises InvalidInput when there are more than any manifest can hold.
        """
        if listing is None:
            listing = await agent.list_files(key, place, [], False)
            if listing["more"]:
                raise InvalidInput(f"it has more than {len(listing['files'])} files")
        entries = []
        for file in listing["files"]:
            if "link" in file:
                if place == "work":
                    entries.append(FileEntry(file["path"], 0o644, 0, "", file["link"]))
                continue
            read = functools.partial(agent.read_file, key, place, file["path"])
            digest, size = await self._store(read)
            entries.append(FileEntry(file["path"], file["mode"], size, digest))
        manifest = Manifest.of(entries)
        if entries:
            data = io.BytesIO(manifest.to_bytes())
            await asyncio.to_thread(self._blobs.put, manifest.digest, data)
        return manifest

    async def _store(self, read: Read) -> tuple[str, int]:
        """Digest in hex and bytes of a file, once it is stored."""
        size = 0
        with self._blobs.incoming() as incoming:
            async with contextlib.aclosing(receive(read)) as chunks:
                async for chunk in chunks:
                    await asyncio.to_thread(incoming.write, chunk)
                    size += len(chunk)
            return await asyncio.to_thread(incoming.commit), size

    async def _warn(self, live: Live, message: str) -> None:
        now, note = self._now(), Note(OUTPUT_EVENT, message, "warning")
        self._hub.announce(
            await self._db.write(lambda s: writing.add_events(s, live.job.id, [note], now))
        )


def _noticed(task: asyncio.Task[Collected]) -> None:
    """Whoever asks again hears of an error; a node that went away for good is not asked about again."""
    if not task.cancelled():
        task.exception()


def _row(live: Live, epoch: int, name: str, path: str, digest: str, size: int) -> ArtifactRow:
    return ArtifactRow(
        attempt_id=epoch, name=name, job_id=live.job.id, path=path, digest=digest, size=size
    )


def _folder_row(live: Live, epoch: int, name: str, path: str, manifest: Manifest) -> ArtifactRow:
    row = _row(live, epoch, name, path, manifest.digest, manifest.total_bytes)
    row.kind, row.files = "folder", len(manifest.files)
    return row
