"""Making versions of models: of what a run has left, or of files that were sent.

The order makes it whole or absent: bytes first (they are in the store of blobs), then their manifest, then
one transaction with the version, its event and its audit row. What a crash leaves before that is a blob
that nothing refers to, and goes with the next pruning.
"""

from __future__ import annotations

import asyncio
import io
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sqlmodel import Session

from agents.controller.commands.acting import Done, act
from agents.controller.controller import Controller
from agents.controller.stores.blobs import BlobStore
from jobs.base.errors import Conflict, InvalidInput, NotAllowed, NotFound
from jobs.base.units import format_size
from jobs.features.declaration import FOLDER as FEATURES
from jobs.features.fitting import misfit
from jobs.features.names import parse_ref as parse_features
from jobs.models import formats, onnxfile
from jobs.models.formats import Format, Look
from jobs.models.names import check_tag, model_name, version_label, version_name
from jobs.snapshots.manifest import FileEntry, Manifest
from jobs.snapshots.patterns import below
from jobs.store import features, models, reading
from jobs.store.models import Content, Run, Source
from jobs.store.tables import ArtifactRow
from jobs.store.writing import Caller
from jobs.wire.modelviews import PublishView

_FILE_MODE = 0o644


async def register(
    controller: Controller,
    who: Caller,
    name: str,
    run: str,
    *,
    outputs: Sequence[str] = (),
    transform: str | None = None,
    label: str | None = None,
    tags: Mapping[str, str] | None = None,
) -> PublishView:
    """Make a version of what a run has left, all of it unless outputs are named.

    Args:
        transform: features whose files become part of it, so that it takes raw rows; by default those that
            the run names.

    Raises:
        NotFound: no such run or output, or its bytes are gone.
        NotAllowed: it holds a pickle, and the model's policy takes none.
        Conflict: see `jobs.store.models.publish`.
    """
    _check(name, label, tags)

    def look(session: Session) -> tuple[Run, dict[str, ArtifactRow], dict[str, str] | None]:
        found = models.run_of(session, reading.resolve(session, run))
        named = features.named(session, transform) or found.source.lineage["features"]
        return found, _chosen(found, outputs), named

    found, chosen, carried = await controller.db.read(look)
    manifest = await asyncio.to_thread(_gathered, controller.blobs, chosen)
    manifest = await asyncio.to_thread(_with_features, controller.blobs, manifest, carried)
    lineage = {
        **found.source.lineage,
        "features": carried,
        "outputs": {name: row.digest for name, row in sorted(chosen.items())},
    }
    source = Source(lineage, found.source.metrics, found.source.job, found.source.author)
    return await _publish(controller, who, name, manifest, source, label, tags, found.ref)


async def take_in(
    controller: Controller,
    who: Caller,
    name: str,
    digest: str,
    *,
    origin: str,
    transform: str | None = None,
    label: str | None = None,
    tags: Mapping[str, str] | None = None,
) -> PublishView:
    """Make a version of files that were sent before, by the digest of their manifest.

    Raises:
        NotFound: the manifest or a file of it is not here.
        InvalidInput: it is no manifest of plain files.
        NotAllowed, Conflict: as with `register`.
    """
    _check(name, label, tags)
    manifest = await asyncio.to_thread(_sent, controller.blobs, digest)
    carried = await controller.db.read(lambda session: features.named(session, transform))
    manifest = await asyncio.to_thread(_with_features, controller.blobs, manifest, carried)
    facts = {"kind": "import", "run": None, "origin": origin, "user": who.user}
    source = Source(facts | ({"features": carried} if carried else {}), {})
    return await _publish(controller, who, name, manifest, source, label, tags, origin)


async def publish_files(
    controller: Controller,
    who: Caller,
    name: str,
    manifest: Manifest,
    source: Source,
    *,
    tags: Mapping[str, str],
    origin: str,
) -> PublishView:
    """Make a version of files that are in the store, with the features that `source` names.

    Raises:
        NotAllowed: it holds a pickle, and the model's policy takes none.
        Conflict: see `jobs.store.models.publish`.
    """
    _check(name, None, tags)
    await asyncio.to_thread(_store, controller.blobs, manifest)
    carried = source.lineage.get("features")
    manifest = await asyncio.to_thread(_with_features, controller.blobs, manifest, carried)
    return await _publish(controller, who, name, manifest, source, None, tags, origin)


def _check(name: str, label: str | None, tags: Mapping[str, str] | None) -> None:
    if model_name(name) != name:
        raise InvalidInput(f"the name '{name}' is not in its normal form (NFC)")
    if label is not None:
        version_label(label)
    for key, value in (tags or {}).items():
        check_tag(key, value)


def _chosen(run: Run, outputs: Sequence[str]) -> dict[str, ArtifactRow]:
    """The outputs that are meant. Raises NotFound."""
    if not outputs:
        files = {n: row for n, row in run.outputs.items() if not models.is_folder(row)}
        return files or dict(run.outputs)
    for name in outputs:
        if name not in run.outputs:
            known = ", ".join(sorted(run.outputs))
            raise NotFound(f"{run.ref} has no output '{name}'", f"It has: {known}.")
    return {name: run.outputs[name] for name in outputs}


def _gathered(blobs: BlobStore, chosen: Mapping[str, ArtifactRow]) -> Manifest:
    """The manifest of these outputs, stored. Blocking.

    One file goes by its own name, several by their paths below the folder that they share.
    """
    entries: list[FileEntry] = []
    files = {n: row for n, row in chosen.items() if not models.is_folder(row)}
    paths = {name: row.path.split("/") for name, row in files.items()}
    shared = _shared([path[:-1] for path in paths.values()])
    for name, row in files.items():
        path = "/".join(paths[name][shared:])
        entries.append(FileEntry(path, _FILE_MODE, row.size, row.digest.removeprefix("sha256:")))
    for name, row in chosen.items():
        if name not in files:
            prefix = f"{name}/" if len(chosen) > 1 else ""
            entries += [
                FileEntry(
                    prefix + below(row.path, entry.path), _FILE_MODE, entry.size, entry.sha256
                )
                for entry in Manifest.from_bytes(blobs.read(row.digest)).files
                if entry.link is None
            ]
    manifest = Manifest.of(entries)
    _store(blobs, manifest)
    return manifest


def _store(blobs: BlobStore, manifest: Manifest) -> None:
    """Store a manifest whose files are there. Blocking. Raises NotFound."""
    _all_here(blobs, manifest)
    blobs.put(manifest.digest, io.BytesIO(manifest.to_bytes()))


def _with_features(
    blobs: BlobStore, manifest: Manifest, carried: Mapping[str, str] | None
) -> Manifest:
    """The same files, with those of features in a folder of their own: an approval of the version is one
    of its features too. Blocking.

    Raises Conflict when files of the model are there.
    """
    if carried is None:
        return manifest
    taken = [e.path for e in manifest.files if e.path.split("/")[0] == FEATURES]
    if taken:
        raise Conflict(
            f"the model has {taken[0]}, and its features would be in {FEATURES}/",
            "Choose the outputs that are the model: --output.",
        )
    more = [
        FileEntry(f"{FEATURES}/{entry.path}", entry.mode, entry.size, entry.sha256)
        for entry in Manifest.from_bytes(blobs.read(carried["digest"])).files
    ]
    whole = Manifest.of([*manifest.files, *more])
    blobs.put(whole.digest, io.BytesIO(whole.to_bytes()))
    return whole


def _shared(folders: Sequence[Sequence[str]]) -> int:
    """How many folders all of these begin with."""
    count = 0
    for parts in zip(*folders, strict=False):
        if len(set(parts)) > 1:
            break
        count += 1
    return count


def _sent(blobs: BlobStore, digest: str) -> Manifest:
    manifest = Manifest.from_bytes(blobs.read(digest))
    if not blobs.has(digest):  # it stays for a while from here on
        raise NotFound(f"there is no blob {digest}", "Send it again.")
    if not manifest.files:
        raise InvalidInput("a version has at least one file")
    for entry in manifest.files:
        if entry.link is not None:
            raise InvalidInput(f"{entry.path} is a link", "A version consists of files.")
    _all_here(blobs, manifest)
    for entry in manifest.files:
        size = blobs.size(entry.sha256)
        if size != entry.size:
            raise InvalidInput(f"{entry.path} has {size} bytes, and its manifest says {entry.size}")
    return manifest


def _all_here(blobs: BlobStore, manifest: Manifest) -> None:
    """Raises NotFound when bytes are missing; the others stay for a while."""
    missing = blobs.missing(sorted(manifest.blobs))
    if missing:
        gone = [entry.path for entry in manifest.files if entry.sha256 in missing]
        raise NotFound(
            f"the bytes of {gone[0]} are not in the store", "`qd prune` may have deleted them."
        )


async def _publish(
    controller: Controller,
    who: Caller,
    name: str,
    manifest: Manifest,
    source: Source,
    label: str | None,
    tags: Mapping[str, str] | None,
    origin: str,
) -> PublishView:
    kind, signature = await asyncio.to_thread(_inspected, controller.blobs, manifest)
    await _check_features(controller, source.lineage.get("features"), signature)
    content = Content(
        digest=manifest.digest,
        files=len(manifest.files),
        size=manifest.total_bytes,
        format=kind.kind,
        main=kind.main,
        pickles=kind.pickles,
        signature=signature,
    )
    warnings = [f"{path}: {why}; whoever loads it runs what is in it" for path, why in kind.pickles]

    def decide(session: Session, now: float) -> Done[PublishView]:
        model, row, created = models.publish(
            session, name, content, source, who, now, label=label, tags=tags
        )
        if kind.pickles and not models.policy_of(model).pickle:
            path, why = kind.pickles[0]
            raise NotAllowed(
                f"{path}: {why}, and the policy of {name} takes no pickles",
                f"Export the model as ONNX, safetensors or skops; or see `qd model policy {name}`.",
            )
        ref = version_name(name, row.number)
        view: PublishView = {
            "id": ref, "digest": row.digest, "created": created, "warnings": warnings,
        }  # fmt: skip
        if not created:
            return Done(view, left={"model": ref})
        data = {
            "digest": row.digest,
            "origin": origin,
            "format": row.format,
            "pickle": bool(kind.pickles),
            "label": label,
        }
        text = f"{ref} registered by {who.user} from {origin}, {format_size(row.size)}"
        severity = "warning" if kind.pickles else "info"
        return Done(view, text, data, severity, target=ref, left={"model": ref})  # type: ignore[arg-type]

    return await act(controller, who, "model.register", name, decide)


async def _check_features(
    controller: Controller,
    carried: Mapping[str, str] | None,
    signature: Mapping[str, Any] | None,
) -> None:
    """Raises InvalidInput for features that do not give what the model takes."""
    if carried is None or signature is None:
        return
    ref = parse_features(carried["version"])
    outputs = await controller.db.read(lambda s: features.get(s, ref).declaration["outputs"])
    if why := misfit(outputs, signature["inputs"]):
        raise InvalidInput(
            f"{carried['version']} does not fit: {why}",
            "Name the features that it was trained with: --features.",
        )


def _inspected(blobs: BlobStore, manifest: Manifest) -> tuple[Format, dict[str, Any] | None]:
    """Format and signature, from the files themselves. Blocking."""
    by_path = {entry.path: entry for entry in manifest.files}
    kind = formats.classify(
        [_look(path, blobs.local(entry.sha256)) for path, entry in by_path.items()]
    )
    if kind.kind != "onnx" or kind.main is None:
        return kind, None
    entry = by_path[kind.main]
    with blobs.local(entry.sha256).open("rb") as file:

        def read(offset: int, size: int) -> bytes:
            file.seek(offset)
            return file.read(size)

        try:
            return kind, onnxfile.signature(read, entry.size)
        except onnxfile.NotOnnx as error:
            raise InvalidInput(f"{kind.main} is not an ONNX file: {error}") from None


def _look(path: str, blob: Path) -> Look:
    with blob.open("rb") as file:
        head = file.read(formats.HEAD)
    members: list[str] = []
    if head.startswith(b"PK\x03\x04"):
        try:
            with zipfile.ZipFile(blob) as archive:
                members = archive.namelist()
        except (zipfile.BadZipFile, ValueError, NotImplementedError):
            members = []
    return Look(path, head, members)
