"""The code that a job ran: the files of its snapshot."""

from __future__ import annotations

import asyncio
from pathlib import Path

from agents.controller.controller import Controller
from jobs.base.errors import NotFound
from jobs.base.names import job_name
from jobs.snapshots.manifest import Manifest
from jobs.store import reading
from jobs.wire.dataviews import DataFile


async def files(controller: Controller, job: int) -> list[DataFile]:
    """Raises NotFound: no such job."""
    row = await controller.db.read(lambda session: reading.get_job(session, job))
    snapshot = row.snapshot
    if snapshot is None:
        return []

    def read() -> list[DataFile]:
        manifest = Manifest.from_bytes(controller.blobs.read(snapshot))
        return [
            DataFile(path=entry.path, bytes=entry.size, sha256=entry.sha256, link=entry.link)
            for entry in manifest.files
        ]

    return await asyncio.to_thread(read)


async def blob(controller: Controller, job: int, sha256: str) -> tuple[Path, int]:
    """Where one of its files lies, and its bytes. Raises NotFound for what is none of them."""
    for file in await files(controller, job):
        if file["sha256"] == sha256 and sha256:
            return await asyncio.to_thread(controller.blobs.local, sha256), file["bytes"]
    raise NotFound(f"{job_name(job)} has no file with this digest")
