"""Versions of data sets on a node: one read-only folder each, shared by all jobs that name it.

The files are hard links to the cache of blobs, so a version takes its space once. That makes a write
through one of them a write into the cache: files are read-only, and their time is set to `_SEALED`, so that
a write that happened all the same is noticed and the content brought anew.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import tempfile
from pathlib import Path

from agents.node.staging.blobcache import BlobCache
from agents.node.staging.caches import Item
from jobs.base.disk import storage_full
from jobs.snapshots.manifest import FileEntry, Manifest
from jobs.wire.dataviews import DataPin

_SEALED = 1.0
"""Time of the last change of every file, unix time."""


class DataCache:
    """Folders below `root`, named by the hex digest of their manifest. One that is there is whole."""

    def __init__(self, root: Path, blobs: BlobCache) -> None:
        self._root, self._blobs = root, blobs

    def path(self, pin: DataPin) -> Path:
        """What a job finds: the folder, or the one file that the version was added from."""
        folder = self.folder(pin)
        return folder if pin["file"] is None else folder / pin["file"]

    def folder(self, pin: DataPin) -> Path:
        """Where a version lies, or would lie."""
        return self._root / pin["manifest"].removeprefix("sha256:")

    def missing(self, pin: DataPin) -> list[str]:
        """Hex digests that have to be brought before `ensure`. The blobs of files that were written to
        since they were laid out are read again, and dropped where they have changed. Blocking."""
        digest = pin["manifest"].removeprefix("sha256:")
        manifest = self._blobs.manifest(digest)
        if manifest is None:
            return [digest]
        folder = self._root / digest
        if not folder.exists():
            return self._blobs.missing(manifest.blobs)
        os.utime(folder)
        harmed = {e.sha256 for e in manifest.files if not _intact(folder, e) and e.sha256}
        for wanted in harmed:
            blob = self._blobs.path(wanted)
            if blob.exists() and _digest(blob) != wanted:
                blob.unlink()
        return self._blobs.missing(frozenset(harmed))

    def ensure(self, pin: DataPin) -> None:
        """Make the version's folder, or mend it; all its blobs are here. Made beside, then renamed; a file
        that was written to is replaced in its place, for other jobs may have the folder open. Blocking.

        Raises StorageFull.
        """
        digest = pin["manifest"].removeprefix("sha256:")
        folder = self._root / digest
        manifest = self._blobs.manifest(digest)
        if manifest is None:
            return
        try:
            if folder.exists():
                self._mend(folder, manifest)
                return
            self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
            beside = Path(tempfile.mkdtemp(prefix=".", dir=self._root))
            try:
                self._fill(beside, manifest)
                beside.rename(folder)
            finally:
                _remove(beside)
        except OSError as error:
            if not folder.exists():  # else another staging was first
                raise storage_full(f"cannot make {folder}", error) from error

    def _fill(self, beside: Path, manifest: Manifest) -> None:
        folders = {beside}
        for entry in sorted(manifest.files, key=lambda entry: entry.link is not None):
            path = beside / entry.path
            if path.parent not in folders:
                path.parent.mkdir(parents=True, exist_ok=True)
                folders.update(above for above in path.parents if above.is_relative_to(beside))
            if entry.link is not None:
                path.symlink_to(entry.link)
                continue
            self._lay(entry, path)
        for made in folders - {beside}:
            made.chmod(0o555)
        beside.chmod(0o755)  # the owner renames and removes it; its files and folders are sealed

    def _mend(self, folder: Path, manifest: Manifest) -> None:
        for entry in manifest.files:
            if _intact(folder, entry):
                continue
            path = folder / entry.path
            path.parent.chmod(0o755)
            fresh = path.with_name(f".{path.name[:200]}.fresh")
            fresh.unlink(missing_ok=True)
            if entry.link is not None:
                fresh.symlink_to(entry.link)
            else:
                self._lay(entry, fresh)
            fresh.replace(path)
            if path.parent != folder:
                path.parent.chmod(0o555)

    def _lay(self, entry: FileEntry, path: Path) -> None:
        """A file of a version, sealed: the blob itself, or a copy where it has all the names that the file
        system allows (65,000 on ext4, which a set of empty labels reaches)."""
        blob = self._blobs.path(entry.sha256)
        try:
            path.hardlink_to(blob)
        except OSError as error:
            if error.errno != errno.EMLINK:
                raise
            shutil.copyfile(blob, path)
        path.chmod(0o444)
        os.utime(path, (_SEALED, _SEALED))

    def items(self) -> list[Item]:
        """See `caches.Cache`."""
        found = []
        with contextlib.suppress(FileNotFoundError):
            for folder in self._root.iterdir():
                with contextlib.suppress(OSError):  # it has just gone
                    used = folder.stat().st_mtime
                    found.append(Item(folder, _blocks(folder), used))
        return found

    def remove(self, item: Item, trash: Path) -> None:
        """See `caches.Cache`."""
        _unseal(item.path)
        item.path.rename(Path(tempfile.mkdtemp(dir=trash)) / item.path.name)


def _intact(folder: Path, entry: FileEntry) -> bool:
    """Whether a file of a version is as it was made."""
    path = folder / entry.path
    try:
        if entry.link is not None:
            return str(path.readlink()) == entry.link
        status = path.lstat()
    except OSError:
        return False
    return status.st_size == entry.size and status.st_mtime == _SEALED


def _blocks(folder: Path) -> int:
    total = 0
    for base, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += Path(base, name).lstat().st_blocks * 512
    return total


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _unseal(folder: Path) -> None:
    """Let its owner remove what is in a folder: all but root need that of every folder in it."""
    for base, names, _ in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                Path(base, name).chmod(0o700)


def _remove(folder: Path) -> None:
    _unseal(folder)
    shutil.rmtree(folder, ignore_errors=True)
