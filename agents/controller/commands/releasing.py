"""Releases of streams become versions of a model: `stream: {release: {model: NAME}}`.

A release is a folder of the job's checkpoints, which the head copies (`agents/controller/core/copying.py`). A
version is known by its files, which say the moment of the release: publishing a copy a second time, after
whatever was killed, makes none.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from dataclasses import replace
from typing import Any

from sqlmodel import Session

from agents.controller.commands import publishing
from agents.controller.controller import Controller
from agents.controller.core.live import Live
from agents.controller.stores.blobs import BlobStore
from jobs.base.errors import Conflict, InvalidInput, NotAllowed
from jobs.base.names import job_name
from jobs.snapshots.manifest import Manifest
from jobs.snapshots.patterns import below
from jobs.store import models, reading
from jobs.store.copies import Copy
from jobs.store.models import Source
from jobs.store.tables import AttemptRow
from jobs.store.writing import Caller

log = logging.getLogger(__name__)

_START = "release-"
FACTS = "release.json"
"""What `quarterdeck_stream` writes beside the model."""
_LARGEST = 64 << 10
"""Bytes of it."""


class Releases:
    """Those that this process has seen are not looked at again, as long as copies have them."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self._seen: dict[int, set[str]] = {}  # by job

    async def publish(self, live: Live, copy: Copy) -> None:
        """Make versions of the releases that a copy has, in their order.

        Raises QuarterdeckError for what may pass. What a rule refuses (a pickle, a version that is archived)
        is an event of its own, and is not tried again.
        """
        stream = live.spec.stream
        model = stream.release.model if stream is not None else None
        numbers = sorted(int(name[len(_START) :]) for name in copy.names if _is_release(name))
        if model is None:
            return
        seen = self._seen.get(live.job.id, set()) & set(copy.names)
        self._seen[live.job.id] = seen
        new = [n for n in numbers if f"{_START}{n}" not in seen]
        if not new:
            return
        copies = self._controller.copies.blobs
        whole = Manifest.from_bytes(await asyncio.to_thread(copies.read, copy.digest))
        for number in new:
            name = f"{_START}{number}"
            try:
                await self._one(live, copy, model, name, whole)
            except (NotAllowed, Conflict, InvalidInput) as error:
                log.warning("%s of j%d is no version: %s", name, live.job.id, error.message)
            seen.add(name)

    async def _one(self, live: Live, copy: Copy, model: str, name: str, whole: Manifest) -> None:
        controller, job = self._controller, live.job.id
        manifest = Manifest.of(
            replace(entry, path=below(name, entry.path), mode=0o644)
            for entry in whole.files
            if entry.path.startswith(f"{name}/") and entry.link is None
        )
        facts = await asyncio.to_thread(_bring, controller.copies.blobs, controller.blobs, manifest)

        def look(session: Session) -> Source:
            row = reading.get_job(session, job)
            epoch = reading.epoch_of(session, job, copy.attempt)
            assert epoch is not None
            attempt = session.get_one(AttemptRow, epoch[0])
            found = models.source_of(session, row, attempt)
            lineage = {**found.lineage, "release": facts}
            return replace(
                found, lineage=lineage, metrics={**found.metrics, **facts.get("scores", {})}
            )

        source = await controller.db.read(look)
        await publishing.publish_files(
            controller,
            Caller(live.user, live.uid),
            model,
            manifest,
            source,
            tags={"stream": job_name(job), "release": name.removeprefix(_START)},
            origin=f"{name} of {job_name(job)}",
        )


def _is_release(name: str) -> bool:
    return name.startswith(_START) and name[len(_START) :].isdigit()


def _bring(copies: BlobStore, blobs: BlobStore, manifest: Manifest) -> dict[str, Any]:
    """Put a release's files into the store of blobs; what it says of itself. Blocking."""
    facts: Any = {}
    for entry in manifest.files:
        if entry.path == FACTS and entry.size <= _LARGEST:
            with contextlib.suppress(ValueError, RecursionError):  # the script's, then
                facts = json.loads(copies.read(entry.sha256))
        if not blobs.has(entry.sha256):
            with copies.local(entry.sha256).open("rb") as file:
                blobs.put(entry.sha256, file)
    return _known(facts)


def _known(facts: Any) -> dict[str, Any]:
    """What a release says, without what its script may have put there."""
    if not isinstance(facts, dict):
        return {}
    found: dict[str, Any] = {
        name: facts[name]
        for name in ("number", "read", "trained", "at")
        if isinstance(facts.get(name), int | float)
    }
    if isinstance(facts.get("why"), str):
        found["why"] = facts["why"][:100]
    scores = facts.get("scores")
    found["scores"] = {
        name: float(scores[name])
        for name in ("accuracy", "mae")
        if isinstance(scores, dict) and isinstance(scores.get(name), int | float)
    }
    return found
