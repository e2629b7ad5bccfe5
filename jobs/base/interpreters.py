"""Which Python is meant by `3.12`, `python3.12` or a virtual environment's folder, on this machine.

Versions are looked for on the PATH, among those that uv has installed, and among pyenv's. Nothing is
started: names of files and folders say which version is where.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from jobs.base.errors import InvalidInput, NotFound

_VERSION = re.compile(r"(?:python)?([23](?:\.[0-9]+){0,2}t?)")
_ON_PATH = re.compile(r"python(3\.[0-9]+t?)")
_OF_UV = re.compile(r"cpython-(3\.[0-9]+(?:\.[0-9]+)?)[+-].*")
_OF_PYENV = re.compile(r"(3\.[0-9]+\.[0-9]+t?)")
_TOLD = 6
"""Interpreters that a hint names."""


def find(asked: str, environ: Mapping[str, str]) -> Path:
    """The interpreter, as an absolute path that is not resolved: it is in its environment by that path.

    Args:
        asked: a path to an interpreter or to the folder of an environment, a version, or the name of a
            program.

    Raises:
        InvalidInput: a relative path that is not there, or a file or folder that is no interpreter.
        NotFound: an absolute path, a version or a name that is not there; the hint has what is.
    """
    path = Path(asked).expanduser()
    if path.is_dir():
        return _of_folder(path.absolute())
    if path.exists():
        if not os.access(path, os.X_OK):
            raise InvalidInput(f"{path} is not a program")
        return path.absolute()
    if path.is_absolute():
        raise NotFound(f"there is no interpreter {path} on this machine", told(environ))
    if os.sep in asked:
        raise InvalidInput(f"there is no interpreter {path}", told(environ))
    version = _VERSION.fullmatch(asked)
    for folder in _path(environ, shims=version is None):
        if os.access(folder / asked, os.X_OK) and (folder / asked).is_file():
            return folder / asked
    if version is not None:
        wanted = version[1].split(".")
        for found, where in installed(environ):
            if found.split(".")[: len(wanted)] == wanted:
                return where
    what = f"Python {version[1]}" if version is not None else f"interpreter '{asked}'"
    raise NotFound(f"there is no {what} on this machine", told(environ))


def installed(environ: Mapping[str, str]) -> Iterator[tuple[str, Path]]:
    """Version and path of each interpreter: those on the PATH first, then the newest ones first."""
    for folder in _path(environ):
        for path in _newest(folder, _ON_PATH):
            if os.access(path, os.X_OK):
                yield _ON_PATH.fullmatch(path.name)[1], path  # type: ignore[index]
    home = Path(environ.get("HOME") or "/nonexistent")
    data = Path(environ.get("XDG_DATA_HOME") or home / ".local" / "share")
    uv = Path(environ.get("UV_PYTHON_INSTALL_DIR") or data / "uv" / "python")
    pyenv = Path(environ.get("PYENV_ROOT") or home / ".pyenv") / "versions"
    for root, pattern in ((uv, _OF_UV), (pyenv, _OF_PYENV)):
        for folder in _newest(root, pattern):
            python = folder / "bin" / "python3"
            if os.access(python, os.X_OK):
                yield pattern.fullmatch(folder.name)[1], python  # type: ignore[index]


def told(environ: Mapping[str, str]) -> str:
    """What is there, as a hint."""
    each = {
        path.resolve(): f"{version} ({path})" for version, path in reversed([*installed(environ)])
    }
    found = [*reversed(each.values())]
    more = f" and {len(found) - _TOLD} more" if len(found) > _TOLD else ""
    there = ", ".join(found[:_TOLD]) + more if found else "none with a version in its name"
    return f"There is: {there}."


def _of_folder(folder: Path) -> Path:
    python = folder / "bin" / "python"
    if os.access(python, os.X_OK):
        return python
    raise InvalidInput(
        f"{folder} is a folder without bin/python", "Name an environment's folder, or its python."
    )


def _path(environ: Mapping[str, str], shims: bool = False) -> list[Path]:
    """The folders of the PATH, without pyenv's shims, which run a version only where it is switched on."""
    words = environ.get("PATH", "/usr/local/bin:/usr/bin:/bin").split(os.pathsep)
    folders = [Path(word) for word in words if word.startswith("/")]
    return [folder for folder in folders if shims or folder.name != "shims"]


def _newest(folder: Path, pattern: re.Pattern[str]) -> list[Path]:
    """What in a folder has a version in its name, the newest first; nothing when there is no folder."""

    def key(path: Path) -> list[int]:
        return [int(number) for number in re.findall("[0-9]+", pattern.fullmatch(path.name)[1])]  # type: ignore[index]

    try:
        paths = [path for path in folder.iterdir() if pattern.fullmatch(path.name)]
    except OSError:
        return []
    return sorted(paths, key=key, reverse=True)
