"""Large blobs that come chunk by chunk: cut, doubled, out of order, damaged, without room."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
from pathlib import Path

import pytest

from agents.node.staging import arrivals, room
from agents.node.staging.arrivals import Arrivals
from agents.node.staging.blobcache import BlobCache
from jobs.base.errors import Conflict, InvalidInput, StorageFull

BLOB = random.Random(7).randbytes(1_000_003)
NAME = hashlib.sha256(BLOB).hexdigest()
STEP = 100_000


def chunks() -> list[tuple[int, bytes]]:
    return [(offset, BLOB[offset : offset + STEP]) for offset in range(0, len(BLOB), STEP)]


@pytest.fixture
def cache(tmp_path: Path) -> BlobCache:
    return BlobCache(tmp_path / "blobs")


def is_whole(cache: BlobCache) -> bool:
    path = cache.path(NAME)
    return path.exists() and path.read_bytes() == BLOB and not cache.partial(NAME).exists()


async def test_a_new_agent_goes_on_where_the_old_one_was_killed(cache: BlobCache) -> None:
    first = Arrivals(cache)
    for offset, data in chunks()[:4]:
        assert await first.put(NAME, offset, len(BLOB), data) == offset + len(data)
    assert not cache.path(NAME).exists(), "half a blob has no name"
    second = Arrivals(cache)
    assert await second.put(NAME, 0, len(BLOB), b"") == 4 * STEP
    for offset, data in chunks()[4:]:
        await second.put(NAME, offset, len(BLOB), data)
    assert is_whole(cache)
    assert await second.put(NAME, 0, len(BLOB), b"") == len(BLOB), "it is here"


@pytest.mark.parametrize("seed", range(8))
async def test_two_senders_whose_chunks_come_in_any_order(cache: BlobCache, seed: int) -> None:
    """Two jobs that begin with the same checkpoint, on a network that reorders and doubles."""
    into, order = Arrivals(cache), [*chunks(), *chunks()]
    random.Random(seed).shuffle(order)
    await asyncio.gather(*(into.put(NAME, offset, len(BLOB), data) for offset, data in order))
    assert is_whole(cache)


async def test_other_content_is_dropped_and_may_come_again(cache: BlobCache) -> None:
    into = Arrivals(cache)
    evil = bytearray(BLOB)
    evil[5] ^= 1
    with pytest.raises(InvalidInput, match="other content"):
        await into.put(NAME, 0, len(BLOB), bytes(evil))
    assert not cache.path(NAME).exists()
    assert await into.put(NAME, 0, len(BLOB), b"") == 0
    await into.put(NAME, 0, len(BLOB), BLOB)
    assert is_whole(cache)


async def test_a_chunk_whose_predecessor_never_comes(
    cache: BlobCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrivals, "TURN", 0.05)
    with pytest.raises(Conflict, match="only 0 bytes"):
        await Arrivals(cache).put(NAME, STEP, len(BLOB), b"x")


async def test_nonsense_is_refused(cache: BlobCache) -> None:
    into = Arrivals(cache)
    for name, offset, size, data in [
        ("../../etc/passwd", 0, 3, b"abc"),
        (NAME, -1, 3, b"abc"),
        (NAME, 1, 3, b"abc"),
        (NAME, 0, 2**60, b""),
        (NAME, 0, 2**30, bytes(arrivals.MAX_CHUNK + 1)),
    ]:
        with pytest.raises(InvalidInput):
            await into.put(name, offset, size, data)
    await into.put(NAME, 0, len(BLOB), BLOB[:STEP])
    with pytest.raises(InvalidInput, match="was said to have"):
        await into.put(NAME, STEP, len(BLOB) - 1, b"x")


async def test_no_room_is_said_before_the_first_byte(
    cache: BlobCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "RESERVE", 2**60)
    with pytest.raises(StorageFull, match="a file that is to come takes"):
        await Arrivals(cache).put(NAME, 0, len(BLOB), b"")
    assert not cache.partial(NAME).exists()


async def test_a_disk_that_fills_up_on_the_way_and_has_room_again(
    cache: BlobCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    into, real, calls = Arrivals(cache), os.pwrite, 0

    def full(file: int, data: bytes, offset: int) -> int:
        nonlocal calls
        calls += 1
        if calls == 3:  # a part of the chunk still fits
            return real(file, data[: len(data) // 2], offset)
        if calls in (4, 5):
            raise OSError(28, "No space left on device")
        return real(file, data, offset)

    monkeypatch.setattr(os, "pwrite", full)
    held = await into.put(NAME, 0, len(BLOB), b"")
    failures = 0
    while held < len(BLOB):
        try:
            held = await into.put(NAME, held, len(BLOB), BLOB[held : held + STEP])
        except StorageFull:
            failures += 1
    assert failures == 2
    assert is_whole(cache)


async def test_what_is_half_here_is_tidied_as_the_rest(cache: BlobCache) -> None:
    await Arrivals(cache).put(NAME, 0, len(BLOB), BLOB[:STEP])
    (item,) = cache.items()
    assert item.path == cache.partial(NAME)
