from __future__ import annotations

import hashlib
import io
import os
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from console.workdir import gitrepo
from console.workdir import scan as workdir
from console.workdir.scan import heaviest, scan
from jobs.base.errors import InvalidInput
from jobs.snapshots.manifest import extract
from jobs.snapshots.pack import Changed, Part, pack_length, read_pack_to, write_pack


def write(root: Path, path: str, content: str = "x") -> Path:
    target = root / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(content)
    return target


def paths(root: Path) -> list[str]:
    return [entry.path for entry in scan(root).manifest.files]


def git(root: Path, *arguments: str) -> None:
    identity = ("-c", "user.name=t", "-c", "user.email=t@t", "-c", "commit.gpgsign=false")
    options = (*identity, "-c", "protocol.file.allow=always", "-c", "init.defaultBranch=main")
    subprocess.run(["git", *options, *arguments], cwd=root, check=True, capture_output=True)


def refused(root: Path, **limits: Any) -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        scan(root, **limits)
    return caught.value


class TestPlainFolder:
    def test_an_empty_folder_asks_no_git(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(gitrepo, "_git", None)  # would raise when called
        result = scan(tmp_path)
        assert (result.manifest.files, result.total_bytes, result.git) == ((), 0, None)

    def test_files_modes_and_sizes(self, tmp_path: Path) -> None:
        write(tmp_path, "train.py", "print()")
        write(tmp_path, "run.sh").chmod(0o700)
        write(tmp_path, "a/b/c", "")
        result = scan(tmp_path)
        found = [(e.path, e.mode, e.size) for e in result.manifest.files]
        assert found == [("a/b/c", 0o644, 0), ("run.sh", 0o755, 1), ("train.py", 0o644, 7)]
        assert result.total_bytes == 8
        for digest, path in result.sources.items():
            assert hashlib.sha256(path.read_bytes()).hexdigest() == digest
        assert result.sources.keys() == result.manifest.blobs

    def test_debris_stays_behind(self, tmp_path: Path) -> None:
        for path in (
            "__pycache__/x",
            "a/node_modules/x",
            ".mypy_cache/x",
            "env/pyvenv.cfg",
            "env/x",
        ):
            write(tmp_path, path)
        write(tmp_path, "a/kept")
        assert paths(tmp_path) == ["a/kept"]

    def test_qdignore_leaves_out_more(self, tmp_path: Path) -> None:
        for path in ("data/x", "a.bin", "b.bin", "src/data/y", "src/z"):
            write(tmp_path, path)
        write(tmp_path, ".qdignore", "# big\n/data/\n*.bin\n!b.bin\n")
        assert paths(tmp_path) == [".qdignore", "b.bin", "src/data/y", "src/z"]

    def test_gitignore_files_count_without_git(self, tmp_path: Path) -> None:
        """Inner ones too, the innermost first."""
        write(tmp_path, ".gitignore", "*.bin\n/data/\nlogs/*.log\n!keep.bin\n")
        write(tmp_path, "src/.gitignore", "/gen\n!*.bin\n")
        write(tmp_path, "src/deep/.gitignore", "*\n!.gitignore\n")
        write(tmp_path, "src/vendor/.gitignore", "*.bin\n")
        for path in (
            "a.bin",
            "keep.bin",
            "data/x",
            "src/data/y",
            "src/w.bin",
            "src/gen",
            "src/z/gen",
        ):
            write(tmp_path, path)
        for path in ("src/deep/x", "src/vendor/v.bin", "logs/a.log", "linked/a.bin"):
            write(tmp_path, path)
        (tmp_path / "linked/.gitignore").symlink_to("../src/.gitignore")  # as git has it since 2.32
        found = scan(tmp_path)
        assert [entry.path for entry in found.manifest.files] == [
            ".gitignore", "keep.bin", "linked/.gitignore", "src/.gitignore", "src/data/y",
            "src/deep/.gitignore", "src/vendor/.gitignore", "src/w.bin", "src/z/gen",
        ]  # fmt: skip
        assert found.manifest.folders == ("logs",)
        git(tmp_path, "init", "-q")
        assert scan(tmp_path).manifest == found.manifest, "as git itself has it"
        assert found.left is not None
        assert found.left.sizes == {
            "a.bin": 1, "data/": 1, "src/gen": 1, "src/deep/x": 1, "src/vendor/v.bin": 1,
            "logs/a.log": 1, "linked/a.bin": 1,
        }  # fmt: skip

    def test_what_is_included_travels_without_git_too(self, tmp_path: Path) -> None:
        write(tmp_path, ".gitignore", "data/\n")
        write(tmp_path, "data/x")
        write(tmp_path, "data/y")
        found = scan(tmp_path, include=["data/x"])
        assert [entry.path for entry in found.manifest.files] == [".gitignore", "data/x"]
        assert found.left is not None
        assert (found.left.files, found.left.sizes) == (1, {"data/": 1})

    def test_empty_folders_travel(self, tmp_path: Path) -> None:
        for path in ("out", "a/b/c", "with", ".cache/x", "env/lib", "none", "\udcff"):
            (tmp_path / path).mkdir(parents=True)
        write(tmp_path, "with/file")
        write(tmp_path, "env/pyvenv.cfg")
        write(tmp_path, ".qdignore", "/none/\n")
        assert scan(tmp_path).manifest.folders == ("a/b/c", "out")

    def test_equal_folders_have_equal_digests(self, tmp_path: Path) -> None:
        for name in ("one", "two"):
            for path in ("b", "a/c") if name == "one" else ("a/c", "b"):
                write(tmp_path / name, path)
        assert scan(tmp_path / "one").manifest.digest == scan(tmp_path / "two").manifest.digest

    def test_links_are_kept_as_they_are_with_a_warning_for_those_that_may_lead_nowhere(
        self, tmp_path: Path
    ) -> None:
        write(tmp_path, "d/f")
        wanted = {"l": "d", "up": "../x/d", "dangling": "none", "data": "/mnt/data", ".venv": "/v"}
        for name, target in wanted.items():
            (tmp_path / name).symlink_to(target)
        found = scan(tmp_path)
        assert {e.path: e.link for e in found.manifest.files if e.link is not None} == wanted
        out, dangling = found.warnings
        assert "data -> /mnt/data" in out
        assert "up -> ../x/d" in out
        assert dangling == "links that lead to nothing: dangling -> none"

    def test_what_is_no_file_is_skipped_with_a_warning(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "fifo")
        with socket.socket(socket.AF_UNIX) as server:
            old = Path.cwd()
            os.chdir(tmp_path)  # socket addresses are short
            try:
                server.bind("sock")
            finally:
                os.chdir(old)
            result = scan(tmp_path)
        assert result.manifest.files == ()
        assert sorted(result.warnings) == [
            "'fifo' is not a file; it is left out",
            "'sock' is not a file; it is left out",
        ]

    def test_names_that_are_not_utf8_or_have_backslashes_are_left_out_with_a_warning(
        self, tmp_path: Path
    ) -> None:
        (tmp_path / "\udcff").touch()  # the byte 0xff
        write(tmp_path, "a\\b")
        write(tmp_path, "train.py")
        found = scan(tmp_path)
        assert [entry.path for entry in found.manifest.files] == ["train.py"]
        (warning,) = found.warnings
        assert r"found '\udcff'; allowed: a path in UTF-8" in warning
        assert "found 'a\\b'; allowed: a path with / and without backslashes" in warning

    def test_the_limit_is_a_setting(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write(tmp_path, "big", "x" * 2048)
        monkeypatch.setenv("QD_WORKDIR_LIMIT", "1KiB")
        assert "QD_WORKDIR_LIMIT" in refused(tmp_path).hint
        monkeypatch.setenv("QD_WORKDIR_LIMIT", "4KiB")
        assert scan(tmp_path).total_bytes == 2048
        monkeypatch.setenv("QD_WORKDIR_LIMIT", "much")
        with pytest.raises(InvalidInput, match="QD_WORKDIR_LIMIT"):
            scan(tmp_path)

    def test_no_folder(self, tmp_path: Path) -> None:
        assert refused(tmp_path / "none").message.endswith("none: does not exist")
        assert refused(write(tmp_path, "f")).message.endswith("f is not a folder")

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
    def test_an_unreadable_file_is_named(self, tmp_path: Path) -> None:
        write(tmp_path, "secret").chmod(0)
        assert "secret: Permission denied" in refused(tmp_path).message

    def test_an_unreadable_file_is_named_to_root_too(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write(tmp_path, "secret")
        monkeypatch.setattr("os.open", _denied)
        assert refused(tmp_path).message == f"cannot read {tmp_path}/secret: Permission denied"


def _denied(*_: object, **__: object) -> int:
    raise PermissionError(13, "Permission denied")


class TestLimits:
    def test_too_large_is_refused_before_anything_is_read(self, tmp_path: Path) -> None:
        for path, size in (
            ("data/a", 2**30),
            ("data/b", 2**29),
            ("model.bin", 2**30),
            ("src/x", 1),
        ):
            write(tmp_path, path)
            os.truncate(tmp_path / path, size)  # sparse
        caught = refused(tmp_path)
        assert caught.message == (
            f"work folder {tmp_path} has 2.5 GiB; allowed: 500 MiB. "
            "Largest: data/ 1.5 GiB, model.bin 1 GiB, src/ 1 B"
        )
        assert caught.details == {"total": 5 * 2**29 + 1, "limit": 500 * 2**20}
        assert ".gitignore" in caught.hint
        assert "--workdir" in caught.hint

    def test_too_many_files_name_where_they_are(self, tmp_path: Path) -> None:
        for number in range(8):
            write(tmp_path, f"many/{number}")
        write(tmp_path, "few/1")
        caught = refused(tmp_path, max_files=4)
        assert caught.message.endswith(
            "has 9 files or more; allowed: 4. Most are in: many/ 8 files"
        )

    def test_a_folder_without_end_is_not_walked_to_it(self, tmp_path: Path) -> None:
        for number in range(40):
            write(tmp_path, f"{number}")
        assert "has 8 files or more; allowed: 2" in refused(tmp_path, max_files=2).message

    def test_the_limits_themselves_are_allowed(self, tmp_path: Path) -> None:
        write(tmp_path, "a", "12345")
        assert scan(tmp_path, max_bytes=5, max_files=1).total_bytes == 5

    def test_folders_that_hold_nearly_all_are_looked_into(self) -> None:
        tree = {"src/data/raw/a": 500, "src/data/raw/b": 400, "src/data/c": 60, "src/x": 10, "y": 1}
        assert heaviest(tree, 2) == [("src/data/raw/a", 500), ("src/data/raw/b", 400)]
        assert heaviest({"a/x": 3, "b": 2, "c": 1}) == [("a/", 3), ("b", 2), ("c", 1)]
        assert heaviest({}) == []


def grow(path: Path) -> None:
    with path.open("a") as file:
        file.write("more")


def rewrite(path: Path) -> None:
    path.write_text("y" * len(path.read_text()) + "x")


class TestChangingFiles:
    def patched(
        self,
        monkeypatch: pytest.MonkeyPatch,
        path: Path,
        times: int,
        change: Callable[[Path], object],
    ) -> None:
        """Let a file change while it is read, the first `times` times."""
        real, left = workdir._digest, [times]

        def digest(file: BinaryIO, size: int) -> str | None:
            result = real(file, size)
            if left[0]:
                left[0] -= 1
                change(path)
            return result

        monkeypatch.setattr(workdir, "_digest", digest)
        monkeypatch.setattr(workdir, "_PAUSE", 0.0)

    def test_a_file_that_was_just_saved_is_read_again(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = write(tmp_path, "f", "old")
        self.patched(monkeypatch, path, 2, grow)
        (entry,) = scan(tmp_path).manifest.files
        assert entry.sha256 == hashlib.sha256(b"oldmoremore").hexdigest()

    def test_of_a_file_that_keeps_growing_the_beginning_travels(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A log, or what this very command prints."""
        path = write(tmp_path, "x.log", "old")
        self.patched(monkeypatch, path, 99, grow)
        found = scan(tmp_path)
        (entry,) = found.manifest.files
        assert entry.sha256 == hashlib.sha256(b"oldmoremore").hexdigest()
        sink = io.BytesIO()
        write_pack(sink, [(entry.sha256, Part(found.sources[entry.sha256], entry.size))])
        with pytest.raises(Changed):
            write_pack(sink, [(entry.sha256, found.sources[entry.sha256])])

    def test_a_file_that_keeps_changing_is_named(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = write(tmp_path, "log.txt")
        self.patched(monkeypatch, path, 99, rewrite)
        assert refused(tmp_path).message.endswith(
            "log.txt changed or disappeared while it was read"
        )

    def test_a_file_that_vanishes_is_named(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = write(tmp_path, "gone")

        def lose(*_: object) -> int:
            path.unlink()
            return 0

        monkeypatch.setattr(workdir, "_check_limits", lose)
        assert refused(tmp_path).message.endswith("gone changed or disappeared while it was read")


class TestGit:
    @pytest.fixture
    def repo(self, tmp_path: Path) -> Path:
        repo = tmp_path / "repo"
        repo.mkdir()
        git(repo, "init", "-q")
        write(repo, ".gitignore", "*.pt\nout/\n")
        write(repo, "train.py", "one\n")
        write(repo, "pkg/a.py")
        git(repo, "add", ".")
        git(repo, "commit", "-qm", "first")
        return repo

    def test_tracked_and_untracked_but_not_ignored(self, repo: Path) -> None:
        write(repo, "new file.py")
        write(repo, "model.pt")
        write(repo, "out/x")
        (repo / "pkg/a.py").unlink()
        assert paths(repo) == [".gitignore", "new file.py", "train.py"]

    def test_a_folder_of_the_repository(self, repo: Path) -> None:
        write(repo, "pkg/b.py")
        assert paths(repo / "pkg") == ["a.py", "b.py"]

    def test_what_git_says_of_the_code(self, repo: Path) -> None:
        view = scan(repo).git
        assert view is not None
        assert (len(view["commit"]), view["branch"], view["dirty"]) == (40, "main", False)
        assert "diff" not in view
        write(repo, "train.py", "two\n")
        changed = scan(repo).git
        assert changed is not None
        assert changed["dirty"]
        assert "-one\n+two\n" in changed["diff"]

    def test_untracked_files_make_it_dirty_without_a_diff(self, repo: Path) -> None:
        write(repo, "new.py")
        view = scan(repo).git
        assert view is not None
        assert view["dirty"]
        assert "diff" not in view

    def test_a_large_diff_is_cut(self, repo: Path) -> None:
        write(repo, "train.py", "line of text\n" * 300_000)
        view = scan(repo).git
        assert view is not None
        assert len(view["diff"]) == 2**20

    def test_a_repository_without_commits(self, tmp_path: Path) -> None:
        git(tmp_path, "init", "-q")
        write(tmp_path, "a")
        result = scan(tmp_path)
        assert [entry.path for entry in result.manifest.files] == ["a"]
        assert result.git is None

    def test_submodules_and_clones_inside_come_along_as_folders(self, repo: Path) -> None:
        other = repo.parent / "other"
        other.mkdir()
        git(other, "init", "-q")
        write(other, "lib.py")
        git(other, "add", ".")
        git(other, "commit", "-qm", "lib")
        git(repo, "submodule", "add", "-q", str(other), "sub")
        git(repo, "clone", "-q", str(other), "clone")
        write(repo, "sub/__pycache__/x")
        write(repo, "sub/extra/y")
        found = paths(repo)
        assert {"sub/lib.py", "sub/extra/y", "clone/lib.py"} <= set(found)
        assert not [path for path in found if ".git/" in path or "__pycache__" in path]
        assert "sub/.git" not in found

    def test_what_git_has_not_fetched_is_told(self, repo: Path) -> None:
        head = subprocess.run(
            ["git", "-C", str(repo), "rev-parse", "HEAD"], capture_output=True, text=True
        ).stdout.strip()
        git(repo, "update-index", "--add", "--cacheinfo", f"160000,{head},lib")
        (repo / "lib").mkdir()
        (repo / "model.bin").write_text(
            f"version https://git-lfs.github.com/spec/v1\noid sha256:{'4' * 64}\nsize 12345\n"
        )
        assert scan(repo).manifest.folders == ("lib",)
        submodules, pointers = scan(repo).warnings
        assert "not checked out travel empty: lib;" in submodules
        assert "Git LFS pointers travel in the place of their files: model.bin;" in pointers
        (repo / "lib" / "x").touch()
        (repo / "model.bin").write_bytes(b"1" * 300)
        assert scan(repo).warnings == ()

    def test_what_git_ignores_comes_along_when_asked_for(self, repo: Path) -> None:
        write(repo, ".gitignore", "data/\n*.bin\n")
        for name in (
            "data/train.bin",
            "data/deep/val.bin",
            "w.bin",
            "other/w.bin",
            "data/__pycache__/x",
        ):
            write(repo, name)
        assert not [path for path in paths(repo) if path.endswith(".bin")]

        def more(*patterns: str) -> set[str]:
            found = scan(repo, include=patterns).manifest.files
            return {entry.path for entry in found if entry.path.endswith((".bin", "/x"))}

        assert (
            more("data/**")
            == more("data")
            == more("/data/")
            == {"data/train.bin", "data/deep/val.bin"}
        )
        assert more("data/*.bin") == {"data/train.bin"}
        assert more("w.bin") >= {"w.bin"}
        assert more("*.bin") == {"data/train.bin", "data/deep/val.bin", "w.bin", "other/w.bin"}
        (warning,) = scan(repo, include=["nothing/**"]).warnings
        assert "nothing/**" in warning
        write(repo, ".qdignore", "!data/deep/\n")
        assert more() == {"data/deep/val.bin"}

    def test_what_stays_at_home_is_counted(self, repo: Path) -> None:
        write(repo, "out/x", "12345")
        write(repo, "out/deep/y", "1")
        write(repo, "out/__pycache__/z", "1")
        write(repo, "model.pt", "123")
        view = scan(repo).git
        assert view is not None
        assert view["at_home"] == {"files": 3, "bytes": 9, "paths": ["out/", "model.pt"]}
        some = scan(repo, include=["out/deep"]).git
        assert some is not None
        assert some["at_home"] == {"files": 2, "bytes": 8, "paths": ["out/", "model.pt"]}
        everything = scan(repo, include=["out", "model.pt"]).git
        assert everything is not None
        assert "at_home" not in everything

    def test_empty_folders_travel_if_git_does_not_ignore_them(self, repo: Path) -> None:
        for path in ("empty", "pkg/empty", "new/empty", "out/empty", "pkg/none"):
            (repo / path).mkdir(parents=True)
        write(repo, ".git/info/exclude", "none/\n")
        write(repo, "only/x.pt")
        assert scan(repo).manifest.folders == ("empty", "new/empty", "only", "pkg/empty")

    def test_a_submodules_own_rules_count(self, repo: Path) -> None:
        inner = repo / "inner"
        inner.mkdir()
        git(inner, "init", "-q")
        write(inner, ".gitignore", "*.bin\n")
        write(inner, "kept.bin")
        git(inner, "add", "-f", ".")
        write(inner, "new.bin")
        write(inner, "new.py")
        (inner / "void").mkdir()
        found = scan(repo)
        names = [entry.path for entry in found.manifest.files if entry.path.startswith("inner/")]
        assert names == ["inner/.gitignore", "inner/kept.bin", "inner/new.py"]
        assert found.manifest.folders == ("inner/void",)
        assert found.left is not None and found.left.sizes == {"inner/new.bin": 1}
        (inner / ".git" / "index").write_bytes(b"nonsense")
        assert "inner/new.py" in paths(repo), "a broken one is looked through"

    def test_a_folder_that_became_a_link(self, repo: Path) -> None:
        (repo / "pkg").rename(repo / "moved")
        (repo / "pkg").symlink_to("moved")
        assert paths(repo) == [".gitignore", "moved/a.py", "pkg", "train.py"]

    def test_an_ignored_folder_is_taken_as_a_plain_one(self, repo: Path) -> None:
        write(repo, "out/run/train.py")
        result = scan(repo / "out" / "run")
        assert [entry.path for entry in result.manifest.files] == ["train.py"]
        assert result.git is None
        assert "all of it is taken" in result.warnings[0]

    def test_an_empty_folder_that_is_not_ignored_stays_empty(self, repo: Path) -> None:
        (repo / "empty").mkdir()
        assert scan(repo / "empty").warnings == ()

    def test_no_git_program(self, repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", str(repo / "none"))
        result = scan(repo)
        assert result.git is None
        assert "no git program" in result.warnings[0]
        assert "train.py" in [entry.path for entry in result.manifest.files]

    def test_a_broken_repository_is_an_error_and_a_false_one_is_none(
        self, repo: Path, tmp_path: Path
    ) -> None:
        (repo / ".git" / "index").write_bytes(b"nonsense")
        assert "git cannot list" in refused(repo).message
        false = tmp_path / "false"
        (false / ".git").mkdir(parents=True)
        write(false, "a")
        assert paths(false) == ["a"]

    def test_a_git_hook_does_not_lead_us_astray(
        self, repo: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("GIT_DIR", str(repo.parent / "nowhere"))
        monkeypatch.setenv("GIT_INDEX_FILE", str(repo.parent / "no-index"))
        assert "train.py" in paths(repo)

    def test_nothing_in_the_repository_is_touched(self, repo: Path) -> None:
        index = repo / ".git" / "index"
        os.utime(repo / "train.py", (1, 1))  # would make `git status` refresh the index
        before = index.read_bytes()
        scan(repo)
        assert index.read_bytes() == before


def test_a_folder_travels_whole(tmp_path: Path) -> None:
    source, blobs, target = tmp_path / "source", tmp_path / "blobs", tmp_path / "target"
    write(source, "train.py", "print()")
    write(source, "same.py", "print()")
    write(source, "bin/run").chmod(0o755)
    (source / "link").symlink_to("bin/run")
    blobs.mkdir()
    result = scan(source)
    stream = io.BytesIO()
    write_pack(stream, result.sources.items())
    assert len(stream.getvalue()) == pack_length(
        path.stat().st_size for path in result.sources.values()
    )
    stream.seek(0)
    stored = read_pack_to(stream, lambda digest, data: _store(blobs / digest, data))
    assert stored == 2
    extract(result.manifest, blobs.joinpath, target)
    assert scan(target).manifest == result.manifest


def _store(path: Path, data: BinaryIO) -> None:
    path.write_bytes(data.read())
