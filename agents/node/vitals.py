"""Signs of life of a rank: what its processes do, and when it last wrote.

Reading costs two small files of /proc for a rank that writes. Only one that is quiet is looked at
whole, since the process that hangs may be a child of it: a shell around the script, a data loader.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from jobs.life.stalls import Rhythm
from jobs.wire.messages import RankVitals

EVERY = 1.0
"""Seconds between two looks at the processes of a rank."""
QUIET = 5.0
"""Seconds of silence after which a rank's children are looked at too."""
MOST = 64
"""Processes of one rank that are looked at; data loaders come by the dozen and are all alike."""

_WORDS = {
    "R": "running",
    "S": "sleeping",
    "I": "sleeping",
    "D": "disk",
    "T": "stopped",
    "t": "traced",
    "Z": "zombie",
    "X": "dead",
}


def state_of(pid: int, *, children: bool, proc: Path = Path("/proc")) -> str:
    """What a process does, in a word: running, sleeping, disk (it waits for a device and cannot be
    interrupted), stopped, traced, zombie, dead; empty when there is none.

    Args:
        children: look at its descendants too; one that is stopped makes it "stopped".
    """
    own = _state(proc, pid)
    if not children or own in ("", "stopped"):
        return own
    todo, seen = [pid], 0
    while todo and seen < MOST:
        seen += 1
        for child in _children(proc, todo.pop()):
            if _state(proc, child) == "stopped":
                return "stopped"
            todo.append(child)
    return own


def _state(proc: Path, pid: int) -> str:
    try:
        stat = (proc / str(pid) / "stat").read_bytes()
    except OSError:
        return ""
    letter = stat.rpartition(b")")[2].split()[:1]
    return _WORDS.get(letter[0].decode("ascii", "replace"), "running") if letter else ""


def _children(proc: Path, pid: int) -> list[int]:
    """Children of a process's main thread, which is the one that starts processes in most programs."""
    try:
        return [int(child) for child in (proc / f"{pid}/task/{pid}/children").read_bytes().split()]
    except (OSError, ValueError):  # it has ended, or this kernel does not tell
        return []


@dataclass(slots=True)
class Signs:
    """What is known of one rank. Times are seconds on the boot clock.

    Attributes:
        since: when it started, or was first seen here.
    """

    since: float
    rhythm: Rhythm = field(default_factory=Rhythm)
    process: str = ""
    process_since: float = 0.0
    looked: float = 0.0

    def wrote(self, clock: float) -> None:
        self.rhythm.beat(clock)

    def quiet(self, clock: float) -> float:
        """Seconds since it wrote, or since it started."""
        last = self.rhythm.last
        return max(0.0, clock - (self.since if last is None else max(last, self.since)))

    def look(self, pid: int | None, clock: float) -> None:
        """See what its processes do, if it is time to."""
        if pid is None or clock - self.looked < EVERY:
            return
        self.looked = clock
        state = state_of(pid, children=self.quiet(clock) >= QUIET)
        if state != self.process:
            self.process, self.process_since = state, clock

    def report(self, clock: float) -> RankVitals:
        return RankVitals(
            process=self.process,
            process_for=max(0.0, clock - self.process_since),
            quiet=self.quiet(clock),
            usual=self.rhythm.usual,
            longest=self.rhythm.longest,
            kept=self.rhythm.kept,
        )
