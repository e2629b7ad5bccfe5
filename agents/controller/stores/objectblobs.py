"""Blobs in S3-compatible object storage, with an index and a bounded cache on this machine.

    write: a file here → its digest → upload, in parts when it is large → index → acknowledged
    read:  the cache, or download → its digest is checked → the cache

So what is acknowledged is in the storage, and what was killed on its way there is in no index: `tidy` finds
it a day later. What is in the cache was checked when it came.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import BinaryIO

from agents.controller.stores import blobs
from agents.controller.stores.blobindex import BlobIndex
from agents.controller.stores.blobs import Stored, hex_of
from agents.controller.stores.objects import Objects
from jobs.base.disk import storage_full
from jobs.base.errors import Conflict, Damaged, NotFound, QuarterdeckError
from jobs.snapshots.pack import HEX_DIGEST

log = logging.getLogger(__name__)

CACHE = 20 << 30
"""Bytes of the cache, unless QD_BLOBS_CACHE says otherwise."""
IN_USE = 600.0
"""Seconds for which a file of the cache stays after somebody was given its path, however full it is."""
_STRIPES = 256


class ObjectBlobs:
    """See `BlobStore`.

    Args:
        root: folder of the index and the cache, for this store alone.
        now: unix time, seconds.
        cache: bytes.

    Raises:
        Conflict: the index is that of another storage.
        Unreachable: there is no index yet, and the storage cannot be listed.
    """

    def __init__(
        self,
        objects: Objects,
        root: Path,
        now: Callable[[], float] = time.time,
        cache: int = CACHE,
    ) -> None:
        self._objects, self._now, self._most = objects, now, cache
        self._cache, self._drafts = root / "cache", root / "incoming"
        self._cache.mkdir(parents=True, exist_ok=True)
        self._drafts.mkdir(exist_ok=True)
        for unfinished in self._drafts.iterdir():
            unfinished.unlink(missing_ok=True)
        self._locks = [threading.Lock() for _ in range(_STRIPES)]
        self._room, self._going = threading.Lock(), threading.Lock()
        self._used: int | None = None  # bytes in the cache, at most; None: not counted yet
        self._index = BlobIndex(root / "index.db")
        if self._index.of not in ("", self.place):
            raise Conflict(
                f"the blobs of this cluster are in {self._index.of}, and QD_BLOBS_URL says {self.place}",
                "Set QD_BLOBS_URL back.",
            )
        if not self._index.of:
            self._index.fill(self.place, self._listed())

    @property
    def place(self) -> str:
        return str(self._objects.place)

    def has(self, digest: str) -> bool:
        return bool(self._index.hold([hex_of(digest)], self._now()))

    def missing(self, digests: Iterable[str]) -> list[str]:
        asked = list(digests)
        found = self._index.hold([hex_of(digest) for digest in asked], self._now())
        return [digest for digest in asked if hex_of(digest) not in found]

    def items(self) -> list[Stored]:
        return self._index.items()

    def size(self, digest: str) -> int:
        found = self._index.size(hex_of(digest))
        if found is None:
            raise NotFound(f"there is no blob {digest}", "Upload it first.")
        return found

    def local(self, digest: str) -> Path:
        text = hex_of(digest)
        path, size = self._cached(text), self.size(digest)
        if self._touched(path, size):
            return path
        with self._lock(text):
            if self._touched(path, size):  # another thread has brought it meanwhile
                return path
            draft = self._draft()
            try:
                draft.unlink()
                if found := self._fetched(text, size, draft):
                    raise Damaged(
                        f"the object {self._key(text)} of {self.place} is damaged: it {found}",
                        "Remove it there and store the file again, or take it from the bucket's versions.",
                    )
                path.parent.mkdir(exist_ok=True)
                draft.replace(path)
            except OSError as error:
                raise storage_full("a blob cannot be brought here", error) from error
            finally:
                draft.unlink(missing_ok=True)
        self._shrink(size)
        return path

    def read(self, digest: str) -> bytes:
        return self.local(digest).read_bytes()

    def check(self, digest: str) -> str:
        text = hex_of(digest)
        size = self._index.size(text)
        if size is None:
            return "is gone"
        draft = self._draft()
        draft.unlink()
        try:
            return self._fetched(text, size, draft)
        except NotFound:
            return "is gone"
        except OSError as error:
            raise storage_full("a blob cannot be brought here to be checked", error) from error
        finally:
            draft.unlink(missing_ok=True)

    def put(self, digest: str, source: BinaryIO) -> None:
        blobs.put(self, digest, source)

    def incoming(self) -> _Incoming:
        return _Incoming(self, self._draft())

    def remove(self, digest: str, before: float) -> bool:
        text = hex_of(digest)
        with self._lock(text):  # or what somebody stores at this moment would be taken away
            if not self._index.drop(text, before):
                return False
            with contextlib.suppress(OSError):
                self._cached(text).unlink(missing_ok=True)
            try:
                self._objects.delete(self._key(text))
            except QuarterdeckError as error:
                log.warning(
                    "%s remains there until the next pass: %s", self._key(text), error.message
                )
        return True

    def tidy(self, before: float) -> int:
        """Objects that are in no index: uploads that nobody acknowledged, deletions that failed."""
        gone = 0
        for one in self._objects.list():
            text = one.key.rpartition("/")[2]
            if one.at >= before or one.key != self._key(text) or not HEX_DIGEST.fullmatch(text):
                continue
            with self._lock(text):
                if self._index.size(text) is None:
                    self._objects.delete(one.key)
                    gone += 1
        return gone

    def signed(self, digest: str, seconds: float) -> str:
        """A URL with which a node may read a blob for so long."""
        return self._objects.sign(self._key(hex_of(digest)), seconds)

    def close(self) -> None:
        self._objects.close()
        self._index.close()

    def _store(self, draft: Path, digest: str) -> None:
        """Upload a file of `incoming`, unless it is there already, and acknowledge it."""
        size = draft.stat().st_size
        with self._lock(digest):
            if not self._index.hold([digest], self._now()):
                self._objects.put(self._key(digest), draft)
                self._index.add(digest, size, self._now())
            path = self._cached(digest)
            with contextlib.suppress(OSError):  # it is stored; that it is here too is a gift
                path.parent.mkdir(exist_ok=True)
                draft.replace(path)
                self._touched(path, size)
        self._shrink(size)

    def _fetched(self, text: str, size: int, draft: Path) -> str:
        """Download into a file; what is wrong with what came. Raises NotFound."""
        found = self._objects.get(self._key(text), size, draft)
        came = draft.stat().st_size
        if came != size:
            return f"has {came} bytes instead of {size}"
        return "" if found == text else f"was changed: its content has the digest {found[:12]}"

    def _listed(self) -> Iterable[Stored]:
        now = self._now()
        for one in self._objects.list():
            text = one.key.rpartition("/")[2]
            if one.key == self._key(text) and HEX_DIGEST.fullmatch(text):
                yield Stored(text, one.size, now)

    @staticmethod
    def _key(text: str) -> str:
        return f"sha256/{text[:2]}/{text}"

    def _cached(self, text: str) -> Path:
        return self._cache / text[:2] / text

    def _touched(self, path: Path, size: int) -> bool:
        """Whether a file is in the cache, whole. If so, it stays for a while.

        Files of the cache are not synced: a machine that lost its power may have kept the name of one, and
        not its content.
        """
        now = self._now()
        with self._going:
            try:
                os.utime(path, (now, now))
                return path.stat().st_size == size
            except OSError:
                return False

    def _dropped(self, path: Path, until: float) -> bool:
        """Remove a file of the cache, unless somebody was given its path since."""
        with self._going:
            try:
                if path.stat().st_mtime > until:
                    return False
                path.unlink()
            except OSError:
                return False
        return True

    def _draft(self) -> Path:
        try:
            handle, name = tempfile.mkstemp(dir=self._drafts)
        except OSError as error:
            raise storage_full("a blob cannot be stored", error) from error
        os.close(handle)
        return Path(name)

    def _lock(self, text: str) -> threading.Lock:
        return self._locks[int(text[:2], 16)]

    def _shrink(self, added: int) -> None:
        """Remove from the cache what was used longest ago, when it is too large."""
        with self._room:
            if self._used is not None:
                self._used += added
                if self._used <= self._most:
                    return
            found = []
            for file in self._cache.glob("??/*"):
                with contextlib.suppress(OSError):
                    status = file.stat()
                    found.append((status.st_mtime, status.st_size, file))
            total, until = sum(size for _, size, _ in found), self._now() - IN_USE
            for at, size, file in sorted(found):
                if total <= self._most or at > until:
                    break
                if self._dropped(file, until):
                    total -= size
            # What could not go yet is looked for again only when there is a tenth more.
            self._used = min(total, self._most - self._most // 10)


class _Incoming:
    """See `Writing`."""

    def __init__(self, store: ObjectBlobs, draft: Path) -> None:
        self._store, self._draft = store, draft
        self._hasher = hashlib.sha256()
        self._file = draft.open("wb")

    def __enter__(self) -> _Incoming:
        return self

    def __exit__(self, *exc: object) -> None:
        with contextlib.suppress(OSError):
            self._file.close()
        with contextlib.suppress(OSError):
            self._draft.unlink(missing_ok=True)

    @property
    def digest(self) -> str:
        return self._hasher.hexdigest()

    def write(self, chunk: bytes) -> None:
        self._hasher.update(chunk)
        try:
            self._file.write(chunk)
        except OSError as error:
            raise storage_full("a blob cannot be stored", error) from error

    def commit(self) -> str:
        try:
            self._file.close()
        except OSError as error:
            raise storage_full("a blob cannot be stored", error) from error
        self._store._store(self._draft, self.digest)
        return self.digest
