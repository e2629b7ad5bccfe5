"""Looking at a checkpoint folder, again and again, to see what in it has become whole."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from agents.node import accounts
from agents.node.results import tree
from jobs.base.errors import QuarterdeckError
from jobs.base.paths import SafePath, open_below
from jobs.checkpoints import forms, units
from jobs.snapshots.manifest import MAX_FILES

_METADATA_READ = 64 << 20

Identity = tuple[int, int, int]
"""Inode, size, and time of the last write in ns: what is the same while nobody writes."""


def identity(found: os.stat_result) -> Identity:
    return found.st_ino, found.st_size, found.st_mtime_ns


@dataclass(slots=True)
class _Known:
    identity: Identity
    since: float
    form: forms.Form | None = None
    shards: frozenset[str] = frozenset()


class Looker:
    """What looks at one folder have seen. `look` blocks; one at a time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[str, _Known] = {}
        self.units: list[units.Unit] = []
        self.revision = 0  # grows when other checkpoints are whole
        self._whole: frozenset[tuple[str, int]] = frozenset()

    def look(self, now: float, *, quiet: bool = False) -> bool:
        """Look once; whether other checkpoints are whole now than at the last look.

        Args:
            now: seconds, on a clock that never jumps.
            quiet: nobody writes any more, so what is here now was so for long.
        """
        with accounts.acting_for(self._folder):
            return self._look(now, quiet=quiet)

    def _look(self, now: float, *, quiet: bool) -> bool:
        seen: dict[str, units.Seen] = {}
        known: dict[str, _Known] = {}
        placed = set()
        for path, found in self._walk():
            if stat.S_ISDIR(found.st_mode):
                if found.st_ctime_ns > found.st_mtime_ns:
                    placed.add(path)
                continue
            if len(known) >= MAX_FILES:  # more than a manifest holds: none of it is copied
                seen.clear()
                break
            item = self._known.get(path)
            if item is None or item.identity != identity(found):
                item = _Known(identity(found), now)
            renamed = found.st_ctime_ns > found.st_mtime_ns
            still = units.SETTLED if quiet else now - item.since
            link = None
            if stat.S_ISLNK(found.st_mode):
                link = _target(self._folder / path)
            elif (still > 0 or renamed) and item.form is None:
                item.form, item.shards = form_of(self._folder, path, found.st_size)
            known[path] = item
            seen[path] = units.Seen(
                size=0 if link is not None else found.st_size,
                mtime=found.st_mtime_ns,
                still=still,
                renamed=renamed,
                form=item.form or "unknown",
                link=link,
                mode=0o755 if link is None and found.st_mode & 0o100 else 0o644,
                shards=item.shards,
            )
        self._known = known
        self.units = units.units(seen, placed)
        whole = frozenset((unit.name, unit.mtime) for unit in self.units if unit.whole)
        news, self._whole = whole != self._whole, whole
        self.revision += news
        return news

    def _walk(self) -> Iterator[tuple[str, os.stat_result]]:
        """All files and links, and the folders at the top."""
        try:
            entries = sorted(os.scandir(self._folder), key=lambda entry: entry.name)
        except OSError:
            return
        for entry in entries:
            with contextlib.suppress(OSError):  # it has just gone
                found = entry.stat(follow_symlinks=False)
                if not _travels(entry.name) or entry.name.endswith(".tmp"):
                    continue
                if not stat.S_ISDIR(found.st_mode):
                    if stat.S_ISREG(found.st_mode) or stat.S_ISLNK(found.st_mode):
                        yield entry.name, found
                    continue
                yield entry.name, found
                for path, inner in tree.walk(self._folder / entry.name):
                    if _travels(path):
                        yield f"{entry.name}/{path}", inner


def form_of(folder: Path, path: str, size: int) -> tuple[forms.Form, frozenset[str]]:
    """What a file's content says of it, and the shards that it names. Blocking."""
    try:
        file = open_below(folder, path)
    except (OSError, QuarterdeckError):
        return "torn", frozenset()
    try:
        if path.endswith(f"/{units.METADATA}"):
            named = forms.shards_of(os.pread(file, _METADATA_READ, 0))
            return "unknown", frozenset(named)
        head = os.pread(file, forms.HEAD, 0)
        if forms.is_zip(head):
            tail = os.pread(file, forms.TAIL, max(0, size - forms.TAIL))
            return forms.of_zip(tail, size), frozenset()
        if path.endswith(".safetensors"):
            length = forms.safetensors_header(head)
            if length is None:
                return "torn", frozenset()
            header = os.pread(file, length, forms.HEAD)
            if len(header) < length:
                return "torn", frozenset()
            return forms.of_safetensors(header, size), frozenset()
    except OSError:
        return "torn", frozenset()
    finally:
        os.close(file)
    return "unknown", frozenset()


def _target(path: Path) -> str:
    try:
        return str(path.readlink())
    except OSError:
        return ""


def _travels(path: str) -> bool:
    try:
        SafePath.parse(path)
    except ValueError:
        return False
    return True
