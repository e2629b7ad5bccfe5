"""Packs: blobs as an uncompressed tar stream whose member names are their sha256 digests in hex.

Any `tar` can write or list one. Ours is read header by header instead of with `tarfile.open`, which
would obey extension headers of any size, links and devices; a pack needs none of them. Contents are
verified while they stream, so a blob of any size passes through in constant memory.
"""

from __future__ import annotations

import hashlib
import io
import re
import tarfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from typing_extensions import Buffer

from jobs.base.errors import InvalidInput
from jobs.base.units import format_size, show

HEX_DIGEST = re.compile(r"[0-9a-f]{64}")
MAX_BLOB = 2**40
"""Bytes of one blob: a model file may be large, a typing error is larger."""
MAX_BLOBS = 50_001
"""The files of the largest snapshot, and its manifest."""

_BLOCK = tarfile.BLOCKSIZE  # 512 bytes
_END = bytes(2 * _BLOCK)
_CHUNK = 1 << 20


class Changed(InvalidInput):
    """A file has not the content any more that it had when it was read."""


@dataclass(frozen=True, slots=True)
class Part:
    """The first `size` bytes of a file, which may have grown since."""

    path: Path
    size: int


class Writer(Protocol):
    def write(self, data: bytes, /) -> object: ...


class Reader(Protocol):
    def read(self, size: int, /) -> bytes: ...


def write_pack(fileobj: Writer, items: Iterable[tuple[str, bytes | Path | Part]]) -> None:
    """Write blobs, given as `(hex digest, content or file)`, as one pack.

    Only `fileobj.write` is used, so it may be a socket. Raises Changed when content does not have its
    digest: a file that changed since it was hashed is named, not sent as something else.
    """
    for digest, content in items:
        if isinstance(content, Path):
            content = Part(content, content.stat().st_size)
        if isinstance(content, Part):
            try:
                with content.path.open("rb") as source:
                    _write_member(fileobj, digest, source, content.size, str(content.path))
            except FileNotFoundError:
                raise _changed(str(content.path)) from None
        else:
            _write_member(fileobj, digest, io.BytesIO(content), len(content), digest)
    fileobj.write(_END)


def _write_member(fileobj: Writer, digest: str, source: BinaryIO, size: int, name: str) -> None:
    info = tarfile.TarInfo(digest)
    info.size = size
    fileobj.write(info.tobuf(tarfile.GNU_FORMAT))
    sha256 = hashlib.sha256()
    left = size
    while left and (data := source.read(min(_CHUNK, left))):
        sha256.update(data)
        left -= len(data)
        fileobj.write(data)
    if left or sha256.hexdigest() != digest:
        raise _changed(name)
    fileobj.write(bytes(-size % _BLOCK))


def _changed(name: str) -> Changed:
    return Changed(
        f"{name} changed after it was read", "Submit again when nothing writes to the folder."
    )


def pack_length(sizes: Iterable[int]) -> int:
    """Bytes of a pack with blobs of these sizes (for a Content-Length)."""
    return sum(_BLOCK + size + -size % _BLOCK for size in sizes) + len(_END)


def read_pack_to(
    fileobj: Reader,
    store: Callable[[str, BinaryIO], None],
    *,
    max_blob: int = MAX_BLOB,
    max_blobs: int = MAX_BLOBS,
) -> int:
    """Read a pack and give each blob to `store(hex digest, stream)`; returns how many there were.

    `store` copies the stream to its end. Content that does not have its digest raises InvalidInput out
    of that stream's last `read`, so `store` never sees the whole of a false blob: it should write to a
    temporary file and rename it afterwards. InvalidInput is raised too for a cut-off stream, a member
    that is not a regular file named by a digest, and for more than `max_blobs` or `max_blob` bytes.
    """
    count = 0
    for member in _members(fileobj, max_blob, max_blobs):
        store(member.digest, io.BufferedReader(member, _CHUNK))
        count += 1
    return count


def read_pack(
    pack: Reader | bytes, *, max_blob: int = 256 * 2**20, max_blobs: int = MAX_BLOBS
) -> Iterator[tuple[str, bytes]]:
    """The blobs of a pack as `(hex digest, content)`, one at a time in memory. Raises as
    `read_pack_to`."""
    fileobj = io.BytesIO(pack) if isinstance(pack, bytes) else pack
    for member in _members(fileobj, max_blob, max_blobs):
        yield member.digest, member.readall()


class _Member(io.RawIOBase):
    """The content of one member: ends where it ends, and verifies itself on the way."""

    def __init__(self, fileobj: Reader, digest: str, size: int) -> None:
        self.digest = digest
        self._fileobj = fileobj
        self._left = size
        self._sha256 = hashlib.sha256()
        self._verify_at_end()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Buffer, /) -> int:
        view = memoryview(buffer).cast("B")
        data = self._next(len(view))
        view[: len(data)] = data
        return len(data)

    def drain(self) -> None:
        """Read and verify what nobody read."""
        while self._left:
            self._next(_CHUNK)

    def _next(self, size: int) -> bytes:
        wanted = min(size, self._left)
        data = self._fileobj.read(wanted) if wanted else b""
        if wanted and not data:
            raise InvalidInput(f"the pack ends in the middle of blob {self.digest}")
        self._sha256.update(data)
        self._left -= len(data)
        self._verify_at_end()
        return data

    def _verify_at_end(self) -> None:
        if self._left == 0 and self._sha256.hexdigest() != self.digest:
            raise InvalidInput(f"blob {self.digest} arrived with other content than its name says")


def _members(fileobj: Reader, max_blob: int, max_blobs: int) -> Iterator[_Member]:
    count = 0
    while (info := _next_header(fileobj)) is not None:
        count += 1
        if count > max_blobs:
            raise InvalidInput(f"the pack has more than {max_blobs} blobs")
        if info.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):
            raise InvalidInput(f"pack member {show(info.name)} is not a regular file")
        if not HEX_DIGEST.fullmatch(info.name):
            raise InvalidInput(f"pack member {show(info.name)} is not named by a sha256 digest")
        if not 0 <= info.size <= max_blob:
            raise InvalidInput(f"blob {info.name} is larger than {format_size(max_blob)}")
        member = _Member(fileobj, info.name, info.size)
        yield member
        member.drain()
        _read_exactly(fileobj, -info.size % _BLOCK)


def _next_header(fileobj: Reader) -> tarfile.TarInfo | None:
    """The next member's header, None at the end of the archive."""
    block = _read_exactly(fileobj, _BLOCK)
    if block == bytes(_BLOCK):  # all that follows is padding
        return None
    try:
        return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.TarError:
        raise InvalidInput("this is not a pack: bad tar header") from None


def _read_exactly(fileobj: Reader, size: int) -> bytes:
    """Read `size` bytes from a source that may give fewer at a time."""
    data = b""
    while len(data) < size:
        more = fileobj.read(size - len(data))
        if not more:
            raise InvalidInput("the pack is cut off")
        data += more
    return data
