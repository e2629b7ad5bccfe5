"""Reading a data set from a disk: what is read, what is known, what is refused."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from console.datasets.scan import HashMemory, scan
from jobs.base.errors import InvalidInput

OLD = 1_000_000_000


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[HashMemory]:
    made = HashMemory(tmp_path / "cache" / "hashes.db")
    yield made
    made.close()


def _quiet(done: int, total: int) -> None:
    pass


def _file(path: Path, text: str, at: int = OLD) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    os.utime(path, (at, at))
    return path


def test_what_has_not_changed_is_not_read_again(tmp_path: Path, memory: HashMemory) -> None:
    root = tmp_path / "set"
    _file(root / "a", "one")
    _file(root / "sub/b", "three")
    told: list[tuple[int, int]] = []
    first = scan(root, memory, lambda done, total: told.append((done, total)))
    assert first.read == 8 and told[-1] == (8, 8)
    assert scan(root, memory, _quiet).read == 0
    _file(root / "a", "two", OLD + 1)
    second = scan(root, memory, _quiet)
    assert second.read == 3
    assert second.manifest.digest != first.manifest.digest
    _file(root / "a", "one", OLD + 2)
    assert scan(root, memory, _quiet).manifest.digest == first.manifest.digest


def test_a_file_that_was_just_written_is_read_again(tmp_path: Path, memory: HashMemory) -> None:
    """Its next content may have the same size within the same tick of the clock."""
    (tmp_path / "set").mkdir()
    (tmp_path / "set/a").write_text("one")
    assert [scan(tmp_path / "set", memory, _quiet).read for _ in range(2)] == [3, 3]


def test_links_are_followed_and_circles_refused(tmp_path: Path, memory: HashMemory) -> None:
    outside = _file(tmp_path / "elsewhere/big", "content").parent
    root = tmp_path / "set"
    _file(root / "a", "one")
    (root / "out").symlink_to(outside)
    (root / "b").symlink_to(root / "a")
    paths = [entry.path for entry in scan(root, memory, _quiet).manifest.files]
    assert paths == ["a", "b", "out/big"]
    (root / "self").symlink_to(root)
    with pytest.raises(InvalidInput, match="a link to a folder that it lies in"):
        scan(root, memory, _quiet)


def test_one_file(tmp_path: Path, memory: HashMemory) -> None:
    found = scan(_file(tmp_path / "t.csv", "x"), memory, _quiet)
    assert (found.file, [e.path for e in found.manifest.files]) == ("t.csv", ["t.csv"])


def test_what_cannot_be_a_version(tmp_path: Path, memory: HashMemory) -> None:
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "nothing", tmp_path / "empty"):
        with pytest.raises(InvalidInput):
            scan(path, memory, _quiet)
    os.mkfifo(tmp_path / "empty/fifo")
    with pytest.raises(InvalidInput, match="is not a file"):
        scan(tmp_path / "empty", memory, _quiet)


def test_a_damaged_memory_is_begun_anew(tmp_path: Path) -> None:
    place = tmp_path / "hashes.db"
    place.write_bytes(b"not a database" * 100)
    memory = HashMemory(place)
    assert scan(_file(tmp_path / "a", "x"), memory, _quiet).read == 1
    memory.close()
