"""A work folder from a tar archive: whole, and nothing of it anywhere else."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from console.workdir.unpack import unpack
from jobs.base.errors import InvalidInput


def packed(*members: tuple[str, bytes | str], mode: str = "w", kind: bytes = b"") -> io.BytesIO:
    """An archive: bytes are a file's content, text is a link's target."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode=mode) as archive:  # type: ignore[call-overload]
        for name, content in members:
            member = tarfile.TarInfo(name)
            if isinstance(content, str):
                member.type, member.linkname = kind or tarfile.SYMTYPE, content
                archive.addfile(member)
            else:
                member.size, member.mode = len(content), 0o755
                archive.addfile(member, io.BytesIO(content))
    data.seek(0)
    return data


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz"])
def test_a_folder_arrives_whole(tmp_path: Path, mode: str) -> None:
    archive = packed(("./job.yaml", b"command: ls\n"), ("./a/b.py", b"x"), ("now", "a"), mode=mode)
    assert unpack(archive, tmp_path, 1000) == []
    assert (tmp_path / "job.yaml").read_bytes() == b"command: ls\n"
    assert (tmp_path / "a" / "b.py").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "now").readlink() == Path("a")


@pytest.mark.parametrize(
    "members",
    [
        [("../x", b"x")],
        [("/tmp/x", b"x")],
        [("a/../../x", b"x")],
        [("out", "/tmp"), ("out/x", "y")],
    ],
)
def test_what_leads_out_is_refused(tmp_path: Path, members: list[tuple[str, bytes | str]]) -> None:
    own = tmp_path / "own"
    own.mkdir()
    with pytest.raises(InvalidInput, match="in the archive"):
        unpack(packed(*members), own, 1000)
    assert list(tmp_path.iterdir()) == [own]


def test_a_file_behind_a_link_of_the_archive_is_a_file_here(tmp_path: Path) -> None:
    """Links are made last: no write goes through one."""
    own, other = tmp_path / "own", tmp_path / "other"
    own.mkdir()
    other.mkdir()
    unpack(packed(("out", str(other)), ("out/x", b"x")), own, 1000)
    assert (own / "out" / "x").read_bytes() == b"x"
    assert list(other.iterdir()) == []


def test_gits_own_folder_stays_behind(tmp_path: Path) -> None:
    archive = packed((".git/config", b"[core]\n fsmonitor = sh"), ("sub/.git/config", b"x"))
    unpack(archive, tmp_path, 1000)
    assert list(tmp_path.iterdir()) == []


def test_more_than_a_work_folder_may_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="more than 100 B"):
        unpack(packed(("a", b"x" * 60), ("b", b"x" * 60)), tmp_path, 100)
    with pytest.raises(InvalidInput, match="hard links"):
        unpack(packed(("a", b"x" * 60), ("b", "a"), kind=tarfile.LNKTYPE), tmp_path, 100)


def test_what_is_no_file_is_said(tmp_path: Path) -> None:
    found = unpack(packed(("pipe", ""), kind=tarfile.FIFOTYPE), tmp_path, 100)
    assert found == ["pipe is no file, folder or link, and stays behind"]


@pytest.mark.parametrize("data", [b"", b"command: ls\n", packed(("a", b"x" * 2000)).read()[:1000]])
def test_what_is_no_whole_archive_is_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(InvalidInput, match="not a complete tar archive"):
        unpack(io.BytesIO(data), tmp_path, 10_000)
