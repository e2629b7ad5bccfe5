"""What jobs that are over leave in the folder of checkpoints: a folder each, of which many are empty.

Empty ones go when the last attempt of their job is forgotten, and when an agent starts. The rest stays for a
retry; those of jobs that no registry knows go when a person says so (`qd prune`).
"""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path

from agents.node import accounts
from jobs.base.errors import InvalidInput
from jobs.base.names import parse_key
from jobs.wire.messages import LeftFolder

MOST = 20_000
"""Folders that are told of at a time."""


class LeftFolders:
    """Args:
    folder: with a folder for each job, on a disk that no other node writes to.
    trash: on the same disk; what is put there is removed soon.
    busy: the jobs, by their names on disk, of which attempts are here.
    """

    def __init__(self, folder: Path, trash: Path, busy: Callable[[], Collection[str]]) -> None:
        self._folder, self._trash, self._busy = folder, trash, busy

    def drop_empty(self, jobs: Iterable[str] | None = None) -> int:
        """Remove the empty folders of jobs of which nothing is here, all of them when none are named; how
        many there were. On the event loop's thread, as what begins an attempt: nothing begins meanwhile."""
        busy, gone = set(self._busy()), 0
        for job in self.jobs() if jobs is None else jobs:
            if job not in busy:
                with contextlib.suppress(OSError):  # there is something in it, or it is not there
                    (self._folder / job).rmdir()
                    gone += 1
        return gone

    def jobs(self) -> list[str]:
        """The jobs that have a folder and of which nothing else is here."""
        try:
            names = sorted(path.name for path in self._folder.iterdir())
        except FileNotFoundError:
            return []
        busy = set(self._busy())
        return [name for name in names if name not in busy and _is_job(name)][:MOST]

    def measured(self, jobs: Collection[str], before: float) -> list[LeftFolder]:
        """The folders of those jobs in which nothing is newer than a moment (unix time). Blocking."""
        found = []
        for job in self.jobs():
            if job not in jobs:
                continue
            size = files = 0
            newest = 0.0
            for path in _below(self._folder / job):
                with contextlib.suppress(OSError):
                    stat = path.lstat()
                    size, files = size + stat.st_blocks * 512, files + 1
                    newest = max(newest, stat.st_mtime)
            if newest < before:
                found.append(LeftFolder(job=job, files=files, bytes=size))
        return found

    def drop_unfinished(self, job: str) -> int:
        """Remove what ranks that were killed were writing with `quarterdeck.atomic_write`; how many files
        that were. Only while no rank of the job runs here. Blocking."""
        folder, gone = self._folder / job, 0
        if folder.is_dir():
            with accounts.acting_for(folder):
                for path in _below(folder):
                    if path.name.startswith(".") and path.name.endswith(".tmp"):
                        with contextlib.suppress(OSError):
                            path.unlink()
                            gone += 1
        return gone

    def remove(self, found: Iterable[LeftFolder]) -> list[LeftFolder]:
        """Put folders where they are removed, unless an attempt of the job has come meanwhile; which ones.
        On the event loop's thread."""
        gone = []
        for one in found:
            if one["job"] in self._busy():
                continue
            with contextlib.suppress(OSError):
                (self._folder / one["job"]).rename(self._trash / uuid.uuid4().hex)
                gone.append(one)
        return gone


def _below(folder: Path) -> Iterator[Path]:
    """Files and links below a folder. Links are not followed."""
    for base, _, names in os.walk(folder):
        yield from (Path(base, name) for name in names)


def _is_job(name: str) -> bool:
    try:
        parse_key(f"{name}.1")
    except InvalidInput:
        return False
    return True
