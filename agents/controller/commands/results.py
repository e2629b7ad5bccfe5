"""What a job wrote: listing it and reading it, wherever it lies. Nothing here changes anything."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from agents.controller.core.ran import Ran, ran
from agents.controller.core.transfers import CHUNK, receive
from jobs.base.errors import InvalidInput, NotFound, QuarterdeckError, Unreachable
from jobs.base.names import CHECKPOINT, RunRef, job_name
from jobs.base.times import maybe_rfc3339, rfc3339
from jobs.snapshots.manifest import Manifest
from jobs.snapshots.patterns import Pattern
from jobs.wire import messages as wire
from jobs.wire.views import FilesView, FileView

if TYPE_CHECKING:
    from agents.controller.controller import Controller


async def listed(
    controller: Controller, ref: RunRef, patterns: list[str], *, everything: bool
) -> FilesView:
    """What an attempt wrote, the newest one unless `ref` names another.

    Args:
        patterns: which files are meant; all without any.
        everything: also what came with the job.

    Raises InvalidInput for a bad pattern.
    """
    try:
        wanted = [Pattern.parse(text) for text in patterns]
    except ValueError as error:
        raise InvalidInput(str(error)) from error
    attempt = await controller.db.read(lambda session: ran(session, ref))
    if attempt is None:
        return {
            "id": job_name(ref.job),
            "attempt": 0,
            "files": [],
            "until": None,
            "missing": ["it has not begun"],
        }
    files = await asyncio.to_thread(_stored, controller, attempt)
    known = {file["path"] for file in files if file["place"] == "output"}
    kept = any(file["place"] == "checkpoint" for file in files)
    places: list[Literal["work", "checkpoint"]] = ["work"] if kept else ["work", "checkpoint"]
    missing: list[str] = []
    untils: list[float] = []
    asked = [(place, node) for place in places for node in dict.fromkeys(attempt.nodes)]
    answers = await asyncio.gather(
        *(_of_node(controller, attempt, node, place, everything) for place, node in asked)
    )
    for (place, node), (listing, why) in zip(asked, answers, strict=True):
        if why and why not in missing:
            missing.append(why)
        if listing is None:
            continue
        if listing["more"]:
            missing.append(f"{node}: {listing['more']} more files that cannot be listed")
        if listing["until"] is not None and listing["files"]:
            untils.append(listing["until"])
        for file in listing["files"]:
            if place == "work" and file["path"] in known:
                continue
            view: FileView = {
                "place": place,
                "name": "",
                "path": file["path"],
                "size": file["size"],
                "mode": file["mode"],
                "at": rfc3339(file["mtime"]),
                "node": node,
                "sha256": None,
            }
            if "link" in file:
                view["link"] = file["link"]
            files.append(view)
    if wanted:
        files = [file for file in files if any(p.matches(file["path"]) for p in wanted)]
    return {
        "id": f"{job_name(attempt.job)}.{attempt.number}",
        "attempt": attempt.number,
        "files": files,
        "until": maybe_rfc3339(min(untils, default=None)),
        "missing": missing,
    }


def _stored(controller: Controller, attempt: Ran) -> list[FileView]:
    """What lies in the store of blobs. Blocking."""
    files: list[FileView] = []
    for row in attempt.artifacts:
        place = "checkpoint" if row.name == CHECKPOINT and not row.path else "output"
        if row.kind == "file":
            entries: list[tuple[str, int, int, str, str | None]] = [
                (row.path, 0o644, row.size, row.digest.removeprefix("sha256:"), None)
            ]
        else:
            manifest = Manifest.from_bytes(controller.blobs.read(row.digest))
            entries = [
                (entry.path, entry.mode, entry.size, entry.sha256, entry.link)
                for entry in manifest.files
            ]
        for path, mode, size, digest, link in entries:
            view: FileView = {
                "place": place,  # type: ignore[typeddict-item]
                "name": row.name,
                "path": path,
                "size": size,
                "mode": mode,
                "at": None,
                "node": None,
                "sha256": digest or None,
            }
            if link is not None:
                view["link"] = link
            files.append(view)
    return files


async def _of_node(
    controller: Controller, attempt: Ran, node: str, place: wire.Place, everything: bool
) -> tuple[wire.FileList | None, str]:
    """A folder of an attempt on a node, or why it cannot be listed ("" when there is none)."""
    try:
        _, agent = controller.links.agent(node)
        key = attempt.key(controller.cluster_id)
        return await agent.list_files(key, place, [], not everything), ""
    except NotFound:
        return None, ""
    except Unreachable:
        return None, f"{node} does not answer: what it has is not listed"
    except QuarterdeckError as error:
        return None, f"{node}: {error.message}"


@dataclass(frozen=True, slots=True)
class Source:
    """One file on a node."""

    agent: wire.AgentClient
    key: str
    place: wire.Place
    path: str

    async def digest(self, offset: int, limit: int) -> str:
        return await self.agent.hash_file(self.key, self.place, self.path, offset, limit)

    async def chunks(self, offset: int, limit: int) -> AsyncGenerator[bytes, None]:
        """Up to `limit` bytes from `offset` on. Raises NotFound, InvalidInput, Unreachable."""

        async def read(at: int, size: int) -> bytes:
            size = min(size, limit - at)
            if size <= 0:
                return b""
            read_ = functools.partial(self.agent.read_file, self.key, self.place, self.path)
            return await read_(offset + at, size)

        if limit < CHUNK:  # nothing to read ahead
            yield await read(0, limit)
            return
        async for chunk in receive(read):
            yield chunk


async def source(
    controller: Controller, ref: RunRef, place: wire.Place, node: str, path: str
) -> Source:
    """A file of an attempt on one of its nodes. Raises NotFound, Unreachable."""
    attempt = await controller.db.read(lambda session: ran(session, ref))
    if attempt is None or node not in attempt.nodes:
        raise NotFound(f"{ref} has not run on {node}")
    _, agent = controller.links.agent(node)
    return Source(agent, attempt.key(controller.cluster_id), place, path)
