"""Large files between the store and a node: how much is under way, and what a cut costs."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from agents.controller.core import transfers
from agents.controller.core.transfers import receive, send_blobs
from agents.controller.stores.blobs import FolderBlobs
from agents.node.staging.arrivals import Arrivals
from agents.node.staging.blobcache import BlobCache
from jobs.base.errors import NotFound, Unreachable
from jobs.wire.messages import AgentClient
from tests.agents.controller.conftest import Plane

STEP = 10_000
LARGE = random.Random(1).randbytes(20 * STEP + 123)


class Far:
    """A node's end, over a network that counts, and may lose a call before or after it acts."""

    def __init__(self, root: Path) -> None:
        self.cache = BlobCache(root)
        self.arrivals = Arrivals(self.cache)
        self.loses: Callable[[int], str] = lambda call: ""
        self.calls, self.bytes, self.under_way, self.most = 0, 0, 0, 0

    async def put_chunk(self, digest: str, offset: int, size: int, data: bytes) -> int:
        self.calls, self.bytes = self.calls + 1, self.bytes + len(data)
        self.under_way += len(data)
        self.most = max(self.most, self.under_way)
        try:
            loss = self.loses(self.calls)
            await asyncio.sleep(0)
            if loss == "before":
                raise Unreachable("lost before")
            held = await asyncio.shield(self.arrivals.put(digest, offset, size, data))
            if loss == "after":
                raise Unreachable("lost after")
            return held
        finally:
            self.under_way -= len(data)

    async def put_blobs(self, pack: bytes) -> int:
        import io

        self.most = max(self.most, len(pack))
        return self.cache.put_pack(io.BytesIO(pack))


@pytest.fixture
def store(tmp_path: Path) -> FolderBlobs:
    return FolderBlobs(tmp_path / "store")


@pytest.fixture
def far(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Far:
    monkeypatch.setattr(transfers, "CHUNK", STEP)
    monkeypatch.setattr(transfers, "SMALL", 2_000)
    return Far(tmp_path / "far")


def put(store: FolderBlobs, *contents: bytes) -> list[str]:
    names = []
    for content in contents:
        with store.incoming() as incoming:
            incoming.write(content)
            names.append(incoming.commit())
    return names


async def send(far: Far, store: FolderBlobs, names: list[str]) -> list[str]:
    told: list[str] = []
    await send_blobs(cast("AgentClient", far), [store], names, told.append)
    return told


async def test_small_and_large_arrive_and_little_is_in_memory(far: Far, store: FolderBlobs) -> None:
    small = [f"{n}".encode() * 300 for n in range(100)]
    names = put(store, LARGE, *small, b"")
    told = await send(far, store, names)
    for name, content in zip(names, [LARGE, *small, b""], strict=True):
        assert far.cache.path(name).read_bytes() == content
    assert far.most <= transfers.WINDOW * STEP + 10_000, "whatever the size"
    assert told[-1].split(" of ")[0] == told[-1].split(" of ")[1]


@pytest.mark.parametrize("how", ["before", "after"])
async def test_a_transfer_that_is_cut_again_and_again_sends_little_twice(
    far: Far, store: FolderBlobs, how: str
) -> None:
    names = put(store, LARGE)
    far.loses = lambda call: how if call % 5 == 0 else ""
    for _ in range(20):
        with contextlib.suppress(Unreachable):
            await send(far, store, names)
            break
    assert far.cache.path(names[0]).read_bytes() == LARGE
    assert far.bytes <= len(LARGE) * 1.6, "it goes on where it was"


async def test_two_jobs_that_need_the_same_file_share_the_way(far: Far, store: FolderBlobs) -> None:
    names = put(store, LARGE)
    await asyncio.gather(send(far, store, names), send(far, store, names))
    assert far.cache.path(names[0]).read_bytes() == LARGE


@pytest.mark.parametrize("size", [0, 1, STEP - 1, STEP, STEP + 1, 7 * STEP])
async def test_files_of_any_length_are_received_whole(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfers, "CHUNK", STEP)
    content, calls = random.Random(size).randbytes(size), 0

    async def read(offset: int, limit: int) -> bytes:
        nonlocal calls
        calls += 1
        await asyncio.sleep(0)
        return content[offset : offset + limit]

    assert b"".join([chunk async for chunk in receive(read)]) == content
    assert calls <= size // STEP + 3


async def test_a_node_that_is_away_for_a_moment_costs_no_byte(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(transfers, "CHUNK", STEP)
    monkeypatch.setattr(transfers, "AGAIN", 0.0)
    away, asked = 3, 0

    async def read(offset: int, limit: int) -> bytes:
        nonlocal away, asked
        asked += 1
        if offset >= 5 * STEP and away:
            away -= 1
            raise Unreachable("away")
        return LARGE[offset : offset + limit]

    assert b"".join([chunk async for chunk in receive(read)]) == LARGE
    assert not away
    assert asked <= len(LARGE) // STEP + 6


async def test_a_file_that_is_not_there() -> None:
    async def read(offset: int, limit: int) -> bytes:
        raise NotFound("there is no such file")

    with pytest.raises(NotFound):
        async for _ in receive(read):
            pass


async def test_a_large_checkpoint_comes_back_while_another_job_lives_on(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The node's agent gives its chunks slowly: the bystander's lines and lease go on meanwhile, its end
    is told, and the large job has succeeded only when all of it is here."""
    agent, gate = plane.nodes["n1"], asyncio.Event()
    real: Any = agent.read_file

    async def slow(*args: Any) -> bytes:
        await gate.wait()
        data: bytes = await real(*args)
        return data

    monkeypatch.setattr(agent, "read_file", slow)
    large = await plane.submit(
        "head -c 9000000 /dev/zero > $QD_CHECKPOINT_DIR/w; echo done",
        checkpoint={"artifact": True},
        lease=5,
    )
    other = await plane.submit("echo from the bystander", lease=5)
    await plane.wait(other, "SUCCEEDED")
    assert (await plane.get(f"/v1/jobs/{large}"))["state"] == "RUNNING"
    gate.set()
    view = await plane.wait(large, "SUCCEEDED")
    kept = plane.controller.blobs.local(hashlib.sha256(bytes(9_000_000)).hexdigest())
    assert kept.stat().st_size == 9_000_000
    (made,) = view["artifacts"]
    start = {"start": made["digest"]}
    again = await plane.submit("wc -c < $QD_CHECKPOINT_DIR/w", checkpoint=start)
    await plane.wait(again, "SUCCEEDED")
    data, _ = await asyncio.to_thread(plane.client.raw, f"/v1/jobs/{again}/logs/0/raw")
    assert data.strip() == b"9000000"


async def test_what_the_head_has_in_its_cache_is_sent_while_the_storage_is_away(
    tmp_path: Path,
) -> None:
    class Away(FolderBlobs):
        def signed(self, digest: str, seconds: float) -> str:
            raise Unreachable("the storage is away")

    data = random.Random(2).randbytes(transfers.SMALL)
    store, far = Away(tmp_path / "head"), Far(tmp_path / "node")
    with store.incoming() as incoming:
        incoming.write(data)
        digest = incoming.commit()
    await send_blobs(cast("AgentClient", far), [store], [digest], lambda _: None)
    assert far.cache.path(digest).read_bytes() == data
