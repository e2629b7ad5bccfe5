"""Looking through what ranks write: what is listed and counted, and that nothing leads out of the folder."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import pytest

from agents.node.results import tree
from jobs.base.errors import InvalidInput, NotFound
from jobs.snapshots.patterns import Pattern


def test_only_whole_files_and_links_are_listed(tmp_path: Path) -> None:
    folder = tmp_path / "j1"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "last.pt").write_bytes(b"weights")
    (folder / "run.sh").write_bytes(b"x")
    (folder / "run.sh").chmod(0o700)
    (folder / ".last.pt.77.tmp").write_bytes(b"half")
    (folder / "link").symlink_to("run.sh")
    os.mkfifo(folder / "fifo")
    files, more = tree.listed(folder)
    assert more == 0
    assert [(f["path"], f["mode"], f["size"], f.get("link")) for f in files] == [
        ("deep/last.pt", 0o644, 7, None),
        ("link", 0o644, 0, "run.sh"),
        ("run.sh", 0o755, 1, None),
    ]
    assert tree.listed(tmp_path / "none") == ([], 0)


def test_reading_stays_inside(tmp_path: Path) -> None:
    folder = tmp_path / "j1"
    folder.mkdir()
    (folder / "a").write_bytes(b"0123456789")
    (tmp_path / "secret").write_bytes(b"x")
    (folder / "out").symlink_to(tmp_path / "secret")
    assert tree.read(folder, "a", 3, 4) == b"3456"
    for path in ("../secret", "out", "/etc/passwd"):
        with pytest.raises(InvalidInput):
            tree.read(folder, path, 0, 1)
    with pytest.raises(NotFound):
        tree.read(folder, "b", 0, 1)


def test_a_digest_is_that_of_the_bytes_asked_for(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"0123456789")
    assert tree.digest(tmp_path, "a", 2, 3) == hashlib.sha256(b"234").hexdigest()
    assert tree.digest(tmp_path, "a", 8, 99) == hashlib.sha256(b"89").hexdigest()
    with pytest.raises(InvalidInput):
        tree.digest(tmp_path, "../a", 0, 1)


def test_names_that_travel_nowhere_are_counted(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff")).touch()
    files, more = tree.listed(tmp_path)
    assert ([file["path"] for file in files], more) == (["a"], 1)


def _later() -> None:
    time.sleep(0.02)  # more than a tick of the kernel's clock for files


def test_what_came_with_the_job_is_told_from_what_it_wrote(tmp_path: Path) -> None:
    work = tmp_path / "work"
    (work / "src").mkdir(parents=True)
    for name in ("train.py", "src/model.py", "config.json"):
        (work / name).write_text("code")
    _later()
    (tmp_path / "mark").touch()
    since = (tmp_path / "mark").stat().st_ctime_ns
    _later()
    (work / "out").mkdir()
    (work / "out" / "m.bin").write_bytes(b"12345")
    (work / "config.json").write_text("changed")
    (work / "__pycache__").mkdir()
    (work / "__pycache__" / "x.pyc").touch()
    os.utime(work / "out" / "m.bin", (1, 1))  # its own time may be set to anything
    assert [f["path"] for f in tree.listed(work, (), since)[0]] == ["config.json", "out/m.bin"]
    assert tree.tally(work, [], since) == {"files": 2, "bytes": 12}
    assert tree.tally(work, [Pattern.parse("out")], since) == {"files": 1, "bytes": 7}
    assert tree.tally(work, [], since, budget=3) is None
    assert tree.tally(work, [], since, budget=5) == {"files": 2, "bytes": 12}
    tree.strip(work, since)
    assert sorted(f["path"] for f in tree.listed(work)[0]) == ["config.json", "out/m.bin"]
    assert not (work / "src").exists()
