"""The node's cache of blobs: files named by the sha256 of their content."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import BinaryIO

from agents.node.staging.caches import Item
from jobs.base.disk import storage_full
from jobs.snapshots.manifest import Manifest
from jobs.snapshots.pack import read_pack_to


class BlobCache:
    """Content-addressed files below `root`, as `<hh>/<digest>`. A name that is there is whole."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def path(self, digest: str) -> Path:
        """Where a blob lies or would lie; `digest` in hex."""
        return self._root / digest[:2] / digest

    def partial(self, digest: str) -> Path:
        """Where a blob lies that has not arrived whole (`staging/arrivals.py`)."""
        return self._root / "partial" / digest

    def missing(self, digests: frozenset[str]) -> list[str]:
        """Those that are not here, sorted."""
        return sorted(digest for digest in digests if not self.path(digest).exists())

    def manifest(self, snapshot: str) -> Manifest | None:
        """The manifest of a snapshot ("sha256:..."); None when its blob is not here. Raises
        InvalidInput when that blob is no manifest."""
        path = self.path(snapshot.removeprefix("sha256:"))
        return Manifest.from_bytes(path.read_bytes()) if path.exists() else None

    def items(self) -> list[Item]:
        """See `caches.Cache`."""
        found = []
        for path in (*self._root.glob("??/*"), *self._root.glob("partial/*")):
            with contextlib.suppress(OSError):  # it has just gone
                status = path.stat()
                if status.st_nlink > 1:  # a version of a data set has it, and counts it
                    continue
                # The time of its last reading is kept to the day, or not at all.
                used = max(status.st_atime, status.st_mtime)
                found.append(Item(path, status.st_blocks * 512, used))
        return found

    def remove(self, item: Item, trash: Path) -> None:
        """See `caches.Cache`."""
        item.path.unlink()

    def put_pack(self, pack: BinaryIO) -> int:
        """Store the blobs of a pack, each verified against its name; how many there were.

        Raises InvalidInput for a bad pack (what came before the fault is kept) and StorageFull.
        """
        try:
            return read_pack_to(pack, self._put)
        except OSError as error:
            raise storage_full("the node cannot store a blob", error) from error

    def _put(self, digest: str, content: BinaryIO) -> None:
        path = self.path(digest)
        if path.exists():
            return
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            try:
                shutil.copyfileobj(content, file, 1 << 20)
                file.flush()
                os.fsync(file.fileno())
                Path(file.name).rename(path)
            except BaseException:
                with contextlib.suppress(OSError):  # the first error is the one to tell of
                    Path(file.name).unlink()
                raise
