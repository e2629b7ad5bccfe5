"""Taking in a version of a data set, and reading its files."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sqlmodel import Session

from agents.controller.controller import Controller
from jobs.base.errors import InvalidInput, NotFound
from jobs.base.units import format_size
from jobs.data.names import DataRef, check_name, parse_ref
from jobs.features.names import parse_ref as parse_features
from jobs.life.lifecycle import Note
from jobs.models.names import parse_ref as parse_model
from jobs.snapshots.manifest import Manifest
from jobs.spec.job import JobSpec
from jobs.store import datasets, writing
from jobs.store.datatables import DataVersionRow
from jobs.store.writing import Caller
from jobs.wire.dataviews import DataFile, DataVersionView
from jobs.wire.views import EventView

MAX_PROFILE = 1 << 20
"""Bytes of a profile's JSON: some thousand columns."""


async def add(
    controller: Controller,
    who: Caller,
    *,
    name: str,
    digest: str,
    file: str | None,
    source: str,
    note: str,
    profile: Mapping[str, Any] | None,
) -> DataVersionView:
    """Record a version whose manifest and files are in the store; the same content is one version.

    Raises InvalidInput: a name that cannot be, or files that are not here.
    """
    check_name(name)
    if profile is not None and len(json.dumps(profile)) > MAX_PROFILE:
        raise InvalidInput(f"the profile is larger than {format_size(MAX_PROFILE)}")
    manifest = await asyncio.to_thread(_stored, controller, digest)
    if file is not None and [entry.path for entry in manifest.files] != [file]:
        raise InvalidInput("file: it is not the one file of the version")
    now = controller.now()

    def write(session: Session) -> tuple[DataVersionRow, bool, list[EventView]]:
        row, created = datasets.add(
            session,
            who,
            now,
            name=name,
            digest=digest,
            files=len(manifest.files),
            size=manifest.total_bytes,
            file=file,
            source=source,
            note=note,
            profile=profile,
        )
        if not created:
            return row, False, []
        text = f"{row.name}@{row.number} added by {who.user}: {format_size(row.size)}"
        note_added = Note("data.added", text, user=who.user)
        return row, True, writing.add_events(session, None, [note_added], now)

    row, created, events = await controller.db.write(write)
    controller.datasets.note(datasets.pin(row))
    controller.hub.announce(events)
    return {**datasets.view(row), "created": created}


def _stored(controller: Controller, digest: str) -> Manifest:
    if not controller.blobs.has(digest):
        raise InvalidInput(f"manifest {digest[:19]} is not here", "Upload it (`qd data add` does).")
    manifest = Manifest.from_bytes(controller.blobs.read(digest))
    if not manifest.files:
        raise InvalidInput("a version of a data set has at least one file")
    missing = controller.blobs.missing(sorted(manifest.blobs))
    if missing:
        raise InvalidInput(f"{len(missing)} of its files are not here", "Add it again.")
    return manifest


async def with_data(controller: Controller, spec: JobSpec) -> JobSpec:
    """The same job with the exact versions of its data, features and models. Raises NotFound."""
    if spec.data:
        wanted = {name: parse_ref(text) for name, text in spec.data.items()}
        spec = spec.model_copy(update={"data": await controller.datasets.pinned(wanted)})
    if spec.models:
        models = {name: parse_model(text) for name, text in spec.models.items()}
        spec = spec.model_copy(update={"models": await controller.datasets.pinned_models(models)})
    if spec.features is not None:
        ref = parse_features(spec.features)
        exact = await controller.datasets.pinned_features(ref)
        spec = spec.model_copy(update={"features": exact})
    return spec


async def files(controller: Controller, ref: DataRef) -> list[DataFile]:
    """What a version holds. Raises NotFound."""
    row = await controller.db.read(lambda session: datasets.get(session, ref))

    def read() -> list[DataFile]:
        manifest = Manifest.from_bytes(controller.blobs.read(row.digest))
        return [
            DataFile(path=entry.path, bytes=entry.size, sha256=entry.sha256, link=entry.link)
            for entry in manifest.files
        ]

    return await asyncio.to_thread(read)


async def blob(controller: Controller, ref: DataRef, sha256: str) -> tuple[Path, int]:
    """Where the content of one of a version's files lies, and its bytes.

    Raises NotFound for any other digest: who may read a version may not read the rest of the store.
    """
    row = await controller.db.read(lambda session: datasets.get(session, ref))
    size = (await asyncio.to_thread(controller.datasets.sizes, row.digest, controller.blobs)).get(
        sha256
    )
    if size is None:
        raise NotFound(f"{ref} has no file with this digest")
    return await asyncio.to_thread(controller.blobs.local, sha256), size
