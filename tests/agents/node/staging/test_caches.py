"""What goes from a node's caches, and what never does."""

from __future__ import annotations

import hashlib
import io
import math
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.node.config import AgentConfig
from agents.node.staging.blobcache import BlobCache
from agents.node.staging.caches import HELD, Bounds, Caretaker, Item, surplus
from agents.node.staging.envcache import EnvCache
from jobs.base.errors import InvalidInput
from jobs.snapshots.pack import write_pack

NOW = 1_000_000.0
DAY = 86_400.0

ITEMS = st.builds(
    lambda name, size, idle: Item(Path(f"{name}"), size, NOW - idle),
    st.integers(0, 10**6),
    st.integers(0, 100),
    st.floats(-DAY, 100 * DAY),
)


@given(st.lists(ITEMS, unique_by=lambda item: item.path), st.integers(0, 500))
def test_what_stays_is_within_bounds_and_newer_than_what_goes(items: list[Item], size: int) -> None:
    bounds = Bounds(size, 30 * DAY)
    gone = surplus(items, bounds, NOW)
    kept = [item for item in items if item not in gone]
    assert all(NOW - item.used >= HELD for item in gone), "what was just used stays"
    free = [item for item in kept if NOW - item.used >= HELD]
    assert all(NOW - item.used <= bounds.age for item in free)
    assert not free or sum(item.size for item in kept) <= size
    assert max((item.used for item in gone), default=-math.inf) <= min(
        (i.used for i in kept), default=NOW
    )


def put(cache: BlobCache, folder: Path, content: bytes, used: float) -> Path:
    digest = hashlib.sha256(content).hexdigest()
    source = folder / "source"
    source.write_bytes(content)
    pack = io.BytesIO()
    write_pack(pack, [(digest, source)])
    pack.seek(0)
    cache.put_pack(pack)
    os.utime(cache.path(digest), (used, used))
    return cache.path(digest)


def env(root: Path, name: str, used: float) -> Path:
    """A ready environment, as the cache leaves one."""
    folder = root / name
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").write_bytes(bytes(100_000))
    (folder / "ready").write_text("100000")
    (root / f"{name}.log").touch()
    os.utime(folder / "ready", (used, used))
    return folder


async def test_caches_are_tidied_around_what_is_in_use(tmp_path: Path) -> None:
    blobs, envs, trash = BlobCache(tmp_path / "blobs"), EnvCache(tmp_path / "envs"), tmp_path / "t"
    trash.mkdir()
    old = put(blobs, tmp_path, b"old", NOW - 40 * DAY)
    new = put(blobs, tmp_path, b"new", NOW - DAY)
    used = env(tmp_path / "envs", "used", NOW - 40 * DAY)
    unused = env(tmp_path / "envs", "unused", NOW - 40 * DAY)
    building = tmp_path / "envs" / "building"
    building.mkdir()
    quiet = False
    caretaker = Caretaker(
        (blobs, envs),
        Bounds(),
        trash,
        quiet=lambda: quiet,
        in_use=lambda: {EnvCache.of(str(used / "bin" / "python"))},
    )
    assert await caretaker.tidy(NOW) == 0, "not while something is staged"
    quiet = True
    assert await caretaker.tidy(NOW) > 100_000
    assert [path.exists() for path in (old, new, used, unused, building)] == [
        False,
        True,
        True,
        False,
        True,
    ]
    assert [path.name for path in trash.glob("*/*")].count("ready") == 1
    assert not (tmp_path / "envs" / "unused.log").exists()


async def test_an_environment_that_is_taken_counts_as_used(tmp_path: Path) -> None:
    envs = EnvCache(tmp_path)
    folder = env(tmp_path, envs.folder("numpy", "/usr/bin/python3").name, 1000.0)
    told: list[str] = []
    assert await envs.ensure("numpy", "/usr/bin/python3", {}, told.append) == folder / "bin/python"
    (item,) = envs.items()
    assert (item.path, item.size, item.used > 1000.0) == (folder, 100_000, True)


def test_bounds_are_settings_of_the_node() -> None:
    environ = {"QD_CACHE_SIZE": "2GiB", "QD_CACHE_AGE": "7d"}
    assert AgentConfig.from_env("c", environ).caches == Bounds(2 << 30, 7 * DAY)
    assert AgentConfig.from_env("c", {"QD_CACHE_SIZE": ""}).caches == Bounds()
    with pytest.raises(InvalidInput, match="QD_CACHE"):
        AgentConfig.from_env("c", {"QD_CACHE_AGE": "old"})
