"""Checkpoint folders: what is listed of one, and how one begins with another's files."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from agents.node.staging import checkpoints
from jobs.base.errors import NotFound
from jobs.snapshots.manifest import FileEntry, Manifest
from jobs.wire.messages import Resume


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


def _copied(tmp_path: Path, **contents: str) -> tuple[Manifest, Callable[[str], Path]]:
    """A manifest of these files, and where their blobs are."""
    entries = []
    for path, content in contents.items():
        digest = hashlib.sha256(content.encode()).hexdigest()
        (tmp_path / digest).write_text(content)
        entries.append(FileEntry(path, 0o644, len(content), digest))
    return Manifest.of(entries), lambda digest: tmp_path / digest


def _copy(*, mine: float | None, moved: bool) -> Resume:
    return {"digest": "sha256:" + "0" * 64, "at": 1000.0, "mine": mine, "moved": moved}


def _wanted(folder: Path, manifest: Manifest, copy: Resume) -> list[str]:
    return [file.path for file in checkpoints.lacking(folder, manifest, copy).files]


def test_a_node_gets_what_it_does_not_have_itself_or_newer(tmp_path: Path) -> None:
    manifest, blobs = _copied(tmp_path, a="one", b="two")
    folder = tmp_path / "job"
    fresh = _copy(mine=None, moved=True)
    assert _wanted(folder, manifest, fresh) == ["a", "b"]
    checkpoints.resume(folder, manifest, 1000.0, blobs)
    assert (folder / "a").read_text() == "one"
    assert (folder / "a").stat().st_mtime == 1000.0
    assert _wanted(folder, manifest, _copy(mine=1000.0, moved=False)) == []
    os.utime(folder / "a", (2000.0, 2000.0))
    assert _wanted(folder, manifest, _copy(mine=None, moved=False)) == [], "newer than the copy"
    assert _wanted(folder, manifest, fresh) == ["b"], "not by a file that stays"
    (folder / "b").unlink()
    assert _wanted(folder, manifest, _copy(mine=1000.0, moved=True)) == ["b"]
    (folder / "a").write_bytes(b"PK\x03\x04 and no end")
    assert _wanted(folder, manifest, fresh) == ["a", "b"], "what is cut is worth nothing"


def test_what_was_laid_out_in_part_is_laid_out_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest, blobs = _copied(tmp_path, a="one", b="two")
    folder, real = tmp_path / "job", Path.rename

    def dying(self: Path, target: Path) -> Path:
        if self.name == "b":
            raise KeyboardInterrupt
        return real(self, target)

    monkeypatch.setattr(Path, "rename", dying)
    with pytest.raises(KeyboardInterrupt):
        checkpoints.resume(folder, manifest, 1000.0, blobs)
    assert _wanted(folder, manifest, _copy(mine=None, moved=False)) == ["a", "b"]
    monkeypatch.undo()
    checkpoints.resume(folder, manifest, 1000.0, blobs)
    assert _wanted(folder, manifest, _copy(mine=None, moved=False)) == []
    assert sorted(path.name for path in folder.iterdir()) == ["a", "b"]


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    manifest, blobs = _copied(tmp_path, **{"step/a": "one"})
    folder, outside = tmp_path / "job", tmp_path / "outside"
    folder.mkdir()
    outside.mkdir()
    (folder / "step").symlink_to(outside)
    checkpoints.resume(folder, manifest, 1000.0, blobs)
    assert list(outside.iterdir()) == []
    assert (folder / "step" / "a").read_text() == "one"
