"""What a step runs: its work folder, with the outputs of other steps laid into it.

A snapshot names files by content, so laying an output into one costs a few lines of JSON, and the bytes
travel to nodes as all code does.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Hashable, Mapping
from pathlib import PurePosixPath
from typing import TypeVar, cast

from agents.controller.stores.blobs import BlobStore
from jobs.base.errors import (
    Damaged,
    InvalidInput,
    NotFound,
    QuarterdeckError,
    StorageFull,
    Unreachable,
)
from jobs.snapshots.manifest import FileEntry, Manifest, empty_beside
from jobs.snapshots.patterns import below
from jobs.store.flowwriting import Artifact

Sources = Mapping[str, list[tuple[str, Artifact]] | tuple[str, Artifact]]
"""By path in the work folder: an output's name and content, or those of each run of a matrix."""
T = TypeVar("T")


class Lacking(Exception):
    """A pass needs of the store of blobs what is not on its shelf yet."""


class Shelf:
    """What one pass over a run needs of the store of blobs.

    A pass is a transaction of the registry, in which nobody else writes, and blobs may be far away. So a pass
    takes only what is on the shelf. When something lacks, the pass is taken back, `bring` gets what it asked
    for, and it is made again.

    Args:
        keep: whether folders that are made are stored; not for a plan.
    """

    def __init__(self, blobs: BlobStore, *, keep: bool = True) -> None:
        self._blobs, self._keep = blobs, keep
        self._there: dict[Hashable, object] = {}
        self._lacking: dict[Hashable, Callable[[], object]] = {}
        self._manifests: dict[str, Manifest] = {}

    def laid(self, base: str | None, sources: Sources) -> Manifest:
        """A work folder, by the digest of its manifest, with inputs laid into it. Raises as `composed`."""

        def make() -> Manifest:
            files = Manifest() if base is None else self._manifest(base)
            return self._kept(composed(self._blobs, files, sources))

        return self._take(("laid", base, repr(sorted(sources.items()))), make)

    def written(self, path: str, data: bytes) -> Manifest:
        """A folder with one file."""

        def make() -> Manifest:
            digest = hashlib.sha256(data).hexdigest()
            if self._keep and not self._blobs.has(digest):
                self._blobs.put(digest, io.BytesIO(data))
            return self._kept(Manifest.of([FileEntry(path, 0o644, len(data), digest)]))

        return self._take(("written", path, data), make)

    def present(self, artifacts: Mapping[str, Artifact]) -> bool:
        """Whether the content of outputs is all here."""
        key = "present", tuple(sorted(one.digest for one in artifacts.values()))
        return self._take(key, lambda: present(self._blobs, artifacts))

    def check(self) -> None:
        """Raises Lacking when something was asked for that is not here."""
        if self._lacking:
            raise Lacking

    def bring(self) -> None:
        """Get what was asked for. Blocking; raises StorageFull and Unreachable. Other errors are those of
        who asked, and raised there."""
        for key, make in self._lacking.items():
            try:
                self._there[key] = make()
            except (StorageFull, Unreachable):
                raise
            except QuarterdeckError as error:
                self._there[key] = error
        self._lacking.clear()

    def _take(self, key: Hashable, make: Callable[[], T]) -> T:
        if key not in self._there:
            self._lacking[key] = make
            raise Lacking
        found = self._there[key]
        if isinstance(found, QuarterdeckError):
            raise found
        return cast("T", found)

    def _manifest(self, digest: str) -> Manifest:
        if digest not in self._manifests:
            self._manifests[digest] = Manifest.from_bytes(self._blobs.read(digest))
        return self._manifests[digest]

    def _kept(self, manifest: Manifest) -> Manifest:
        if self._keep:
            stored(self._blobs, manifest)
        return manifest


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
            except (Damaged, InvalidInput, NotFound):
                return False
            if blobs.missing(manifest.blobs):
                return False
    return True
