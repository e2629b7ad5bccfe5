"""Checkpoint folders: what is listed of one, and how one begins with another's files."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from agents.node import checkpoints
from jobs.errors import InvalidInput, NotFound
from jobs.snapshot import FileEntry, Manifest


def test_only_whole_regular_files_are_listed(tmp_path: Path) -> None:
    folder = tmp_path / "j1"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "last.pt").write_bytes(b"weights")
    (folder / "run.sh").write_bytes(b"x")
    (folder / "run.sh").chmod(0o700)
    (folder / ".last.pt.77.tmp").write_bytes(b"half")
    (folder / "link").symlink_to("run.sh")
    os.mkfifo(folder / "fifo")
    assert checkpoints.listed(folder) == [
        {"path": "deep/last.pt", "mode": 0o644, "size": 7},
        {"path": "run.sh", "mode": 0o755, "size": 1},
    ]
    assert checkpoints.listed(tmp_path / "none") == []


def test_reading_stays_inside(tmp_path: Path) -> None:
    folder = tmp_path / "j1"
    folder.mkdir()
    (folder / "a").write_bytes(b"0123456789")
    (tmp_path / "secret").write_bytes(b"x")
    (folder / "out").symlink_to(tmp_path / "secret")
    assert checkpoints.read(folder, "a", 3, 4) == b"3456"
    for path in ("../secret", "out", "/etc/passwd"):
        with pytest.raises(InvalidInput):
            checkpoints.read(folder, path, 0, 1)
    with pytest.raises(NotFound):
        checkpoints.read(folder, "b", 0, 1)


def test_a_folder_begins_whole_and_only_once(tmp_path: Path) -> None:
    blob = tmp_path / "blob"
    blob.write_bytes(b"weights")
    digest = hashlib.sha256(b"weights").hexdigest()
    manifest = Manifest.of([FileEntry("deep/last.pt", 0o644, 7, digest)])
    folder = tmp_path / "all" / "j1"
    with pytest.raises(NotFound):
        checkpoints.begin(folder, manifest, lambda _: tmp_path / "missing")
    assert list(folder.parent.iterdir()) == []
    checkpoints.begin(folder, manifest, lambda _: blob)
    assert (folder / "deep" / "last.pt").read_bytes() == b"weights"
    (folder / "deep" / "last.pt").write_bytes(b"newer")
    checkpoints.begin(folder, manifest, lambda _: blob)
    assert (folder / "deep" / "last.pt").read_bytes() == b"newer"
    assert [path.name for path in folder.parent.iterdir()] == ["j1"]
