"""Reading a version: everything about it, its files, what differs from another, whether it is whole."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path
from typing import Any

from sqlmodel import Session

from agents.controller.controller import Controller
from agents.controller.stores.blobs import BlobStore
from jobs.base.errors import Conflict, NotFound, QuarterdeckError
from jobs.life.lifecycle import Note
from jobs.models.names import ModelRef, version_name
from jobs.snapshots.manifest import FileEntry, Manifest
from jobs.store import evaluations, models, writing
from jobs.store.modeltables import ModelVersionRow
from jobs.wire.modelviews import DiffView, ModelDetail, VerifyFile, VerifyView

_CHUNK = 1 << 20
_EVALUATIONS = 20
"""Of a version that are shown with it."""


async def detail(controller: Controller, ref: ModelRef) -> ModelDetail:
    """Everything about a version. Raises NotFound."""
    now, signers = controller.now(), await controller.signers()

    def look(session: Session) -> ModelDetail:
        model, row = models.get_version(session, ref)
        where = models.standing_of(session, model, row, now, signers)
        name = version_name(model.name, row.number)
        assert row.id is not None
        return {
            **models.model_view(session, model, row, now, signers),
            "standing": models.standing_view(where),
            "main": row.main,
            "pickles": row.pickles,
            "signature": row.signature,
            "tags": models.tags_of(session, row.id),
            "lineage": row.lineage,
            "policy": models.policy_of(model).to_json(),
            "gates": [models.evidence_view(g) for g in reversed(models.gates_of(session, row.id))],
            "decisions": [
                models.approval_view(one, name, where, signers)
                for one in reversed(models.decisions_of(session, row.id))
            ],
            "evaluations": [
                evaluations.view(one)
                for one in evaluations.listed(session, version=row.id, limit=_EVALUATIONS)
            ],
            "contents": [],
        }

    found = await controller.db.read(look)
    manifest = await manifest_of(controller, found["digest"], found["id"])
    found["contents"] = [
        {"path": entry.path, "size": entry.size, "sha256": entry.sha256} for entry in manifest.files
    ]
    return found


async def manifest_of(controller: Controller, digest: str, name: str) -> Manifest:
    """The files of a version. Raises Conflict when its manifest is gone or was changed."""

    def read() -> Manifest:
        try:
            manifest = Manifest.from_bytes(controller.blobs.read(digest))
        except QuarterdeckError as error:
            raise Conflict(f"the list of files of {name} cannot be read: {error.message}") from None
        if manifest.digest != digest:
            raise Conflict(
                f"the list of files of {name} was changed: it has the digest {manifest.digest[:19]}",
                f"`qd model verify {name}` checks every file.",
            )
        return manifest

    return await asyncio.to_thread(read)


async def file_of(controller: Controller, ref: ModelRef, path: str) -> tuple[FileEntry, Path]:
    """One file of a version, and where it lies. Raises NotFound."""

    def look(session: Session) -> tuple[str, str]:
        model, row = models.get_version(session, ref)
        return row.digest, version_name(model.name, row.number)

    digest, name = await controller.db.read(look)
    manifest = await manifest_of(controller, digest, name)
    for entry in manifest.files:
        if entry.path == path:
            return entry, await asyncio.to_thread(controller.blobs.local, entry.sha256)
    raise NotFound(f"{name} has no file '{path}'", f"`qd model show {name}` lists them.")


async def diff(controller: Controller, left: ModelRef, right: ModelRef) -> DiffView:
    """What differs between two versions: files, where they come from, metrics. Raises NotFound."""

    def look(session: Session) -> list[tuple[str, ModelVersionRow]]:
        found = []
        for ref in (left, right):
            model, row = models.get_version(session, ref)
            session.expunge(row)
            found.append((version_name(model.name, row.number), row))
        return found

    (one, a), (other, b) = await controller.db.read(look)
    files = [
        {e.path: e.sha256 for e in (await manifest_of(controller, row.digest, name)).files}
        for name, row in ((one, a), (other, b))
    ]
    facts = [_facts(a), _facts(b)]
    return {
        "left": one,
        "right": other,
        "files": _differences(files, "path"),
        "facts": _differences(facts, "what"),
        "metrics": _differences([a.metrics, b.metrics], "metric", same=True),
    }


def _facts(row: ModelVersionRow) -> dict[str, Any]:
    """What a version says of where it comes from, parameter by parameter."""
    lineage = row.lineage
    params = lineage.get("params") or {}
    git = lineage.get("git") or {}
    plain = ("run", "command", "seed", "snapshot", "python", "requirements", "data", "nodes")
    return {
        **{name: lineage.get(name) for name in plain},
        "git commit": git.get("commit"),
        **{f"params.{name}": value for name, value in params.items()},
        "format": row.format,
        "signature": row.signature,
        "size": row.size,
    }


def _differences(
    sides: list[dict[str, Any]], key: str, *, same: bool = False
) -> list[dict[str, Any]]:
    left, right = sides
    return [
        {key: name, "left": left.get(name), "right": right.get(name)}
        for name in dict.fromkeys([*left, *right])
        if same or left.get(name) != right.get(name)
    ]


async def verify(controller: Controller, ref: ModelRef) -> VerifyView:
    """Read every byte of a version again. What is not as it was is told as an event too.

    Raises NotFound for no such version.
    """

    def look(session: Session) -> tuple[str, str]:
        model, row = models.get_version(session, ref)
        return row.digest, version_name(model.name, row.number)

    digest, name = await controller.db.read(look)
    view = await asyncio.to_thread(_verified, controller.blobs, digest, name)
    if view["problems"]:
        first = view["problems"][0]
        text = f"{name} is not as it was registered: {first['path']} {first['problem']}"
        now = controller.now()
        events = await controller.db.write(
            lambda s: writing.add_events(s, None, [Note("model.damaged", text, "error")], now)
        )
        controller.hub.announce(events)
    return view


def _verified(blobs: BlobStore, digest: str, name: str) -> VerifyView:
    problems: list[VerifyFile] = []
    files = size = 0
    try:
        data = blobs.read(digest)
        if f"sha256:{hashlib.sha256(data).hexdigest()}" != digest:
            problems.append({"path": "(the list of files)", "problem": "was changed"})
        for entry in Manifest.from_bytes(data).files:
            files, size = files + 1, size + entry.size
            problem = blobs.check(entry.sha256)
            if problem:
                problems.append({"path": entry.path, "problem": problem})
    except QuarterdeckError as error:
        problems.append({"path": "(the list of files)", "problem": error.message})
    return {
        "id": name, "digest": digest, "ok": not problems, "files": files, "bytes": size,
        "problems": problems,
    }  # fmt: skip
