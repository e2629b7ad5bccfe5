"""Whether the registry is the one that was written last, or an older one that was put in its place.

A registry cannot know what it does not have. So each controller that begins draws a mark and leaves it
in two places: in the registry, and in a file of the state folder. A backup has an older mark, and a new
registry has none.
"""

from __future__ import annotations

import contextlib
import logging
import os
from pathlib import Path

from agents.controller.stores.database import Database
from jobs.base import names
from jobs.base.errors import QuarterdeckError
from jobs.store import writing

log = logging.getLogger(__name__)


class MarkFile:
    """The marks that the registry may bear: the last one, and while it is being changed the next one."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> list[str]:
        """Empty when there is no file yet."""
        try:
            return self._path.read_text().split()
        except FileNotFoundError:
            return []

    def write(self, marks: list[str]) -> None:
        """Durable once this returns. Raises OSError."""
        beside = self._path.with_suffix(".tmp")
        with beside.open("w") as file:
            file.write("\n".join(marks))
            file.flush()
            os.fsync(file.fileno())
        beside.replace(self._path)


class Continuity:
    def __init__(self, database: Database, file: MarkFile) -> None:
        self._db, self._file = database, file
        self._mark = ""

    async def broken(self) -> bool:
        """Whether the registry is older than what was written last, or another one. A state folder
        that never had a mark says nothing: it is new, or of a version before there were marks.

        Raises StorageFull, Unreachable.
        """
        known = self._file.read()
        mark = await self._db.read(writing.mark)
        return (mark in known) is not bool(known or mark)

    async def renew(self) -> None:
        """Draw a new mark: from now on a copy that was made before is known for what it is. A disk that
        is full keeps the old one."""
        mark = names.new_identity()
        with contextlib.suppress(QuarterdeckError, OSError):
            old = await self._db.read(writing.mark)
            self._file.write([old, mark] if old else [mark])
            await self._db.write(lambda session: writing.set_mark(session, mark))
            self._mark = mark
            self._file.write([mark])

    async def watch(self) -> None:
        """Look whether the registry still has the mark that this controller left in it. Without it, a
        backup was put in its place, or another controller has begun with it: nothing is written any
        more. Raises StorageFull, Unreachable."""
        mark = await self._db.read(writing.mark)
        if self._mark and mark != self._mark:
            self._db.refuse("a backup was put in its place, or another controller writes to it")
