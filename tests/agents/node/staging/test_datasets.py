"""Versions of data sets on a node: shared, read-only, and never believed after somebody wrote to one."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import pytest

from agents.node.staging.blobcache import BlobCache
from agents.node.staging.datasets import DataCache
from jobs.snapshots.manifest import FileEntry, Manifest
from jobs.wire.dataviews import DataPin

CONTENT = {"train/a.bin": b"a" * 1000, "train/b.bin": b"b", "copy.bin": b"a" * 1000}


def _put(blobs: BlobCache, data: bytes) -> str:
    digest = hashlib.sha256(data).hexdigest()
    path = blobs.path(digest)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return digest


@pytest.fixture
def blobs(tmp_path: Path) -> BlobCache:
    return BlobCache(tmp_path / "blobs")


@pytest.fixture
def cache(tmp_path: Path, blobs: BlobCache) -> DataCache:
    return DataCache(tmp_path / "data", blobs)


@pytest.fixture
def pin(blobs: BlobCache) -> DataPin:
    entries = [
        FileEntry(path, 0o644, len(data), hashlib.sha256(data).hexdigest())
        for path, data in CONTENT.items()
    ]
    manifest = Manifest.of(entries)
    _put(blobs, manifest.to_bytes())
    return DataPin(version="d@1", manifest=manifest.digest, file=None)


def _bring(cache: DataCache, blobs: BlobCache, pin: DataPin) -> list[str]:
    missing = cache.missing(pin)
    for data in CONTENT.values():
        if hashlib.sha256(data).hexdigest() in missing:
            _put(blobs, data)
    assert cache.missing(pin) == []
    cache.ensure(pin)
    return missing


def test_a_version_is_laid_out_once(cache: DataCache, blobs: BlobCache, pin: DataPin) -> None:
    unknown = DataPin(version="d@2", manifest="sha256:" + "0" * 64, file=None)
    assert cache.missing(unknown) == ["0" * 64]
    assert len(_bring(cache, blobs, pin)) == 2  # equal files are one blob
    folder = cache.path(pin)
    found = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
    assert {name: path.read_bytes() for name, path in found.items()} == CONTENT
    assert all(path.stat().st_mode & 0o222 == 0 for path in found.values())
    assert (folder / "train").stat().st_mode & 0o222 == 0
    assert cache.missing(pin) == []
    inode = found["train/a.bin"].stat().st_ino
    cache.ensure(pin)
    assert found["train/a.bin"].stat().st_ino == inode


@pytest.mark.parametrize("harm", ["written", "removed", "grown"])
def test_what_a_job_wrote_to_is_brought_anew(
    cache: DataCache, blobs: BlobCache, pin: DataPin, harm: str
) -> None:
    """A write through a link is a write into the cache of blobs, for everybody: here by root."""
    _bring(cache, blobs, pin)
    victim = cache.path(pin) / "train/a.bin"
    if harm == "removed":
        victim.parent.chmod(0o755)
        victim.unlink()
    else:
        victim.chmod(0o644)
        victim.write_bytes(b"x" * (1000 if harm == "written" else 1001))
    digest = hashlib.sha256(CONTENT["train/a.bin"]).hexdigest()
    other = cache.path(pin) / "train/b.bin"
    held = other.open("rb")  # another job goes on in the same folder meanwhile
    assert cache.missing(pin) == ([] if harm == "removed" else [digest])
    _bring(cache, blobs, pin)
    assert victim.read_bytes() == CONTENT["train/a.bin"]
    assert held.read() == b"b" and other.samefile(f"/proc/self/fd/{held.fileno()}")
    held.close()
    assert victim.parent.stat().st_mode & 0o222 == 0
    assert not list(cache.path(pin).rglob(".*"))
    cache.ensure(pin)


def test_its_space_is_counted_once(
    cache: DataCache, blobs: BlobCache, pin: DataPin, tmp_path: Path
) -> None:
    _bring(cache, blobs, pin)
    (item,) = cache.items()
    (manifest,) = blobs.items()
    assert manifest.path == blobs.path(pin["manifest"].removeprefix("sha256:"))
    trash = tmp_path / "trash"
    trash.mkdir()
    cache.remove(item, trash)
    assert cache.items() == []
    (holder,) = trash.iterdir()
    (folder,) = holder.iterdir()
    assert (folder / "train").stat().st_mode & 0o200  # so that others than root can empty the trash


def test_the_one_file_of_a_version(cache: DataCache, blobs: BlobCache) -> None:
    digest = _put(blobs, b"rows")
    manifest = Manifest.of([FileEntry("t.csv", 0o644, 4, digest)])
    _put(blobs, manifest.to_bytes())
    pin = DataPin(version="t@1", manifest=manifest.digest, file="t.csv")
    assert cache.missing(pin) == []
    cache.ensure(pin)
    assert cache.path(pin).read_bytes() == b"rows"


def test_more_equal_files_than_a_blob_can_have_names(
    cache: DataCache, blobs: BlobCache, pin: DataPin, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, names = Path.hardlink_to, 0

    def link(self: Path, target: Path) -> None:
        nonlocal names
        names += 1
        if names > 1:
            raise OSError(errno.EMLINK, os.strerror(errno.EMLINK))
        real(self, target)

    monkeypatch.setattr(Path, "hardlink_to", link)
    _bring(cache, blobs, pin)
    assert (cache.path(pin) / "train/a.bin").read_bytes() == CONTENT["train/a.bin"]
    assert cache.missing(pin) == []
