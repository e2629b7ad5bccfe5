"""The files below a folder that ranks write to. They may change at any moment, and nothing follows a link."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Collection, Iterator
from itertools import islice
from pathlib import Path

from agents.node import accounts
from jobs.base.paths import SafePath, open_below
from jobs.snapshots.ignore import ALWAYS
from jobs.snapshots.manifest import MAX_FILES
from jobs.snapshots.patterns import Pattern
from jobs.wire.messages import Leftover, NodeFile

Found = tuple[str, os.stat_result]
"""Path below the folder, and what lstat says."""

_READ = 1 << 20


def walk(folder: Path) -> Iterator[Found]:
    """Files and links below a folder, for who acts for its owner (`accounts.acting_for`). Left out are
    `__pycache__` and the like, and what `quarterdeck.atomic_write` has not finished."""
    todo = [""]
    while todo:
        base = todo.pop()
        try:
            entries = os.scandir(folder / base)
        except OSError:  # it has just gone, or the job does not let us look
            continue
        with entries:
            for entry in entries:
                path = f"{base}{entry.name}"
                try:
                    if entry.is_dir(follow_symlinks=False):
                        if entry.name not in ALWAYS:
                            todo.append(f"{path}/")
                        continue
                    found = entry.stat(follow_symlinks=False)
                except OSError:
                    continue
                unfinished = entry.name.startswith(".") and entry.name.endswith(".tmp")
                if not unfinished and (stat.S_ISREG(found.st_mode) or stat.S_ISLNK(found.st_mode)):
                    yield path, found


def written_since(moment: int | None) -> Callable[[os.stat_result], bool]:
    """Whether a file was written after a moment of the file system's own clock, in ns; None: any was.

    By the time of its last change of any kind, which no program can set back.
    """
    return lambda found: moment is None or found.st_ctime_ns > moment


def listed(
    folder: Path, patterns: Collection[Pattern] = (), since: int | None = None
) -> tuple[list[NodeFile], int]:
    """Files that one of the patterns means (all without any), by path; and how many more there are, which
    were not listed: too many, or names that travel nowhere.

    Args:
        since: only what was written after it, as for `written_since`.
    """
    files: list[NodeFile] = []
    more = 0
    new = written_since(since)
    with accounts.acting_for(folder):
        for path, found in walk(folder):
            if not new(found) or (patterns and not any(p.matches(path) for p in patterns)):
                continue
            if len(files) >= MAX_FILES or not _travels(path):
                more += 1
                continue
            mode = 0o755 if found.st_mode & 0o100 else 0o644
            file = NodeFile(path=path, mode=mode, size=found.st_size, mtime=found.st_mtime)
            if stat.S_ISLNK(found.st_mode):
                try:
                    file["link"] = str((folder / path).readlink())
                except OSError:
                    continue
                file["mode"], file["size"] = 0o644, 0
            files.append(file)
        return sorted(files, key=lambda file: file["path"]), more


def _travels(path: str) -> bool:
    try:
        SafePath.parse(path)
    except ValueError:
        return False
    return True


def read(folder: Path, path: str, offset: int, limit: int) -> bytes:
    """Bytes of a file below a folder. Raises NotFound, InvalidInput for an unsafe path."""
    with accounts.acting_for(folder):
        descriptor = open_below(folder, path)
    try:
        return os.pread(descriptor, limit, offset)
    finally:
        os.close(descriptor)


def digest(folder: Path, path: str, offset: int, limit: int) -> str:
    """sha256 in hex of up to `limit` bytes of a file below a folder. Raises as `read`."""
    with accounts.acting_for(folder):
        descriptor = open_below(folder, path)
    sha256 = hashlib.sha256()
    try:
        while limit and (data := os.pread(descriptor, min(limit, _READ), offset)):
            sha256.update(data)
            offset, limit = offset + len(data), limit - len(data)
    finally:
        os.close(descriptor)
    return sha256.hexdigest()


def tally(
    folder: Path, named: Collection[Pattern], since: int | None, budget: int | None = None
) -> Leftover | None:
    """What was written below a folder that no pattern means.

    Args:
        budget: files to look at; with more of them the answer is None.
    """
    files = size = 0
    new = written_since(since)
    with accounts.acting_for(folder):
        found = walk(folder)
        for path, status in islice(found, budget):
            if stat.S_ISREG(status.st_mode) and new(status):
                if any(pattern.matches(path) for pattern in named):
                    continue
                files += 1
                size += status.st_size
        if budget is not None and next(found, None) is not None:
            return None
        return Leftover(files=files, bytes=size)


def strip(folder: Path, since: int | None) -> None:
    """Remove what came with the job and was not written to. Blocking."""
    new = written_since(since)
    with accounts.acting_for(folder):
        for base, folders, names in os.walk(folder, topdown=False):
            for name in names:
                path = Path(base, name)
                try:
                    if not new(path.lstat()):
                        path.unlink()
                except OSError:
                    continue
            for name in folders:
                try:
                    Path(base, name).rmdir()  # of those that are empty by now
                except OSError:
                    continue
