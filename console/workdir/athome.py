"""What of a work folder stays at home by git's rules: how much it is, and what is the heaviest of it."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from jobs.snapshots.ignore import ALWAYS, COMMON
from jobs.wire.views import AtHome

MAX_LOOKED_AT = 50_000
"""Files that are counted."""
MAX_NAMED = 200
"""Files and folders that are recorded with the job."""
_DEBRIS = (".pyc", ".pyo", ".DS_Store", ".egg-info/")


@dataclass(frozen=True, slots=True)
class Left:
    """`sizes` has the bytes of each file and, together, of each folder (which ends in `/`) that git ignores;
    `whole` says whether all of their files were counted."""

    sizes: dict[str, int]
    files: int
    whole: bool

    @property
    def total_bytes(self) -> int:
        return sum(self.sizes.values())

    def to_json(self) -> AtHome:
        heaviest = sorted(self.sizes, key=lambda path: (-self.sizes[path], path))
        return {"files": self.files, "bytes": self.total_bytes, "paths": heaviest[:MAX_NAMED]}


def weigh(root: Path, ignored: Iterable[str], travelling: Collection[str]) -> Left:
    """Count what stays at home. Debris and environments, which a person does not miss, are left out.

    Args:
        ignored: files and folders (with `/` at the end) that git ignores.
        travelling: files that are sent all the same.
    """
    sizes: dict[str, int] = {}
    files = 0
    for path in ignored:
        if path.endswith(_DEBRIS) or _is_debris(root, path.rstrip("/")):
            continue
        found = 0
        for inner, size in _files(root, path):
            if files >= MAX_LOOKED_AT:
                return Left(sizes, files, whole=False)
            if inner in travelling:
                continue
            files += 1
            found += 1
            sizes[path] = sizes.get(path, 0) + size
    return Left(sizes, files, whole=True)


def _is_debris(root: Path, path: str) -> bool:
    return not COMMON.isdisjoint(path.split("/")) or (root / path / "pyvenv.cfg").exists()


def _files(root: Path, path: str) -> Iterable[tuple[str, int]]:
    """Each file of a folder, or the one file, with its size."""
    pending = [path]
    while pending:
        here = pending.pop()
        try:
            if not here.endswith("/"):
                status = (root / here).lstat()
                if stat.S_ISREG(status.st_mode):
                    yield here, status.st_size
                continue
            with os.scandir(root / here) as entries:
                for entry in entries:
                    inner = f"{here}{entry.name}"
                    if not entry.is_dir(follow_symlinks=False):
                        pending.append(inner)
                    elif entry.name not in ALWAYS and not _is_debris(root, inner):
                        pending.append(f"{inner}/")
        except OSError:  # it has just gone, or may not be read
            continue
