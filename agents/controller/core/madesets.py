"""Outputs that become versions of data sets: `outputs: {rows: {path: out, data: digits}}`.

The version is recorded in the transaction that records the output itself, so there is never one without
the other.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from sqlmodel import Session

from agents.controller.core.live import Live
from agents.controller.stores.blobs import BlobStore
from agents.controller.stores.datasets import Datasets
from jobs.base.names import job_name
from jobs.base.units import format_size
from jobs.life.lifecycle import Note
from jobs.snapshots.manifest import FileEntry, Manifest
from jobs.snapshots.patterns import below
from jobs.spec.job import JobSpec
from jobs.store import datasets, features, writing
from jobs.store.tables import ArtifactRow, JobRow
from jobs.store.writing import Caller
from jobs.wire.dataviews import DataPin
from jobs.wire.views import EventView


@dataclass(slots=True)
class MadeSets:
    """What one attempt leaves as versions of data sets, as it is recorded."""

    manifests: dict[str, Manifest] = field(default_factory=dict)  # by the output's name
    pins: list[DataPin] = field(default_factory=list)
    events: list[EventView] = field(default_factory=list)

    @classmethod
    def of(cls, blobs: BlobStore, spec: JobSpec, rows: list[ArtifactRow]) -> MadeSets:
        """With their manifests stored. Blocking."""
        wanted = [row for row in rows if row.name in spec.outputs and spec.outputs[row.name].data]
        found = {row.name: _manifest(blobs, row) for row in wanted}
        for manifest in found.values():
            blobs.put(manifest.digest, io.BytesIO(manifest.to_bytes()))
        return cls(found)

    def record(self, session: Session, live: Live, rows: list[ArtifactRow], now: float) -> None:
        """Add the versions; each artifact says which it became."""
        self.pins.clear()
        self.events.clear()
        notes = []
        for row in rows:
            manifest = self.manifests.get(row.name)
            name = live.spec.outputs[row.name].data if manifest is not None else None
            if manifest is None or name is None:
                continue
            version, created = datasets.add(
                session,
                Caller(live.user, session.get_one(JobRow, live.job.id).uid),
                now,
                name=name,
                digest=manifest.digest,
                files=len(manifest.files),
                size=manifest.total_bytes,
                file=PurePosixPath(row.path).name if row.kind == "file" else None,
                source=f"output {row.name} of {job_name(live.job.id)}",
                note="",
                profile=None,
                lineage=lineage(session, live, row.name),
            )
            pin = datasets.pin(version)
            row.data = pin["version"]
            self.pins.append(pin)
            if created:
                text = f"{row.data} made by {job_name(live.job.id)}: {format_size(version.size)}"
                notes.append(Note("data.added", text, user=live.user))
        if notes:
            self.events += writing.add_events(session, live.job.id, notes, now)

    def note(self, known: Datasets) -> None:
        """They are recorded: jobs may name them from now on."""
        for pin in self.pins:
            known.note(pin)


def lineage(session: Session, live: Live, output: str) -> Mapping[str, Any]:
    """What a version was made from."""
    attempt = live.job.attempt
    number = attempt.number if attempt is not None else 1
    spec = live.spec
    return {
        "kind": "run",
        "job": job_name(live.job.id),
        "run": f"{job_name(live.job.id)}.{number}",
        "output": output,
        "user": live.user,
        "data": dict(spec.data),
        "features": features.named(session, spec.features),
        "snapshot": live.snapshot,
    }


def _manifest(blobs: BlobStore, row: ArtifactRow) -> Manifest:
    """The files of a version, by their paths below the output's folder."""
    if row.kind == "file":
        name = PurePosixPath(row.path).name
        return Manifest.of([FileEntry(name, 0o644, row.size, row.digest.removeprefix("sha256:"))])
    return Manifest.of(
        FileEntry(below(row.path, entry.path), entry.mode, entry.size, entry.sha256, entry.link)
        for entry in Manifest.from_bytes(blobs.read(row.digest)).files
    )
