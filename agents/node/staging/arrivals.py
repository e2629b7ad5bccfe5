"""Large blobs on their way into the node's cache, a chunk at a time.

A chunk is a few megabytes, so a file of any size takes no more memory than a small one. What has arrived
stays: a sender that starts again, this one's next try or another job's, goes on where the file ends.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path

from agents.node.staging.blobcache import BlobCache
from agents.node.staging.room import check_room
from jobs.base.errors import Conflict, InvalidInput, StorageFull
from jobs.snapshots.pack import HEX_DIGEST, MAX_BLOB

MAX_CHUNK = 16 << 20
TURN = 20.0
"""Seconds that a chunk waits for the one before it, which was sent at about the same time."""
FLUSH_EVERY = 64 << 20
"""Bytes after which what was written is flushed to the disk: a flush of gigabytes at the end would hold up
every other flush on the node, those of leases among them."""
_READ = 1 << 20


@dataclass(slots=True)
class _Arrival:
    """A blob of which some is here. `held` bytes are in the file, and in the hash."""

    path: Path
    size: int
    held: int
    hash: hashlib._Hash
    flushed: int = 0
    turn: asyncio.Condition = field(default_factory=asyncio.Condition)


class Arrivals:
    """Takes in chunks for a cache. Call it from one event loop."""

    def __init__(self, cache: BlobCache) -> None:
        self._cache = cache
        self._known: dict[str, _Arrival] = {}
        self._opening = asyncio.Lock()

    async def put(self, digest: str, offset: int, size: int, data: bytes) -> int:
        """Add a chunk to a blob; gives how many of its bytes are here, which is where to go on. Not to be
        cancelled midway.

        Args:
            digest: sha256 of the whole blob, in hex.
            offset: where the chunk belongs. One that is here already is dropped; one that does not
                follow waits a while for those before it.
            size: bytes of the whole blob.
            data: the chunk; an empty one only asks.

        Raises InvalidInput when the whole has another digest (it is dropped, and may be sent again),
        Conflict when what comes before the chunk never came, StorageFull.
        """
        _check(digest, offset, size, data)
        arrival = await self._opened(digest, size)
        if arrival is None:
            return size
        end = offset + len(data)
        async with arrival.turn:
            if offset > arrival.held:
                await self._wait_for(arrival, offset, digest)
            if end > arrival.held and self._known.get(digest) is arrival:
                new = data[arrival.held - offset :]
                await asyncio.to_thread(_append, arrival, new)
                arrival.turn.notify_all()
            if arrival.held == size and self._known.get(digest) is arrival:
                try:
                    await asyncio.to_thread(self._keep, digest, arrival)
                except BaseException:
                    arrival.held = 0
                    raise
                finally:
                    del self._known[digest]
        return arrival.held

    async def _wait_for(self, arrival: _Arrival, offset: int, digest: str) -> None:
        try:
            async with asyncio.timeout(TURN):
                await arrival.turn.wait_for(lambda: arrival.held >= offset)
        except TimeoutError:
            raise Conflict(
                f"blob {digest[:12]}: a chunk came at {offset}, but only {arrival.held} bytes are here"
            ) from None

    async def _opened(self, digest: str, size: int) -> _Arrival | None:
        """None when the blob is here."""
        async with self._opening:
            if self._cache.path(digest).exists():
                return None
            arrival = self._known.get(digest)
            if arrival is None:
                path = self._cache.partial(digest)
                arrival = await asyncio.to_thread(_opened, path, size)
                self._known[digest] = arrival
            if arrival.size != size:
                raise InvalidInput(
                    f"blob {digest[:12]} was said to have {arrival.size} bytes, not {size}"
                )
            return arrival

    def _keep(self, digest: str, arrival: _Arrival) -> None:
        """Give a blob that is whole its name."""
        if arrival.hash.hexdigest() != digest:
            arrival.path.unlink(missing_ok=True)
            raise InvalidInput(f"blob {digest[:12]} arrived with other content than its name says")
        target = self._cache.path(digest)
        try:
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _flush(arrival)
            arrival.path.rename(target)
        except OSError as error:
            raise StorageFull(f"the node cannot store a blob: {error.strerror}") from error


def _opened(path: Path, size: int) -> _Arrival:
    """The arrival of a blob, with what an earlier agent took in of it."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        sha256, held = hashlib.sha256(), 0
        with path.open("a+b") as file:
            if file.tell() > size:
                file.truncate(0)
            file.seek(0)
            while data := file.read(_READ):
                sha256.update(data)
                held += len(data)
    except OSError as error:
        raise StorageFull(f"the node cannot store a blob: {error.strerror}") from error
    try:
        check_room(path.parent, size - held, "a file that is to come")
    except StorageFull:
        path.unlink(missing_ok=True)
        raise
    return _Arrival(path, size, held, sha256, flushed=held)


def _append(arrival: _Arrival, data: bytes) -> None:
    view = memoryview(data)
    try:
        file = os.open(arrival.path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            written = 0
            while written < len(view):
                written += os.pwrite(file, view[written:], arrival.held + written)
            if arrival.held + written - arrival.flushed >= FLUSH_EVERY:
                os.fdatasync(file)
                arrival.flushed = arrival.held + written
        finally:
            os.close(file)
    except OSError as error:
        raise StorageFull(f"the node cannot store a blob: {error.strerror}") from error
    arrival.hash.update(data)
    arrival.held += len(data)


def _flush(arrival: _Arrival) -> None:
    file = os.open(arrival.path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _check(digest: str, offset: int, size: int, data: bytes) -> None:
    if not HEX_DIGEST.fullmatch(digest):
        raise InvalidInput("a blob is named by its sha256 digest, in hex")
    if not 0 <= size <= MAX_BLOB or not 0 <= offset <= size - len(data) or len(data) > MAX_CHUNK:
        raise InvalidInput(f"blob {digest[:12]}: {len(data)} bytes at {offset} of {size} cannot be")
