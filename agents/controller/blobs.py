"""Large things by content: `blobs/sha256/ab/abcdef...`, written once, never changed.

A blob is written to a temporary name, checked, fsynced and renamed, so a name that exists is whole.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from jobs.errors import InvalidInput, NotFound, StorageFull

_CHUNK = 1 << 20
_INCOMING = ".incoming-"


def hex_of(digest: str) -> str:
    """The hex part of `sha256:...`, or of bare hex.

    Raises:
        InvalidInput: anything else; a digest becomes a path, so nothing else may pass.
    """
    text = digest.removeprefix("sha256:")
    if len(text) != 64 or any(char not in "0123456789abcdef" for char in text):
        raise InvalidInput(f"'{digest[:80]}' is not a sha256 digest", "64 hexadecimal digits.")
    return text


class BlobStore:
    """One process at a time has a store open: what another left unfinished is removed."""

    def __init__(self, root: Path) -> None:
        self._root = root / "sha256"
        self._root.mkdir(parents=True, exist_ok=True)
        for unfinished in self._root.glob(f"{_INCOMING}*"):
            unfinished.unlink(missing_ok=True)

    def path(self, digest: str) -> Path:
        """Where a blob lies, or would lie."""
        text = hex_of(digest)
        return self._root / text[:2] / text

    def has(self, digest: str) -> bool:
        return self.path(digest).exists()

    def missing(self, digests: Iterable[str]) -> list[str]:
        return [digest for digest in digests if not self.has(digest)]

    def read(self, digest: str) -> bytes:
        try:
            return self.path(digest).read_bytes()
        except FileNotFoundError:
            raise NotFound(f"there is no blob {digest}", "Upload it first.") from None

    def put(self, digest: str, source: BinaryIO) -> None:
        """Store what `source` yields under `digest`.

        Raises:
            InvalidInput: the content has another digest; nothing was stored.
            StorageFull: no room; nothing was stored.
        """
        expected = hex_of(digest)
        with self.incoming() as incoming:
            while chunk := source.read(_CHUNK):
                incoming.write(chunk)
            if incoming.digest != expected:
                raise InvalidInput(f"the content of blob {expected[:12]} does not have that digest")
            incoming.commit()

    def incoming(self) -> Incoming:
        """A blob in the making, its digest not known yet. Use it in a `with`."""
        return Incoming(self._root)


class Incoming:
    """Write chunks, then `commit`; without that, leaving the `with` drops them."""

    def __init__(self, root: Path) -> None:
        self._root, self._hasher = root, hashlib.sha256()
        handle, name = tempfile.mkstemp(prefix=_INCOMING, dir=root)
        self._file, self._path = os.fdopen(handle, "wb"), Path(name)

    def __enter__(self) -> Incoming:
        return self

    def __exit__(self, *exc: object) -> None:
        with contextlib.suppress(OSError):  # closing flushes, and the disk may be full
            self._file.close()
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
            os.fsync(self._file.fileno())
            target = self._root / self.digest[:2] / self.digest
            target.parent.mkdir(exist_ok=True)
            self._path.replace(target)
            _sync_folder(target.parent)
        except OSError as error:
            raise _full(error) from error
        return self.digest


def _full(error: OSError) -> StorageFull:
    return StorageFull(
        f"a blob cannot be stored: {error.strerror}", "Free some disk space; nothing was stored."
    )


def _sync_folder(folder: Path) -> None:
    """Make a rename in `folder` durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
