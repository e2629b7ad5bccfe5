"""Sending the work folder: only the blobs that the control plane does not hold yet."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from console.cli.format import size
from console.cli.output import narrate
from console.cli.patience import Patience
from console.client import Client, Cut
from jobs.snapshots.pack import Changed, Part, write_pack

if TYPE_CHECKING:
    from console.workdir.scan import Scan

Content = bytes | Path | Part
"""What a blob holds, or the file that does."""

_CHUNK = 1 << 18
_WORTH_TELLING = 4 << 20
"""Bytes from which an upload takes long enough for a person to wonder."""

_PACK = 1 << 30
"""Bytes sent in one request, unless one file is larger: the far side spools a pack before it stores it."""
_FILES = 20_000
"""Blobs of one request."""
_ASKED = 20_000
"""Digests that are asked about at a time."""
_LOOKS = 3
"""Times that a folder which changes is looked at."""
_TIMEOUT = 120.0
"""Seconds of silence allowed: the far side fsyncs what it got before it answers."""


def scanned(folder: Path, include: Sequence[str]) -> Scan:
    """A work folder, and warnings about it on stderr. Raises InvalidInput."""
    from console.workdir.scan import scan

    found = scan(folder, include=include)
    for warning in found.warnings:
        narrate(f"warning: {warning}")
    return found


def send_folder(
    client: Client, found: Scan, folder: Path, include: Sequence[str]
) -> dict[str, Any]:
    """Make sure that the control plane holds a scanned folder; gives what a request says of it. A folder in
    which something changed meanwhile is scanned again. Raises InvalidInput when it does not come to rest."""
    from console.workdir.scan import scan

    for _ in range(_LOOKS - 1):
        try:
            return {"snapshot": send_snapshot(client, found), "git": found.git}
        except Changed:
            found = scan(folder, include=include)
    return {"snapshot": send_snapshot(client, found), "git": found.git}


def send_snapshot(client: Client, scan: Scan) -> str:
    """Make sure that the control plane holds a scanned folder, and return the snapshot's digest. Raises
    Changed."""
    manifest = scan.manifest
    sizes = {entry.sha256: entry.size for entry in manifest.files}
    send_blobs(
        client,
        {
            **{digest: Part(scan.sources[digest], sizes[digest]) for digest in manifest.blobs},
            manifest.digest.removeprefix("sha256:"): manifest.to_bytes(),
        },
    )
    return manifest.digest


def send_blobs(
    client: Client,
    contents: Mapping[str, Content],
    *,
    pack: int = _PACK,
    told: Callable[[int, int], None] | None = None,
) -> int:
    """Make sure that the control plane holds these blobs, given by their hex digests.

    A connection that breaks is not the end: blobs are named by their content, so what arrived
    before is not sent again.

    Args:
        pack: bytes sent in one request, which is what a cut costs; a larger file travels alone.
        told: told how many bytes are there, of how many that were missing; by default a person at a
            terminal is.

    Returns:
        Bytes that were missing.
    """
    patience = Patience(client, limit=20.0)
    total: int | None = None
    while True:
        try:
            missing = _missing(client, contents)
            left = sum(map(_size, missing.values()))
            total = left if total is None else total
            for blobs in _packs(missing, pack):
                size_ = sum(map(_size, blobs.values()))
                chunks = packed(blobs.items())
                if told is None:
                    chunks = _told(chunks, size_)
                client.with_timeout(_TIMEOUT).upload("/v1/blobs", chunks, "application/x-tar")
                patience.worked()
                left -= size_
                if told is not None:
                    told(total - left, total)
            return total
        except Cut as error:
            patience.failed(error)


def _missing(client: Client, contents: Mapping[str, Content]) -> dict[str, Content]:
    digests, found = sorted(contents), []
    for first in range(0, len(digests), _ASKED):
        some = digests[first : first + _ASKED]
        found += client.act("/v1/blobs/missing", {"digests": some})["missing"]
    return {digest: contents[digest] for digest in found}


def _packs(contents: Mapping[str, Content], most: int) -> Iterator[dict[str, Content]]:
    """The same in packs of at most so many bytes, as far as single blobs allow it."""
    pack: dict[str, Content] = {}
    total = 0
    for digest, content in contents.items():
        if pack and (total + _size(content) > most or len(pack) >= _FILES):
            yield pack
            pack, total = {}, 0
        pack[digest] = content
        total += _size(content)
    if pack:
        yield pack


def _size(content: Content) -> int:
    if isinstance(content, Part):
        return content.size
    return len(content) if isinstance(content, bytes) else content.stat().st_size


def packed(items: Iterable[tuple[str, Content]]) -> Iterator[bytes]:
    """The pack of these blobs, in pieces as they are made.

    `write_pack` pushes and an upload pulls: a thread writes into a pipe that this reads, so a
    folder of any size passes through in constant memory. Raises what `write_pack` raises.
    """
    source, sink = os.pipe()
    errors: list[Exception] = []

    def write() -> None:
        try:
            with open(sink, "wb", buffering=_CHUNK) as file:  # noqa: PTH123 - a descriptor
                write_pack(file, items)
        except Exception as error:  # the reader raises it again, in its own thread
            errors.append(error)

    writer = threading.Thread(target=write, name="pack", daemon=True)
    writer.start()
    try:
        while data := os.read(source, _CHUNK):
            yield data
        writer.join()
        if errors:
            raise errors[0]
    finally:
        os.close(source)  # a writer that is not done fails on the broken pipe, and ends
        writer.join()


def _told(chunks: Iterator[bytes], total: int) -> Iterator[bytes]:
    """The same chunks, with a line on a person's stderr that says how far a large upload is."""
    if total < _WORTH_TELLING or not sys.stderr.isatty():
        yield from chunks
        return
    sent = 0
    for chunk in chunks:
        sent += len(chunk)
        share = min(100, sent * 100 // total)
        print(f"\rsending: {size(total)}, {share}%\x1b[K", end="", file=sys.stderr, flush=True)
        yield chunk
    print(file=sys.stderr)
