"""Which rank has written an event file: that of the process in the file's name.

TensorBoard's writers name their files `events.out.tfevents.TIME.HOST.PID.NUMBER`, and the variables of a
process say which rank it is: one of ours, or one that a launcher inside of ours has started. Where a process
is gone, or its launcher sets no variables, it is told from its siblings by what they log: processes that
write the same curve into the same folder at the same time are ranks.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agents.node.worker.quarterdeck import rank_in

TOGETHER = 10.0
"""Seconds within which ranks open their files. A writer that comes later goes on with the curve."""
SLACK = 1.0
"""Seconds after another file's last point in which a first point is still at the same time."""
TAGS = 8
"""Curves of a file by which it is compared with others."""
_NAME = re.compile(r"\.tfevents\.(\d{1,12})\.(.+)\.(\d{1,9})\.\d+(?!\d)(?!\.\d)")
_PLACE = re.compile(rb"^NSpid:.*\s(\d+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Opened:
    """What a file's name says."""

    folder: str
    host: str
    at: int  # unix time
    pid: int


def opened(path: str) -> Opened | None:
    """None where the name does not say which process it was."""
    folder, _, name = path.rpartition("/")
    found = _NAME.search(name)
    return Opened(folder, found[2], int(found[1]), int(found[3])) if found else None


@dataclass(slots=True)
class Writer:
    """Of a file that was seen.

    Attributes:
        rank: of its process. None: not known, and nothing was read yet.
        tags: of files whose process did not say its rank, the first curves.
        until: the time of the last point.
    """

    rank: int | None
    tags: list[str]
    until: float = 0.0

    def to_json(self) -> list[Any]:
        return [self.rank, self.tags, self.until]


def first_read(
    path: str, tags: list[str], at: float, known: Mapping[str, Writer], own: int
) -> Writer:
    """The writer of a file that has its first points, where its process did not say its rank.

    Args:
        tags: the curves of its first points.
        at: the time of the first one.
        known: writers by their files.
        own: the rank in whose work folder they are.
    """
    tags = list(dict.fromkeys(tags))[:TAGS]
    mine = opened(path)
    taken = []
    for other, writer in known.items():
        theirs = opened(other)
        if mine is None or theirs is None or not set(tags) & set(writer.tags):
            continue
        alike = (mine.folder, mine.host) == (theirs.folder, theirs.host) and mine.pid != theirs.pid
        if alike and abs(mine.at - theirs.at) <= TOGETHER and at <= writer.until + SLACK:
            taken.append(own if writer.rank is None else writer.rank)
    return Writer(max(taken) + 1 if taken else own, tags, at)


class Processes:
    """The processes of one attempt, as far as they live.

    Args:
        run: the attempt (`j4.1`).
        contained: they run in containers, where processes have other numbers.
    """

    def __init__(self, run: str, *, contained: bool = False, proc: Path = Path("/proc")) -> None:
        self._run, self._contained, self._proc = run, contained, proc

    def rank_of(self, path: str) -> int | None:
        """The rank of the process that writes a file, if it says one."""
        found = opened(path)
        if found is None:
            return None
        for pid in self._inside(found.pid) if self._contained else (found.pid,):
            environ = self._environ(pid)
            if environ is None or environ.get("QD_RUN") != self._run:
                continue
            rank = rank_in(environ)
            if rank is None and environ.get("QD_WORLD_SIZE", "1") != "1":
                rank = int(environ["QD_RANK"])  # of several ranks without a launcher's variables
            return rank
        return None

    def _environ(self, pid: int) -> dict[str, str] | None:
        try:
            data = (self._proc / str(pid) / "environ").read_bytes()
        except OSError:
            return None
        pairs = (item.partition("=") for item in os.fsdecode(data).split("\0"))
        return {name: value for name, _, value in pairs}

    def _inside(self, pid: int) -> Iterator[int]:
        """Processes that have this number where they run."""
        for folder in self._proc.iterdir():
            if not folder.name.isdecimal():
                continue
            try:
                numbers = _PLACE.search((folder / "status").read_bytes())
            except OSError:
                continue
            if numbers and int(numbers[1]) == pid:
                yield int(folder.name)
