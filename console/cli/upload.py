"""Sending the work folder: only the blobs that the control plane does not hold yet."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from console.cli.format import size
from console.cli.patience import Patience
from console.client import Client, Cut

if TYPE_CHECKING:
    from jobs.workdir import Scan

_CHUNK = 1 << 18
_WORTH_TELLING = 4 << 20
"""Bytes from which an upload takes long enough for a person to wonder."""

_TIMEOUT = 120.0
"""Seconds of silence allowed: the far side fsyncs what it got before it answers."""


def send_snapshot(client: Client, scan: Scan) -> str:
    """Make sure that the control plane holds a scanned folder, and return the snapshot's digest.

    A connection that breaks is not the end: blobs are named by their content, so what arrived
    before is not sent again.
    """
    manifest = scan.manifest
    contents: dict[str, bytes | Path] = {
        **{digest: scan.sources[digest] for digest in manifest.blobs},
        manifest.digest.removeprefix("sha256:"): manifest.to_bytes(),
    }
    patience = Patience(client, limit=20.0)
    while True:
        try:
            answer = client.act("/v1/blobs/missing", {"digests": sorted(contents)})
            missing = {digest: contents[digest] for digest in answer["missing"]}
            if missing:
                pack = _told(packed(missing.items()), sum(map(_size, missing.values())))
                client.with_timeout(_TIMEOUT).upload("/v1/blobs", pack, "application/x-tar")
            patience.worked()
            return manifest.digest
        except Cut as error:
            patience.failed(error)


def _size(content: bytes | Path) -> int:
    return len(content) if isinstance(content, bytes) else content.stat().st_size


def packed(items: Iterable[tuple[str, bytes | Path]]) -> Iterator[bytes]:
    """The pack of these blobs, in pieces as they are made.

    `write_pack` pushes and an upload pulls: a thread writes into a pipe that this reads, so a
    folder of any size passes through in constant memory. Raises what `write_pack` raises.
    """
    from jobs.pack import write_pack

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
        print(f"\rsending code: {size(total)}, {share}%\x1b[K", end="", file=sys.stderr, flush=True)
        yield chunk
    print(file=sys.stderr)
