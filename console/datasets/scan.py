"""Reading a folder or a file as a version of a data set.

Unlike a work folder all of it counts, whatever git says, and links are followed: a version has the
content, wherever it lies here. What was read before and has not changed since (same size, time of change
and inode) is not read again; `HashMemory` remembers its digest.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from jobs.base.errors import InvalidInput
from jobs.base.paths import SafePath
from jobs.base.units import show
from jobs.snapshots.manifest import MAX_ENTRIES, FileEntry, Manifest

_CHUNK = 1 << 20
_SETTLED = 2.0
"""Seconds that a file must be old before its digest is remembered: one that is written within the same
tick of the clock as it was read would look unchanged."""


@dataclass(frozen=True, slots=True)
class DataScan:
    """A version, ready to be sent. `file` is set when it was made from one file."""

    manifest: Manifest
    sources: Mapping[str, Path]  # hex digest -> a file that holds it
    file: str | None
    read: int  # bytes that had to be read; the rest was known


class HashMemory:
    """Digests of files by path, in an SQLite file. It is a cache: a damaged one is begun anew."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._db = self._open()

    def _open(self) -> sqlite3.Connection:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            return self._prepared()
        except sqlite3.DatabaseError:
            self._path.unlink(missing_ok=True)
            return self._prepared()
        except OSError:  # a home that cannot be written: everything is read anew
            return self._prepared(":memory:")

    def _prepared(self, place: str | None = None) -> sqlite3.Connection:
        database = sqlite3.connect(place or self._path, timeout=10)
        try:
            database.execute(
                "CREATE TABLE IF NOT EXISTS files"
                " (path TEXT PRIMARY KEY, size INT, changed INT, inode INT, digest TEXT)"
            )
        except sqlite3.DatabaseError:
            database.close()
            raise
        return database

    def known(self, path: str, status: os.stat_result) -> str | None:
        """The digest of a file that has not changed since it was read."""
        row = self._db.execute(
            "SELECT digest FROM files WHERE path = ? AND size = ? AND changed = ? AND inode = ?",
            (path, status.st_size, status.st_mtime_ns, status.st_ino),
        ).fetchone()
        return None if row is None else str(row[0])

    def remember(self, path: str, status: os.stat_result, digest: str) -> None:
        if time.time() - status.st_mtime > _SETTLED:
            self._db.execute(
                "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?)",
                (path, status.st_size, status.st_mtime_ns, status.st_ino, digest),
            )

    def close(self) -> None:
        with closing(self._db), suppress(sqlite3.Error):
            self._db.commit()


def scan(path: Path, memory: HashMemory, progress: Callable[[int, int], None]) -> DataScan:
    """Read a version from a file or a folder.

    Args:
        progress: told how many bytes were read, of how many in all.

    Raises InvalidInput for what cannot be read, has a name no version can hold, or changes meanwhile.
    """
    try:
        whole = stat.S_ISREG(path.stat().st_mode)
    except OSError as error:
        why = "does not exist" if isinstance(error, FileNotFoundError) else error.strerror
        raise InvalidInput(f"{path} {why}") from None
    found = [(path.name, path)] if whole else list(_walk(path))
    if not found:
        raise InvalidInput(f"there is no file in {path}")
    if len(found) > MAX_ENTRIES:
        raise InvalidInput(
            f"{path} has more than {MAX_ENTRIES} files", "Pack them, or split the data set."
        )
    sizes = {name: file.stat().st_size for name, file in found}
    total, done, read = sum(sizes.values()), 0, 0
    entries: list[FileEntry] = []
    sources: dict[str, Path] = {}
    for name, file in found:
        entry, new = _entry(name, file, memory)
        entries.append(entry)
        sources.setdefault(entry.sha256, file)
        done, read = done + sizes[name], read + new
        progress(done, total)
    return DataScan(Manifest.of(entries), sources, path.name if whole else None, read)


def _walk(root: Path) -> Iterator[tuple[str, Path]]:
    """Every file below a folder, links followed; a folder that is its own ancestor is refused."""
    pending: list[tuple[str, Path, frozenset[tuple[int, int]]]] = [("", root, frozenset())]
    count = 0
    while pending:
        prefix, folder, above = pending.pop()
        try:
            status = folder.stat()
            names = sorted(inner.name for inner in folder.iterdir())
        except OSError as error:
            raise InvalidInput(f"cannot list {folder}: {error.strerror}") from None
        place = status.st_dev, status.st_ino
        if place in above:
            raise InvalidInput(f"{folder} is a link to a folder that it lies in")
        for name in names:
            inner, path = folder / name, f"{prefix}{name}"
            try:
                SafePath.parse(path)
                mode = inner.stat().st_mode
            except ValueError as error:
                raise InvalidInput(f"{inner}: {error}") from None
            except OSError as error:
                raise InvalidInput(f"cannot read {inner}: {error.strerror}") from None
            if stat.S_ISDIR(mode):
                pending.append((f"{path}/", inner, above | {place}))
            elif stat.S_ISREG(mode):
                count += 1
                yield path, inner
                if count > MAX_ENTRIES:
                    return
            else:
                raise InvalidInput(f"{show(str(inner))} is not a file")


def _entry(name: str, file: Path, memory: HashMemory) -> tuple[FileEntry, int]:
    """An entry, and how many bytes had to be read for it."""
    key = str(file.absolute())
    try:
        before = file.stat()
        known = memory.known(key, before)
        if known is not None:
            return FileEntry(name, 0o644, before.st_size, known), 0
        with file.open("rb") as source:
            digest = hashlib.sha256()
            size = 0
            while data := source.read(_CHUNK):
                digest.update(data)
                size += len(data)
        after = file.stat()
    except OSError as error:
        raise InvalidInput(f"cannot read {file}: {error.strerror}") from None
    if size != after.st_size or before.st_mtime_ns != after.st_mtime_ns:
        raise InvalidInput(f"{file} changed while it was read", "Add it when nothing writes to it.")
    memory.remember(key, after, digest.hexdigest())
    return FileEntry(name, 0o644, size, digest.hexdigest()), size
