"""Blobs: a name that exists is whole, whatever happened while it was written."""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path

import pytest

from agents.controller.stores.blobs import FolderBlobs, hex_of
from jobs.base.errors import InvalidInput, NotFound, StorageFull
from tests.agents.controller.storage import ROOM, small_disk


@pytest.fixture
def store(tmp_path: Path) -> FolderBlobs:
    return FolderBlobs(tmp_path)


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def files(root: Path) -> list[str]:
    return sorted(path.name for path in root.rglob("*") if path.is_file())


def test_what_is_put_is_there(store: FolderBlobs, tmp_path: Path) -> None:
    name = digest(b"hello")
    assert store.missing([name, f"sha256:{name}"]) == [name, f"sha256:{name}"]
    store.put(f"sha256:{name}", io.BytesIO(b"hello"))
    store.put(name, io.BytesIO(b"hello"))  # twice is once
    assert store.read(f"sha256:{name}") == b"hello"
    assert store.missing([name]) == []
    assert files(tmp_path) == [name]


def test_other_content_than_promised_is_not_stored(store: FolderBlobs, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="does not have that digest"):
        store.put(digest(b"hello"), io.BytesIO(b"hellp"))
    assert files(tmp_path) == []


def test_a_crash_before_the_rename_leaves_nothing_visible(
    store: FolderBlobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = digest(b"hello")

    def power_off(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", power_off)
        with pytest.raises(KeyboardInterrupt):
            store.put(name, io.BytesIO(b"hello"))
    assert not store.has(name)
    with pytest.raises(NotFound):
        store.read(name)
    store.put(name, io.BytesIO(b"hello"))
    assert files(tmp_path) == [name]


def test_what_a_killed_process_left_unfinished_is_removed(
    store: FolderBlobs, tmp_path: Path
) -> None:
    store.put(digest(b"whole"), io.BytesIO(b"whole"))
    killed = store.incoming()
    killed.write(b"half")
    assert len(files(tmp_path)) == 2
    assert FolderBlobs(tmp_path).read(digest(b"whole")) == b"whole"
    assert files(tmp_path) == [digest(b"whole")]
    with killed:
        pass  # closes its file


def test_a_full_disk_stores_nothing_and_says_so(tmp_path: Path) -> None:
    with small_disk(tmp_path / "small") as disk:
        store = FolderBlobs(disk)
        large = bytes(2 * ROOM)
        with pytest.raises(StorageFull, match="No space left"):
            store.put(digest(large), io.BytesIO(large))
        assert files(disk) == []
        store.put(digest(b"small"), io.BytesIO(b"small"))


@pytest.mark.parametrize("name", ["", "../../etc/passwd", "sha256:", "A" * 64, "a" * 63, "md5:aa"])
def test_only_digests_are_names(name: str) -> None:
    with pytest.raises(InvalidInput, match="not a sha256 digest"):
        hex_of(name)
