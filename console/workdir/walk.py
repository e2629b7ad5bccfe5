"""Looking through a folder that git does not list, by the rules of its `.gitignore` files."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from pathlib import Path

from jobs.base.errors import InvalidInput
from jobs.snapshots.ignore import ALWAYS, COMMON, Ignore

GIT_FILE = ".gitignore"
_Rules = tuple[tuple[str, Ignore], ...]
"""Those of each `.gitignore` from the root on: the folder that it is in (with a `/` at the end), and what it
says."""


class Walk:
    """One look through a folder, without debris (`COMMON`), environments, and what rules leave out.

    Args:
        ignore: the rules of `.qdignore`; of files it is for the caller to ask them.
        by_git: whether `.gitignore` files count, as they do for git, those of inner folders too.
        skipped: further folders that are not looked into.

    Attributes:
        folders: those that were looked into, but for the first.
        left_out: what `.gitignore` files left out; a folder ends in `/`.
    """

    def __init__(
        self, root: Path, ignore: Ignore, *, by_git: bool, skipped: Collection[str] = ()
    ) -> None:
        self._root, self._ignore, self._by_git, self._skipped = root, ignore, by_git, skipped
        self.folders: list[str] = []
        self.left_out: list[str] = []

    def files(self, below: str = "") -> Iterator[str]:
        """Paths (relative to the root) of all that is not a folder. Raises InvalidInput."""
        pending: list[tuple[str, _Rules]] = [(below, ())]
        while pending:
            here, rules = pending.pop()
            try:
                with os.scandir(self._root / here) as entries:
                    listed = sorted(entries, key=lambda entry: entry.name)
            except OSError as error:
                raise InvalidInput(
                    f"cannot list folder {self._root / here}: {error.strerror}"
                ) from None
            base = f"{here}/" if here else ""
            if self._by_git and any(entry.name == GIT_FILE for entry in listed):
                rules = (*rules, (base, read_rules(self._root / base / GIT_FILE)))
            for entry in listed:
                path = f"{base}{entry.name}"
                is_folder = entry.is_dir(follow_symlinks=False)
                if is_folder and self._passes_by(path, entry.name):
                    continue
                if _ignored(rules, path, is_folder):
                    self.left_out.append(f"{path}/" if is_folder else path)
                elif is_folder:
                    self.folders.append(path)
                    pending.append((path, rules))
                elif entry.name not in ALWAYS:  # in a submodule, .git is a file
                    yield path

    def _passes_by(self, path: str, name: str) -> bool:
        return (
            name in COMMON
            or path in self._skipped
            or self._ignore.ignores(path, is_folder=True)
            or (self._root / path / "pyvenv.cfg").exists()
        )


def _ignored(rules: _Rules, path: str, is_folder: bool) -> bool:
    """What the innermost file says that says anything."""
    for base, ignore in reversed(rules):
        if (said := ignore.says(path.removeprefix(base), is_folder)) is not None:
            return said
    return False


def read_rules(path: Path) -> Ignore:
    """Of a `.gitignore`, in whatever encoding. As for git, one that is a link has none."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, encoding="utf-8-sig", errors="surrogateescape") as file:
            return Ignore.parse(file.read())
    except OSError:
        return Ignore()
