from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.base.errors import InvalidInput, NotFound
from jobs.base.paths import SafePath, check_link, leads_out, open_below, safe_join

EVIL = [
    "", ".", "./", "/", "/etc/passwd", "//x", "..", "../x", "a/../b", "a/..", "a\0b", "a\\b", "..\\x",
    "\udc80", "x" * 256, "/".join(["y" * 200] * 21),
]  # fmt: skip


@pytest.mark.parametrize("text", EVIL)
def test_paths_that_could_escape_or_break_are_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="allowed: "):
        SafePath.parse(text)
    with pytest.raises(InvalidInput, match="unsafe path"):
        safe_join(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("a", "a"),
        ("./a//b/", "a/b"),
        ("...", "..."),
        ("a..b/..c", "a..b/..c"),
        ("é/日本", "é/日本"),
        ("~", "~"),
    ],
)
def test_harmless_paths_get_their_plain_form(text: str, plain: str) -> None:
    assert str(SafePath.parse(text)) == plain


_PIECES = st.lists(
    st.sampled_from(["a", "b", ".", "..", "", "/", "\\", "\0", "link", "é"]), max_size=8
)


@given(_PIECES.map("/".join) | st.text(max_size=30))
@settings(deadline=None)
def test_what_parses_stays_below_its_root_and_is_stable(text: str) -> None:
    try:
        safe = SafePath.parse(text)
    except ValueError:
        return
    assert os.path.normpath(f"/root/{text}") == f"/root/{safe}"
    assert SafePath.parse(str(safe)) == safe


def test_parents_are_the_folders_above() -> None:
    assert SafePath.parse("a/b/c").parents == ["a", "a/b"]
    assert SafePath.parse("a").parents == []


def test_links_inside_are_followed_and_links_out_are_refused(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "real").mkdir(parents=True)
    (root / "in").symlink_to("real")
    (root / "out").symlink_to("../other")
    (root / "absolute").symlink_to("/etc")
    (root / "real" / "up").symlink_to("../real/..")
    (root / "loop").symlink_to("loop")
    assert safe_join(root, "in/new") == root / "in/new"
    assert safe_join(root, "real/up/real/x") == root / "real/up/real/x"
    assert safe_join(root, "nothing/here/yet") == root / "nothing/here/yet"
    for path in ("out", "out/x", "absolute/passwd", "loop"):
        with pytest.raises(InvalidInput, match="unsafe path"):
            safe_join(root, path)


def test_two_links_that_only_together_leave_the_root_are_refused(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "a").mkdir(parents=True)
    (root / "a" / "x").symlink_to("..")  # the root itself
    (root / "b").symlink_to("a/x/../secret")  # by name a/secret, on disk beside the root
    (tmp_path / "secret").write_text("outside")
    assert (root / "b").read_text() == "outside"
    with pytest.raises(InvalidInput, match="leads out"):
        safe_join(root, "b")


@pytest.mark.parametrize("target", ["b", "/mnt/data", "../../../x", "b/../c", "..\\x", "gone"])
def test_links_are_kept_wherever_they_lead(target: str) -> None:
    check_link(target)


@pytest.mark.parametrize("target", ["", "a\0", "\udcff", "x/" * 2500])
def test_targets_that_no_link_can_hold_are_refused(target: str) -> None:
    with pytest.raises(ValueError, match="allowed: "):
        check_link(target)


@pytest.mark.parametrize(
    ("target", "out"),
    [
        ("b", False),
        ("../../x", False),
        ("../../../x", True),
        ("/x", True),
        ("../r/../../../x", True),
    ],
)
def test_links_that_lead_out_are_known_by_name(target: str, out: bool) -> None:
    assert leads_out(SafePath.parse("p/q/link"), target) is out


def test_open_below_reads_files_and_follows_nothing(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "f").write_text("content")
    (tmp_path / "link").symlink_to("d")
    (tmp_path / "d" / "link").symlink_to("f")
    os.mkfifo(tmp_path / "fifo")
    with os.fdopen(open_below(tmp_path, "d/f")) as file:
        assert file.read() == "content"
    for path in ("link/f", "d/link", "fifo", "d", "d/f/g", "../x"):
        with pytest.raises(InvalidInput):
            open_below(tmp_path, path)
    for path in ("nothing", "d/nothing", "nothing/f"):
        with pytest.raises(NotFound):
            open_below(tmp_path, path)


def test_open_below_leaks_no_descriptor(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    before = len(list(Path("/proc/self/fd").iterdir()))
    for path in ("d/none", "d", "x/y", "/"):
        with pytest.raises((InvalidInput, NotFound)):
            open_below(tmp_path, path)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
