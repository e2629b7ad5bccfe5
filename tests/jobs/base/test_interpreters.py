"""Versions, names and folders of interpreters, as they lie on a disk."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from jobs.base.errors import InvalidInput, NotFound
from jobs.base.interpreters import find


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """A machine with Python 3.11 on its PATH, two of uv's, two of pyenv's, and an environment."""
    for path in (
        "usr/python3", "usr/python3.11", "usr/other", "env/bin/python",
        "home/.pyenv/shims/python3.9", "home/.pyenv/shims/python",
        "home/.local/share/uv/python/cpython-3.12.4-linux-x86_64-gnu/bin/python3",
        "home/.local/share/uv/python/cpython-3.12.11-linux-x86_64-gnu/bin/python3",
        "home/.pyenv/versions/3.12.20/bin/python3", "home/.pyenv/versions/3.8.1/bin/python3",
    ):  # fmt: skip
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch(0o755)
    (tmp_path / "empty").mkdir()
    return {
        "PATH": f"{tmp_path / 'home/.pyenv/shims'}:{tmp_path / 'usr'}",
        "HOME": f"{tmp_path}/home",
    }


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("3.12", "home/.local/share/uv/python/cpython-3.12.11-linux-x86_64-gnu/bin/python3"),
        ("3.12.4", "home/.local/share/uv/python/cpython-3.12.4-linux-x86_64-gnu/bin/python3"),
        ("python3.12", "home/.local/share/uv/python/cpython-3.12.11-linux-x86_64-gnu/bin/python3"),
        ("3.8", "home/.pyenv/versions/3.8.1/bin/python3"),
        ("3.11", "usr/python3.11"),
        ("python3", "usr/python3"),
        ("python", "home/.pyenv/shims/python"),
        ("other", "usr/other"),
        ("{}/env", "env/bin/python"),
        ("{}/env/bin/python", "env/bin/python"),
    ],
)
def test_what_is_meant(environ: dict[str, str], tmp_path: Path, asked: str, found: str) -> None:
    assert find(asked.format(tmp_path), environ) == tmp_path / found


@pytest.mark.parametrize(
    ("asked", "kind", "words"),
    [
        (
            "3.9",
            NotFound,
            "no Python 3.9 on this machine",
        ),  # the shim of a version that is not there
        ("3.1", NotFound, "no Python 3.1 "),
        ("pypy3", NotFound, "no interpreter 'pypy3'"),
        ("{}/nope", NotFound, "no interpreter .*/nope"),
        ("env/nope", InvalidInput, "no interpreter env/nope"),
        ("{}/empty", InvalidInput, "a folder without bin/python"),
    ],
)
def test_what_is_not_there(
    environ: dict[str, str], tmp_path: Path, asked: str, kind: type[NotFound], words: str
) -> None:
    with pytest.raises(kind, match=words) as raised:
        find(asked.format(tmp_path), environ)
    if kind is NotFound:
        assert re.search(r"3\.11 .*, 3\.12\.11 .*, 3\.12\.4 .*, 3\.12\.20 ", raised.value.hint)
