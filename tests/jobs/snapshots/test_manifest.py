from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.base.errors import Conflict, InvalidInput, NotFound
from jobs.snapshots.manifest import FileEntry, Manifest, empty_beside, extract
from jobs.snapshots.pack import pack_length, read_pack, read_pack_to, write_pack


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def file(path: str, data: bytes = b"", mode: int = 0o644) -> FileEntry:
    return FileEntry(path, mode, len(data), sha(data))


def link(path: str, target: str) -> FileEntry:
    return FileEntry(path, 0o644, 0, "", target)


def pack(*blobs: bytes) -> bytes:
    stream = io.BytesIO()
    write_pack(stream, [(sha(blob), blob) for blob in blobs])
    return stream.getvalue()


class TestManifest:
    def test_bytes_are_canonical_and_name_the_snapshot(self) -> None:
        one = Manifest.of([file("b"), file("a/x", b"x", 0o755), link("l", "a/x")])
        two = Manifest.of([link("l", "a/x"), file("a/x", b"x", 0o755), file("b")])
        assert one.to_bytes() == two.to_bytes()
        assert one.digest == "sha256:" + sha(one.to_bytes())
        assert one.blobs == {sha(b""), sha(b"x")}
        assert one.total_bytes == 1
        assert Manifest.from_bytes(one.to_bytes()) == one

    def test_the_format_stays_as_it_is(self) -> None:
        # Stored snapshots are named by these bytes.
        written = Manifest.of([file("é"), link("l", "é")]).to_bytes().decode()
        assert written == (
            '{"files":[{"link":"é","path":"l"},{"mode":420,"path":"é","sha256":"'
            + sha(b"")
            + '","size":0}],"version":1}'
        )
        assert Manifest().to_bytes() == b'{"files":[],"version":1}'

    def test_empty_folders_have_a_version_of_their_own(self) -> None:
        manifest = Manifest.of([file("a/x")], ["out", "a/b"])
        data = manifest.to_bytes()
        assert data.decode().endswith('}],"folders":["a/b","out"],"version":2}')
        assert Manifest.from_bytes(data) == manifest
        for odd in (
            data.replace(b"2}", b"1}"),
            data.replace(b'["a/b","out"]', b"[]"),
            data.replace(b'["a/b","out"]', b'["out","a/b"]'),
            data.replace(b'["a/b","out"]', b'["out",1]'),
            data.replace(b'["a/b","out"]', b'"out"'),
            data.replace(b"2}", b"3}"),
        ):
            with pytest.raises(InvalidInput):
                Manifest.from_bytes(odd)

    @pytest.mark.parametrize("folder", ["a", "a/x", "l/in", "../up", "/abs", "b//c", "b/", "out"])
    def test_an_empty_folder_is_empty(self, folder: str) -> None:
        with pytest.raises(InvalidInput):
            Manifest.of([file("a/x"), link("l", "a")], [folder, "out"])
        assert empty_beside([file("a/x")], ["a", "b", "b/c", "a/y"]) == ["a/y", "b/c"]

    _names = st.text(
        st.characters(codec="utf-8", exclude_characters="/\\\0"),
        min_size=1,
        max_size=8,
    ).filter(lambda name: name not in (".", ".."))

    @given(st.dictionaries(_names, st.tuples(st.binary(max_size=4), st.booleans()), max_size=6))
    @settings(deadline=None)
    def test_any_manifest_reads_back(self, files: dict[str, tuple[bytes, bool]]) -> None:
        entries = [file(n, data, 0o755 if x else 0o644) for n, (data, x) in files.items()]
        manifest = Manifest.of(entries)
        assert Manifest.from_bytes(manifest.to_bytes()) == manifest

    @pytest.mark.parametrize(
        "entries",
        [
            [file("/abs")],
            [file("../up")],
            [file("./a")],
            [file("a//b")],
            [file("a\\b")],
            [file("a"), file("a")],
            [file("a"), file("a/b")],
            [link("a", "b"), file("a/b")],
            [FileEntry("a", 0o777, 0, sha(b""))],
            [FileEntry("a", 0o644, -1, sha(b""))],
            [FileEntry("a", 0o644, 2**60, sha(b""))],
            [FileEntry("a", 0o644, 0, "x")],
            [FileEntry("a", 0o644, 0, sha(b"").upper())],
            [file("\udc80")],
        ],
        ids=str,
    )
    def test_what_could_do_harm_is_refused(self, entries: list[FileEntry]) -> None:
        with pytest.raises(InvalidInput):
            Manifest.of(entries)

    @pytest.mark.parametrize(
        "change",
        [
            lambda d: d | {"version": 2},
            lambda d: d | {"more": 1},
            lambda d: {"files": d["files"]},
            lambda d: d | {"files": d["files"][::-1]},
            lambda d: d | {"files": [f | {"owner": 0} for f in d["files"]]},
            lambda d: d | {"files": [f | {"size": True} for f in d["files"]]},
            lambda d: d | {"files": [f | {"size": 1.0} for f in d["files"]]},
            lambda d: d | {"files": [f | {"path": 1} for f in d["files"]]},
            lambda d: d | {"files": [f | {"path": "\ud800"} for f in d["files"]]},
            lambda d: d | {"files": [f | {"link": 1} for f in d["files"]]},
            lambda d: d | {"files": [f | {"link": None} for f in d["files"]]},
            lambda d: d | {"files": 1},
            lambda d: [],
            lambda d: None,
        ],
    )
    def test_other_documents_are_refused(self, change: Callable[[Any], Any]) -> None:
        document = json.loads(Manifest.of([file("a"), file("b")]).to_bytes())
        data = json.dumps(change(document), sort_keys=True, separators=(",", ":")).encode()
        with pytest.raises(InvalidInput):
            Manifest.from_bytes(data)

    @pytest.mark.parametrize(
        "data", [b"", b"{", b"[" * 100_000, b"\xff", b'{"files": [], "version": 1}']
    )
    def test_other_bytes_are_refused(self, data: bytes) -> None:
        with pytest.raises(InvalidInput):
            Manifest.from_bytes(data)

    def test_too_many_files_are_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("jobs.snapshots.manifest.MAX_ENTRIES", 50)
        with pytest.raises(InvalidInput, match="51 files"):
            Manifest.of(file(str(number)) for number in range(51))


class TestPack:
    @given(st.lists(st.binary(max_size=1100), max_size=5))
    @settings(deadline=None)
    def test_any_blobs_read_back(self, blobs: list[bytes]) -> None:
        data = pack(*blobs)
        assert len(data) == pack_length(map(len, blobs))
        assert list(read_pack(data)) == [(sha(blob), blob) for blob in blobs]

    def test_tar_can_read_ours_and_we_can_read_tars(self) -> None:
        listed = subprocess.run(
            ["tar", "t"], input=pack(b"x", b""), capture_output=True, check=True
        )
        assert listed.stdout.decode().split() == [sha(b"x"), sha(b"")]
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w") as tar:
            info = tarfile.TarInfo(sha(b"abc"))
            info.size = 3
            tar.addfile(info, io.BytesIO(b"abc"))
        assert list(read_pack(stream.getvalue())) == [(sha(b"abc"), b"abc")]

    def test_a_source_that_gives_little_at_a_time_is_fine(self) -> None:
        class Trickle(io.BytesIO):
            def read(self, size: int | None = -1, /) -> bytes:
                return super().read(min(7, size or 0))

        assert list(read_pack(Trickle(pack(b"x" * 2000)))) == [(sha(b"x" * 2000), b"x" * 2000)]

    def test_files_are_streamed_and_what_the_store_leaves_is_verified(self, tmp_path: Path) -> None:
        big = os.urandom(2_500_000)
        (tmp_path / "big").write_bytes(big)
        stream = io.BytesIO()
        write_pack(stream, [(sha(big), tmp_path / "big"), (sha(b"end"), b"end")])
        stream.seek(0)
        heads: list[tuple[str, bytes]] = []

        def store(digest: str, source: BinaryIO) -> None:
            heads.append((digest, source.read(3)))

        assert read_pack_to(stream, store) == 2
        assert heads == [(sha(big), big[:3]), (sha(b"end"), b"end")]

    def test_a_file_that_changed_is_named_and_not_sent_as_something_else(
        self, tmp_path: Path
    ) -> None:
        path = tmp_path / "notes.txt"
        path.write_bytes(b"new")
        with pytest.raises(InvalidInput, match=r"notes\.txt changed after it was read"):
            write_pack(io.BytesIO(), [(sha(b"old"), path)])

    @pytest.mark.parametrize("size", [0, 1, 3_000_000])
    def test_false_content_never_reaches_the_store_whole(self, size: int) -> None:
        data = bytearray(pack(b"x" * size))
        false = sha(b"other").encode()
        info = tarfile.TarInfo(false.decode())
        info.size = size
        data[:512] = info.tobuf(tarfile.GNU_FORMAT)
        whole: list[bytes] = []
        with pytest.raises(InvalidInput, match="other content"):
            read_pack_to(io.BytesIO(data), lambda _, source: whole.append(source.read()))
        assert whole == []

    @pytest.mark.parametrize("cut", [0, 100, 512, 700, 1024, 1030])
    def test_a_cut_stream_is_noticed(self, cut: int) -> None:
        with pytest.raises(InvalidInput, match=r"cut off|ends in the middle"):
            list(read_pack(pack(b"x" * 300)[:cut]))

    @pytest.mark.parametrize(
        "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE,
                 tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_SPARSE]
    )  # fmt: skip
    def test_only_regular_files_are_taken(self, kind: bytes) -> None:
        info = tarfile.TarInfo(sha(b""))
        info.type = kind
        header = info.tobuf(tarfile.GNU_FORMAT)
        with pytest.raises(InvalidInput, match="not a regular file"):
            list(read_pack(header + bytes(1024)))

    @pytest.mark.parametrize("name", ["x", "../../etc/passwd", "A" * 64, sha(b"") + "/x"])
    def test_only_digests_are_names(self, name: str) -> None:
        header = tarfile.TarInfo(name).tobuf(tarfile.GNU_FORMAT)
        with pytest.raises(InvalidInput, match="not named by"):
            list(read_pack(header + bytes(1024)))

    def test_limits_hold_before_anything_is_read(self) -> None:
        with pytest.raises(InvalidInput, match="larger than 10 B"):
            list(read_pack(pack(b"x" * 11), max_blob=10))
        with pytest.raises(InvalidInput, match="more than 2 blobs"):
            list(read_pack(pack(b"1", b"2", b"3"), max_blobs=2))

    @given(st.binary(max_size=1600))
    @settings(deadline=None)
    def test_noise_is_refused_in_words(self, noise: bytes) -> None:
        try:
            list(read_pack(noise))
        except InvalidInput:
            pass
        else:
            assert noise[:512] == bytes(512)


class TestExtract:
    def blobs(self, folder: Path, *contents: bytes) -> Callable[[str], Path]:
        folder.mkdir()
        for content in contents:
            (folder / sha(content)).write_bytes(content)
        return folder.joinpath

    def test_files_modes_and_links_come_back(self, tmp_path: Path) -> None:
        find = self.blobs(tmp_path / "blobs", b"run", b"data")
        manifest = Manifest.of(
            [
                file("bin/run", b"run", 0o755),
                file("d/e/data", b"data"),
                link("a", "d/e"),
                link("z", "gone"),
            ],
            ["out/logs"],
        )
        target = tmp_path / "new" / "work"
        extract(manifest, find, target)
        assert (target / "bin/run").read_bytes() == b"run"
        assert (target / "bin/run").stat().st_mode & 0o777 == 0o755
        assert (target / "d/e/data").stat().st_mode & 0o777 == 0o644
        assert (target / "a/data").read_bytes() == b"data"
        assert str((target / "z").readlink()) == "gone"
        assert not list((target / "out/logs").iterdir())

    def test_a_job_that_writes_does_not_change_the_blob(self, tmp_path: Path) -> None:
        find = self.blobs(tmp_path / "blobs", b"data")
        extract(Manifest.of([file("data", b"data")]), find, tmp_path / "work")
        (tmp_path / "work" / "data").write_bytes(b"changed")
        assert find(sha(b"data")).read_bytes() == b"data"

    def test_a_missing_blob_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(NotFound, match=sha(b"data")):
            extract(Manifest.of([file("data", b"data")]), tmp_path.joinpath, tmp_path / "work")

    def test_a_blob_of_another_size_is_refused(self, tmp_path: Path) -> None:
        find = self.blobs(tmp_path / "blobs", b"data")
        find(sha(b"data")).write_bytes(b"dat")
        with pytest.raises(InvalidInput, match="has 3 bytes, 'data' needs 4"):
            extract(Manifest.of([file("data", b"data")]), find, tmp_path / "work")

    def test_nothing_is_written_over(self, tmp_path: Path) -> None:
        find = self.blobs(tmp_path / "blobs", b"data")
        work = tmp_path / "work"
        work.mkdir()
        (tmp_path / "victim").write_bytes(b"precious")
        (work / "data").symlink_to("../victim")
        with pytest.raises(Conflict, match="exists already"):
            extract(Manifest.of([file("data", b"data")]), find, work)
        assert (tmp_path / "victim").read_bytes() == b"precious"
