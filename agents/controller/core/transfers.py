"""Large files between the controller's store and a node, a few megabytes at a time.

However large a file is, a transfer holds `WINDOW` chunks of it in memory. Sending goes on where the node's
copy ends, so a transfer that was cut, or that another job had begun, is never begun anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import logging
import os
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from agents.controller.stores.blobs import BlobStore, hex_of
from jobs.base.errors import InvalidInput, NotAllowed, NotFound, Unreachable
from jobs.base.units import format_size
from jobs.snapshots.pack import write_pack
from jobs.wire.messages import AgentClient

log = logging.getLogger(__name__)

CHUNK = 4 << 20
"""Bytes of a chunk. Smaller ones cost more calls; larger ones, memory at five places on the way."""
WINDOW = 2
"""Chunks of one transfer under way at a time: one is on its way while the other is written."""
SMALL = 1 << 20
"""Smaller blobs travel in packs of up to a chunk: a work folder is thousands of them."""
SIGNED_FOR = 300.0
"""Seconds for which a node may read a blob with a URL. It gets a new one every 15."""
TRIES = 6
"""Tries to get a chunk from a node that does not answer."""
AGAIN = 1.0
"""Seconds more that each try waits for the next: 15 in all."""


async def send_blobs(
    agent: AgentClient,
    stores: Sequence[BlobStore],
    digests: Sequence[str],
    tell: Callable[[str], None],
) -> None:
    """Bring blobs to a node.

    Args:
        stores: where blobs are; the first one that has a blob counts.
        digests: in hex.
        tell: told how far it is, in words such as "1.2 of 3.0 GiB".

    Raises what the agent raises; Unreachable leaves what has arrived there.
    """
    held = await asyncio.to_thread(_held, stores, [hex_of(digest) for digest in digests])
    sizes = {digest: size for digest, (_, size) in held.items()}
    total, done = sum(sizes.values()), 0

    def moved(count: int) -> None:
        nonlocal done
        done += count
        tell(f"{format_size(min(done, total))} of {format_size(total)}")

    batch: list[str] = []
    for digest, size in sizes.items():
        if size >= SMALL:
            if await _fetched(agent, held[digest][0], digest, size, moved):
                continue
            path = await asyncio.to_thread(held[digest][0].local, digest)
            await _send(agent, digest, path, size, moved)
            continue
        if sum(sizes[other] for other in batch) + size > CHUNK:
            await _send_pack(agent, held, batch)
            moved(sum(sizes[other] for other in batch))
            batch = []
        batch.append(digest)
    if batch:
        await _send_pack(agent, held, batch)
        moved(sum(sizes[other] for other in batch))


async def _fetched(
    agent: AgentClient, store: BlobStore, digest: str, size: int, moved: Callable[[int], None]
) -> bool:
    """Let the node read a blob from where it is. False when it cannot, or not any more: what it has by then
    is where sending continues."""
    here = 0
    while here < size:
        try:
            url = await asyncio.to_thread(store.signed, digest, SIGNED_FOR)
            if not url:
                return False
            now = await agent.fetch_blob(digest, size, url)
        except (InvalidInput, NotFound, Unreachable, NotAllowed) as error:
            log.info("the node does not fetch blob %s itself: %s", digest[:12], error.message)
            return False
        if now <= here:
            return False
        moved(now - here)
        here = now
    return True


def _held(stores: Sequence[BlobStore], digests: Sequence[str]) -> dict[str, tuple[BlobStore, int]]:
    """In which store each blob is, and its bytes. Raises NotFound."""
    found = {}
    for digest in digests:
        for store in stores:
            with contextlib.suppress(NotFound):
                found[digest] = store, store.size(digest)
                break
        else:
            raise NotFound(f"there is no blob {digest}", "`qd prune` may have deleted it.")
    return found


async def _send_pack(
    agent: AgentClient, held: Mapping[str, tuple[BlobStore, int]], digests: list[str]
) -> None:
    def packed() -> bytes:
        buffer = io.BytesIO()
        write_pack(buffer, [(digest, held[digest][0].local(digest)) for digest in digests])
        return buffer.getvalue()

    await agent.put_blobs(await asyncio.to_thread(packed))


async def _send(
    agent: AgentClient, digest: str, path: Path, size: int, moved: Callable[[int], None]
) -> None:
    """Send one file from where the node's copy ends."""
    held = await agent.put_chunk(digest, 0, size, b"")
    moved(held)
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    under_way: deque[asyncio.Future[int]] = deque()
    try:
        offset = held
        while held < size:
            while offset < size and len(under_way) < WINDOW:
                data = await asyncio.to_thread(os.pread, file, CHUNK, offset)
                call = agent.put_chunk(digest, offset, size, data)
                under_way.append(asyncio.ensure_future(call))
                offset += len(data)
            now = await under_way.popleft()
            if now > held:
                moved(now - held)
                held = now
            offset = max(offset, held)  # another job sends the same
            if not under_way and held < offset:
                offset = held
    finally:
        await _ended(under_way)
        os.close(file)


async def receive(
    read: Callable[[int, int], Awaitable[bytes]],
) -> AsyncGenerator[bytes, None]:
    """The chunks of a file on a node, read ahead.

    Args:
        read: gives the bytes at (offset, at most so many); fewer only at the end.

    Yields nothing for an empty file. Raises what `read` raises, Unreachable only when the node does not
    answer for long.
    """
    offset = 0
    under_way: deque[asyncio.Task[bytes]] = deque()
    try:
        while True:
            while len(under_way) < WINDOW:
                under_way.append(asyncio.create_task(_patient(read, offset)))
                offset += CHUNK
            data = await under_way.popleft()
            if data:
                yield data
            if len(data) < CHUNK:
                return
    finally:
        await _ended(under_way)


async def _patient(read: Callable[[int, int], Awaitable[bytes]], offset: int) -> bytes:
    """One chunk. A connection that is lost for a moment does not cost what has come so far."""
    for failures in range(1, TRIES):
        with contextlib.suppress(Unreachable):
            return await read(offset, CHUNK)
        await asyncio.sleep(failures * AGAIN)
    return await read(offset, CHUNK)


async def _ended(tasks: Iterable[asyncio.Future[Any]]) -> None:
    """Cancel what is under way; what it comes to is of no interest any more."""
    tasks = list(tasks)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
