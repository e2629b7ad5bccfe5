"""Large things by content, written once, never changed: in a folder here, or in object storage
(`agents/controller/stores/objectblobs.py`).

In a folder they are files `sha256/ab/abcdef...`. A blob is written to a temporary name, checked, fsynced and
renamed, so a name that exists is whole.

Its file's time says when somebody last counted on it: stored it, or was told that it is here. Whoever
was told so may refer to it in a moment, so `remove` takes only what has been left alone for long
(`agents/controller/stores/pruning.py`), and asks and takes in one step.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Protocol

from jobs.base.disk import storage_full
from jobs.base.errors import InvalidInput, NotFound, StorageFull
from jobs.snapshots.pack import HEX_DIGEST

_CHUNK = 1 << 20
_INCOMING = ".incoming-"
REFRESH = 600.0
"""Seconds after which a blob's time is set anew when somebody is told that it is here."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A blob that lies in the store: hex digest, bytes on disk, and when it was last counted on."""

    digest: str
    size: int
    held_at: float


def hex_of(digest: str) -> str:
    """The hex part of `sha256:...`, or of bare hex.

    Raises:
        InvalidInput: anything else; a digest becomes a path, so nothing else may pass.
    """
    text = digest.removeprefix("sha256:")
    if not HEX_DIGEST.fullmatch(text):
        raise InvalidInput(
            f"'{digest[:80]}' is not a sha256 digest", "It has 64 hexadecimal digits."
        )
    return text


class Writing(Protocol):
    """A blob in the making: write chunks, then `commit`; without that, leaving the `with` drops them."""

    def __enter__(self) -> Writing: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    @property
    def digest(self) -> str:
        """Hex sha256 of what was written so far."""
        ...

    def write(self, chunk: bytes) -> None:
        """Raises StorageFull when there is no room."""
        ...

    def commit(self) -> str:
        """Make it durable under its digest, which is returned in hex. Raises StorageFull, Unreachable."""
        ...


class BlobStore(Protocol):
    """Where blobs are. One process at a time has a store open. All of it blocks, and may be called on any
    thread; where they are elsewhere, whatever reads or writes raises Unreachable."""

    @property
    def place(self) -> str:
        """Where they are, for people: a folder, or a URL."""
        ...

    def has(self, digest: str) -> bool:
        """Whether it is here. If so, it stays for a while though nothing refers to it yet."""
        ...

    def missing(self, digests: Iterable[str]) -> list[str]:
        """Those that are not here; the others stay for a while, as with `has`."""
        ...

    def items(self) -> list[Stored]:
        """All blobs."""
        ...

    def size(self, digest: str) -> int:
        """Bytes of a blob. Raises NotFound."""
        ...

    def local(self, digest: str) -> Path:
        """A file on this machine with its content, to be opened soon and only read. Raises NotFound, and
        Damaged where it was brought here and is not what it was."""
        ...

    def read(self, digest: str) -> bytes:
        """Raises as `local`."""
        ...

    def check(self, digest: str) -> str:
        """Read a blob where it lies; what is wrong with it, empty when it is whole."""
        ...

    def put(self, digest: str, source: BinaryIO) -> None:
        """Store what `source` yields under `digest`.

        Raises:
            InvalidInput: the content has another digest; nothing was stored.
            StorageFull: no room; nothing was stored.
        """
        ...

    def incoming(self) -> Writing:
        """A blob in the making, its digest not known yet. Use it in a `with`."""
        ...

    def remove(self, digest: str, before: float) -> bool:
        """Delete a blob, unless somebody has counted on it since `before` (unix time).

        Raises:
            OSError: it cannot be removed.
        """
        ...

    def signed(self, digest: str, seconds: float) -> str:
        """A URL with which a node may read a blob for so long; empty where only this machine can."""
        ...

    def tidy(self, before: float) -> int:
        """Delete what was left there since before `before` (unix time) and is no blob; how much."""
        ...

    def close(self) -> None: ...


def put(store: BlobStore, digest: str, source: BinaryIO) -> None:
    """Store what `source` yields, as `BlobStore.put`."""
    expected = hex_of(digest)
    with store.incoming() as incoming:
        while chunk := source.read(_CHUNK):
            incoming.write(chunk)
        if incoming.digest != expected:
            raise InvalidInput(f"the content of blob {expected[:12]} does not have that digest")
        incoming.commit()


def problem(file: Path, digest: str) -> str:
    """What is wrong with a file that should have this content; empty when it is whole."""
    sha256 = hashlib.sha256()
    try:
        with file.open("rb") as content:
            while chunk := content.read(_CHUNK):
                sha256.update(chunk)
    except FileNotFoundError:
        return "is gone"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    found = sha256.hexdigest()
    return (
        "" if found == hex_of(digest) else f"was changed: its content has the digest {found[:12]}"
    )


class FolderBlobs:
    """Blobs as files. What another process has left unfinished is removed.

    Args:
        now: unix time, seconds.
    """

    def __init__(self, root: Path, now: Callable[[], float] = time.time) -> None:
        self._root, self._now = root / "sha256", now
        self._lock = threading.Lock()  # between a blob's time and its name
        self._root.mkdir(parents=True, exist_ok=True)
        for unfinished in self._root.glob(f"{_INCOMING}*"):
            unfinished.unlink(missing_ok=True)

    @property
    def place(self) -> str:
        return str(self._root)

    def path(self, digest: str) -> Path:
        """Where a blob lies, or would lie."""
        text = hex_of(digest)
        return self._root / text[:2] / text

    def has(self, digest: str) -> bool:
        """Whether it is here. If so, it stays for a while though nothing refers to it yet."""
        path, now = self.path(digest), self._now()
        with self._lock:
            try:
                if abs(now - path.stat().st_mtime) > REFRESH:
                    os.utime(path, (now, now))
            except FileNotFoundError:
                return False
            except OSError as error:
                raise _full(error) from error
        return True

    def missing(self, digests: Iterable[str]) -> list[str]:
        """Those that are not here; the others stay for a while, as with `has`."""
        return [digest for digest in digests if not self.has(digest)]

    def items(self) -> list[Stored]:
        """All blobs; what else somebody has put there is none of ours."""
        found = []
        with os.scandir(self._root) as folders:
            for folder in folders:
                if not folder.is_dir(follow_symlinks=False):
                    continue
                with os.scandir(folder) as files:
                    for file in files:
                        if not HEX_DIGEST.fullmatch(file.name):
                            continue
                        with contextlib.suppress(FileNotFoundError):  # it has just gone
                            status = file.stat(follow_symlinks=False)
                            size = status.st_blocks * 512
                            found.append(Stored(file.name, size, status.st_mtime))
        return found

    def remove(self, digest: str, before: float) -> bool:
        """Delete a blob, unless somebody has counted on it since `before` (unix time).

        Raises:
            OSError: it cannot be removed.
        """
        path = self.path(digest)
        with self._lock:
            try:
                if path.stat().st_mtime >= before:
                    return False
                path.unlink()
            except FileNotFoundError:
                return False
        return True

    def size(self, digest: str) -> int:
        return self.local(digest).stat().st_size

    def local(self, digest: str) -> Path:
        path = self.path(digest)
        if not path.is_file():
            raise NotFound(f"there is no blob {digest}", "Upload it first.")
        return path

    def read(self, digest: str) -> bytes:
        try:
            return self.path(digest).read_bytes()
        except FileNotFoundError:
            raise NotFound(f"there is no blob {digest}", "Upload it first.") from None

    def check(self, digest: str) -> str:
        return problem(self.path(digest), digest)

    def put(self, digest: str, source: BinaryIO) -> None:
        put(self, digest, source)

    def signed(self, digest: str, seconds: float) -> str:
        return ""

    def tidy(self, before: float) -> int:
        return 0  # what is unfinished goes when the store is opened

    def close(self) -> None:
        pass

    def incoming(self) -> Incoming:
        """A blob in the making, its digest not known yet. Use it in a `with`."""
        return Incoming(self._root, self._lock, self._now)


class Incoming:
    """Write chunks, then `commit`; without that, leaving the `with` drops them."""

    def __init__(self, root: Path, lock: threading.Lock, now: Callable[[], float]) -> None:
        self._root, self._lock, self._now = root, lock, now
        self._hasher = hashlib.sha256()
        try:
            handle, name = tempfile.mkstemp(prefix=_INCOMING, dir=root)
        except OSError as error:
            raise _full(error) from error
        self._file, self._path = os.fdopen(handle, "wb"), Path(name)

    def __enter__(self) -> Incoming:
        return self

    def __exit__(self, *exc: object) -> None:
        with contextlib.suppress(OSError):  # closing flushes, and the disk may be full
            self._file.close()
        with contextlib.suppress(OSError):  # what stays goes when the store is opened again
            self._path.unlink(missing_ok=True)

    @property
    def digest(self) -> str:
        """Hex sha256 of what was written so far."""
        return self._hasher.hexdigest()

    def write(self, chunk: bytes) -> None:
        """Raises StorageFull when there is no room."""
        self._hasher.update(chunk)
        try:
            self._file.write(chunk)
        except OSError as error:
            raise _full(error) from error

    def commit(self) -> str:
        """Make it durable under its digest, which is returned in hex."""
        try:
            self._file.flush()
            now = self._now()
            os.utime(self._file.fileno(), (now, now))
            os.fsync(self._file.fileno())
            target = self._root / self.digest[:2] / self.digest
            target.parent.mkdir(exist_ok=True)
            with self._lock:  # else what `remove` has just found to be old could be this one
                self._path.replace(target)
            _sync_folder(target.parent)
        except OSError as error:
            raise _full(error) from error
        return self.digest


def _full(error: OSError) -> StorageFull:
    hint = "Free some disk space; nothing was stored."
    return storage_full("a blob cannot be stored", error, hint)


def _sync_folder(folder: Path) -> None:
    """Make a rename in `folder` durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
