"""What attempts wrote below their work folder, for a while after they are over.

An attempt that is forgotten leaves its work folder here, without what came with the job. It goes when it is
too old, or when all of it together takes too much room: the oldest first.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agents.node import accounts
from agents.node.guard import records
from agents.node.results import tree
from agents.node.staging.caches import Bounds
from jobs.wire.messages import Leftover

log = logging.getLogger(__name__)

USUAL = Bounds(size=50 << 30, age=7 * 86_400.0)

_NOTE = "kept.json"


@dataclass(frozen=True, slots=True)
class _Item:
    folder: Path
    size: int
    at: float


class Kept:
    """The folders below `root/kept`, named by the attempts' keys. The methods that block say so; those may
    run in a thread beside the others."""

    def __init__(self, root: Path, trash: Path, bounds: Bounds) -> None:
        self._root, self._trash, self._bounds = root / "kept", trash, bounds
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)

    def take(self, key: str, work: Path, left: Leftover, since: int | None, now: float) -> None:
        """Keep an attempt's work folder, if anything was written there. Raises OSError.

        Args:
            since: see `tree.written_since`.
            now: unix time.
        """
        if not left["files"] or not work.exists():
            return
        folder = self._root / key
        folder.mkdir(mode=0o700, exist_ok=True)
        if accounts.owner(work) is not None:
            folder.chmod(accounts.PASSAGE)
        note = {"at": now, "since": since, "bytes": left["bytes"], "files": left["files"]}
        records.write_file(str(folder / _NOTE), json.dumps(note).encode(), durable=False)
        if (folder / "work").exists():  # of an attempt of the same number that never began
            (folder / "work").rename(self._trash / uuid.uuid4().hex)
        work.rename(folder / "work")

    def work(self, key: str) -> Path | None:
        """The work folder of an attempt, if it is here."""
        folder = self._root / key / "work"
        return folder if folder.is_dir() else None

    def until(self, key: str) -> float | None:
        """Unix time until which an attempt's files are kept, if nothing else needs the room."""
        note = self._note(self._root / key)
        return note["at"] + self._bounds.age if note else None

    def since(self, key: str) -> int | None:
        """What was written by the attempt was written after this (see `tree.written_since`)."""
        return (self._note(self._root / key) or {}).get("since")

    def tidy(self, now: float) -> int:
        """Remove what has to go, and from what is new here what came with the job; bytes that were
        freed by the former. Blocking. `now` is unix time."""
        items = sorted(self._items(), key=lambda item: item.at)
        total, freed = sum(item.size for item in items), 0
        for item in items:
            if now - item.at > self._bounds.age or total > self._bounds.size:
                gone = self._trash / uuid.uuid4().hex
                with contextlib.suppress(OSError):
                    item.folder.rename(gone)
                    shutil.rmtree(gone, ignore_errors=True)
                    total, freed = total - item.size, freed + item.size
        if freed:
            log.info("files of attempts: %d bytes freed", freed)
        return freed

    def _items(self) -> Iterator[_Item]:
        for folder in self._root.iterdir():
            note = self._note(folder)
            if note is None:  # it was never finished
                age = time.time() - folder.lstat().st_mtime
                if age > 3600:
                    yield _Item(folder, 0, 0.0)
                continue
            if "since" in note:
                tree.strip(folder / "work", note.pop("since"))
                with contextlib.suppress(OSError):
                    data = json.dumps(note).encode()
                    records.write_file(str(folder / _NOTE), data, durable=False)
            yield _Item(folder, int(note["bytes"]), float(note["at"]))

    @staticmethod
    def _note(folder: Path) -> dict[str, Any] | None:
        return records.read_json(str(folder / _NOTE))


CARRIED = "carried"
"""A file of an attempt's folder, made before what an earlier attempt wrote was laid over its work folder."""


def written_from(folder: Path) -> int | None:
    """Since when files of a launched attempt's work folder are its own, or carried from an earlier one; in
    ns, None when it never was launched."""
    launched = launched_at(folder)
    if launched is None:
        return None
    try:
        return os.stat(folder / CARRIED).st_ctime_ns  # noqa: PTH116
    except OSError:
        return launched


def launched_at(folder: Path) -> int | None:
    """When an attempt was launched by the clock of its file system, in ns; None when it never was."""
    try:
        return os.stat(folder / records.LAUNCH).st_ctime_ns  # noqa: PTH116
    except OSError:
        return None
