from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from jobs.base.paths import SafePath
from jobs.snapshots.ignore import Ignore

TREE = [
    "a.log", "keep.log", "src/a.log", "src/deep/b.py", "data/x.bin", "src/data/y.bin", "build",
    "out/build/z", "docs/a.txt", "docs/sub/a.txt", "[x].py", "a b.txt", "#hash", "!bang", "x.py",
    "cache/one/two", "f1.dat", "f2.dat", "fx.dat", "s*r.py", "star.py", "end ", "end",
]  # fmt: skip


@pytest.mark.parametrize(
    "patterns",
    [
        "*.log", "*.log\n!keep.log", "/a.log", "data/", "/data/", "src/data", "build/", "build",
        "docs/*.txt", "docs/**", "**/data", "**/data/*", "src/**/b.py", "cache/*\n!cache/one",
        "cache/\n!cache/one", "f[0-9].dat", "f[!0-9].dat", "?.py", "\\#hash", "\\!bang", "# comment\n\n",
        "*", "*\n!x.py", "a b.txt", "src/", "**", "/*\n!/src", "*.dat   ", "[x].py",
        "s\\*r.py", "\\[x].py", "end\\ ", "end ", "s\\tar.py", "\\*.py", "!x.py\n*.py\n\\!bang", "f\\[1].dat",
    ],
)  # fmt: skip
def test_patterns_mean_what_they_mean_to_git(patterns: str, tmp_path: Path) -> None:
    for path in TREE:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    (tmp_path / ".git" / "info" / "exclude").write_text(patterns)
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--others", "--exclude-standard"],
        cwd=tmp_path, capture_output=True, check=True, text=True,
    )  # fmt: skip
    kept = {path for path in listed.stdout.split("\0") if path}
    rules = Ignore.parse(patterns)
    assert {path for path in TREE if not rules.leaves_out(SafePath.parse(path))} == kept
