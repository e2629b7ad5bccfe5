"""Taking in a version of features, and the job that builds a data set with one."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec

from sqlmodel import Session

from agents.controller.commands.acting import Done, act
from agents.controller.commands.requests import SubmitRequest, Submitted
from agents.controller.commands.submitting import submit
from agents.controller.controller import Controller
from jobs.base.errors import InvalidInput
from jobs.base.units import format_size
from jobs.data.names import check_name as check_data_name
from jobs.data.names import parse_ref as parse_data
from jobs.features.declaration import DECLARATION, ROWS, Declaration, from_bytes
from jobs.features.names import FeatureRef, check_name
from jobs.snapshots.manifest import Manifest
from jobs.spec.job import JobSpec
from jobs.store import datasets, features
from jobs.store.featuretables import FeatureVersionRow
from jobs.store.writing import Caller
from jobs.wire.featureviews import FeatureVersionView
from jobs.wire.views import SubmitView

MAX_DECLARATION = 1 << 20
MAX_SIZE = 64 << 20
"""Bytes of a version's files together: they travel with every job and every model that uses it."""
OUT = "built"
"""The folder that a build leaves, in its work folder."""


async def add(
    controller: Controller, who: Caller, *, name: str, digest: str, source: str, note: str
) -> FeatureVersionView:
    """Record a version whose manifest and files are in the store; the same content is one version.

    Raises InvalidInput: a name that cannot be, files that are not here, or a declaration that is wrong.
    """
    check_name(name)
    manifest, declaration = await asyncio.to_thread(_stored, controller, digest)

    def decide(session: Session, now: float) -> Done[tuple[FeatureVersionRow, bool]]:
        row, created = features.add(
            session,
            who,
            now,
            name=name,
            digest=digest,
            files=len(manifest.files),
            size=manifest.total_bytes,
            declaration=declaration.to_json(),
            source=source,
            note=note,
        )
        if not created:
            return Done((row, False))
        version = f"{row.name}@{row.number}"
        text = f"features {version} added by {who.user}: {format_size(row.size)}"
        return Done((row, True), text, {"digest": digest, "note": note}, target=version)

    row, created = await act(controller, who, "features.add", name, decide)
    controller.datasets.note(features.pin(row))
    return {**features.view(row), "created": created}


def _stored(controller: Controller, digest: str) -> tuple[Manifest, Declaration]:
    """Blocking."""
    blobs = controller.blobs
    if not blobs.has(digest):
        raise InvalidInput(
            f"manifest {digest[:19]} is not here", "Upload it (`qd features add` does)."
        )
    manifest = Manifest.from_bytes(blobs.read(digest))
    if any(entry.link is not None for entry in manifest.files):
        raise InvalidInput("a version of features consists of files, and has no links")
    if manifest.total_bytes > MAX_SIZE:
        raise InvalidInput(
            f"it has {format_size(manifest.total_bytes)}; allowed: {format_size(MAX_SIZE)}"
        )
    if blobs.missing(sorted(manifest.blobs)):
        raise InvalidInput("some of its files are not here", "Add it again.")
    files = {entry.path: entry for entry in manifest.files}
    entry = files.get(DECLARATION)
    if entry is None or entry.size > MAX_DECLARATION:
        raise InvalidInput(f"it has no {DECLARATION}", "`qd features add` makes it.")
    declaration = from_bytes(blobs.read(entry.sha256))
    wanted = {DECLARATION, declaration.code, *declaration.files}
    if wanted != files.keys():
        names = ", ".join(sorted(wanted ^ files.keys()))
        raise InvalidInput(f"its files are not those that it declares: {names}")
    return manifest, declaration


async def files(controller: Controller, ref: FeatureRef) -> dict[str, str]:
    """The text of a version's files, by path. Raises NotFound."""
    row = await controller.db.read(lambda session: features.get(session, ref))

    def read() -> dict[str, str]:
        manifest = Manifest.from_bytes(controller.blobs.read(row.digest))
        shown = {row.declaration["code"], DECLARATION}
        return {
            entry.path: controller.blobs.read(entry.sha256).decode("utf-8", "replace")
            for entry in manifest.files
            if entry.path in shown
        }

    return await asyncio.to_thread(read)


@dataclass(frozen=True, slots=True)
class Build:
    """What is to be built: `data` names the rows, `tables` those that are joined, `into` the data set."""

    data: str
    into: str
    tables: Mapping[str, str] = field(default_factory=dict)
    python: str | None = None
    cpus: float | None = None
    memory: int | None = None
    key: str | None = None


async def build(controller: Controller, who: Caller, ref: FeatureRef, asked: Build) -> SubmitView:
    """Record the job, durably, and return.

    Raises:
        NotFound: no such features or data. InvalidInput: a table is missing or unknown, nothing here can
            run it, or no node could.
    """
    check_data_name(asked.into)

    def read(session: Session) -> tuple[FeatureVersionRow, str | None]:
        row = features.get(session, ref)
        return row, datasets.get(session, parse_data(asked.data)).file

    row, file = await controller.db.read(read)
    spec = job(row, asked, file)
    return await submit(
        controller, who, Submitted(SubmitRequest(spec=spec.to_json(), key=asked.key), spec)
    )


def job(row: FeatureVersionRow, asked: Build, file: str | None) -> JobSpec:
    """The job that does it.

    Args:
        file: of rows that are one file its name, None for a folder.

    Raises InvalidInput.
    """
    version = f"{row.name}@{row.number}"
    declared = Declaration.from_json(row.declaration)
    wanted = {join.table: join for join in declared.joins}
    for name, join in wanted.items():
        if name not in asked.tables:
            keys = f" by {', '.join(join.by)}" if join.by else ""
            raise InvalidInput(
                f"{version} joins a table {name}{keys}, and no data were given for it",
                f"--data {name}=NAME@V",
            )
    for name in asked.tables:
        if name not in wanted:
            known = ", ".join(wanted) or "none"
            raise InvalidInput(f"{version} joins no table {name}", f"It joins: {known}.")
    given = {"cpu": asked.cpus, "memory": asked.memory}
    path = OUT if file is None else f"{OUT}/{file}"
    return JobSpec.from_json(
        {
            "name": f"features-{row.name}"[:63],
            "command": ["python", "-m", "quarterdeck_serve.features", "--out", OUT],
            "python": asked.python or numpy_python(),
            "features": version,
            "data": {ROWS: asked.data, **asked.tables},
            "outputs": {OUT: {"path": path, "required": True, "data": asked.into}},
            "resources": {kind: value for kind, value in given.items() if value is not None},
            "tags": {"features": version},
        }
    )


def numpy_python() -> str:
    """The controller's interpreter, if a transform can run in it. Raises InvalidInput."""
    if find_spec("numpy") is None:
        raise InvalidInput(
            "features need numpy, which the controller's interpreter does not have",
            "Name an interpreter that has it: --python.",
        )
    return sys.executable
