"""What a step runs: its work folder, with the outputs of other steps laid into it.

A snapshot names files by content, so laying an output into one costs a few lines of JSON, and the bytes
travel to nodes as all code does.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import PurePosixPath

from agents.controller.stores.blobs import BlobStore
from jobs.base.errors import InvalidInput, NotFound
from jobs.snapshots.manifest import FileEntry, Manifest, empty_beside
from jobs.snapshots.patterns import below
from jobs.store.flowwriting import Artifact

Sources = Mapping[str, list[tuple[str, Artifact]] | tuple[str, Artifact]]
"""By path in the work folder: an output's name and content, or those of each run of a matrix."""


def composed(blobs: BlobStore, base: Manifest, sources: Sources) -> Manifest:
    """The folder with its inputs; one that lies where a file was takes its place. Those of a matrix
    become a folder, with a file or folder for each run, named by its number.

    Raises:
        InvalidInput: an input lies where the work folder has a folder, or the other way round.
        NotFound: the files of a checkpoint are not here any more.
    """
    laid: dict[str, FileEntry] = {}
    for path, source in sources.items():
        if isinstance(source, tuple):
            _lay(blobs, laid, path, *source)
            continue
        for number, (name, artifact) in enumerate(source):
            suffix = "".join(PurePosixPath(artifact.path).suffixes[-1:])
            _lay(blobs, laid, f"{path}/{number}{suffix}", name, artifact)
    taken = [entry for entry in base.files if entry.path not in laid]
    files = [*taken, *laid.values()]
    return Manifest.of(files, empty_beside(files, base.folders))


def _lay(
    blobs: BlobStore, laid: dict[str, FileEntry], path: str, name: str, artifact: Artifact
) -> None:
    digest = artifact.digest.removeprefix("sha256:")
    if not artifact.folder:
        laid[path] = FileEntry(path, 0o644, artifact.size, digest)
        return
    if not blobs.has(artifact.digest):
        raise NotFound(f"'{name}' ({artifact.digest[:19]}) is no longer stored")
    for entry in Manifest.from_bytes(blobs.read(artifact.digest)).files:
        inner = f"{path}/{below(artifact.path, entry.path)}"
        laid[inner] = FileEntry(inner, entry.mode, entry.size, entry.sha256, entry.link)


def stored(blobs: BlobStore, manifest: Manifest) -> str:
    """Make sure that a manifest is in the store; gives its digest."""
    if not blobs.has(manifest.digest):
        blobs.put(manifest.digest, io.BytesIO(manifest.to_bytes()))
    return manifest.digest


def present(blobs: BlobStore, artifacts: Mapping[str, Artifact]) -> bool:
    """Whether the content of outputs is all here."""
    for artifact in artifacts.values():
        if not blobs.has(artifact.digest):
            return False
        if artifact.folder:
            try:
                manifest = Manifest.from_bytes(blobs.read(artifact.digest))
            except (InvalidInput, NotFound):
                return False
            if blobs.missing(manifest.blobs):
                return False
    return True
