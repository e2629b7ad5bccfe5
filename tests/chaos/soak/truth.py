"""What really happened, from sources that are not under test: the ranks' own diaries, and what the soak
has done and been answered."""

from __future__ import annotations

import re
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

Run = tuple[str, int]
"""A job and the number of its attempt."""

_NAME = re.compile(r"(?P<job>j\d+)\.(?P<attempt>\d+)\.r(?P<rank>\d+)\.(?P<pid>\d+)")


def clock() -> float:
    """Seconds on the clock that all here is told by."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(frozen=True)
class Life:
    """One process of a rank, as it told itself."""

    job: str
    attempt: int
    rank: int
    pid: int
    began: float
    last: float  # when it was last known to live
    resumed: int  # the tick it went on from
    lines: int  # the last tick that it has printed
    points: int  # the last tick that it has logged
    loss: float | None  # what it logged last as a trial
    exit: int | None  # None when it was killed, or lives
    doubles: tuple[str, ...]  # what it met that should have been dead
    torn: tuple[str, ...] = ()  # large files of its checkpoint that were not what was written

    @property
    def run(self) -> Run:
        return self.job, self.attempt


def lives(folder: Path) -> list[Life]:
    """All that the diaries tell, by the time of birth."""
    found = []
    for path in folder.iterdir():
        match = _NAME.fullmatch(path.name)
        facts = path.read_text().splitlines() if match else []
        if not match or not facts:
            continue
        where = {name: int(match[name]) for name in ("attempt", "rank", "pid")}
        found.append(_life(match["job"], where, [line.split() for line in facts]))
    return sorted(found, key=lambda life: life.began)


def _life(job: str, where: dict[str, int], facts: list[list[str]]) -> Life:
    told: dict[str, int] = {}
    doubles: list[str] = []
    torn: list[str] = []
    loss = None
    for _, what, *more in facts:
        if what in ("double", "torn"):
            (doubles if what == "double" else torn).append(" ".join(more))
        elif what == "large":
            continue
        else:
            told[what] = int(more[0])
            loss = float(more[1]) if len(more) > 1 else loss
    resumed = told.get("start", 0)
    return Life(
        job,
        **where,
        began=float(facts[0][0]),
        last=float(facts[-1][0]),
        resumed=resumed,
        lines=told.get("line", resumed),
        points=told.get("point", resumed),
        loss=loss,
        exit=told.get("end"),
        doubles=tuple(doubles),
        torn=tuple(torn),
    )


@dataclass
class Fault:
    """Something that was done to the cluster."""

    what: str  # "kill", "stop", "lock", "fill", "clean", "damage", "ask", "restore", "replace"
    part: str  # "controller", "rank", ...
    began: float
    until: float  # when it was over; as `began` for a kill
    run: Run | None = None  # whose rank or guard it was
    pid: int = 0

    def __str__(self) -> str:
        whose = f" of {self.run[0]}.{self.run[1]}" if self.run else ""
        lasting = f" for {self.until - self.began:.1f} s" if self.until > self.began else ""
        return f"{self.what} {self.part}{whose}" + (f" ({self.pid})" if self.pid else "") + lasting


@dataclass(frozen=True)
class Restore:
    """A backup, begun at `began` and made by `made`, that was put back between `stopped` and `up`."""

    began: float
    made: float
    stopped: float
    up: float
    ended: frozenset[Run] = frozenset()  # attempts of whose end the backup knows

    def forgot(self, moment: float) -> bool:
        """Whether the registry may not know any more what was recorded at a moment."""
        return self.began <= moment <= self.up


@dataclass
class Ask:
    """A submit, from its first try to its answer."""

    key: str
    kind: str
    asked: float
    job: str = ""  # once it was acknowledged
    answered: float = 0.0
    cancelled: float = 0.0  # when a cancel was acknowledged
    created: bool = True


@dataclass
class Truth:
    """What the soak has done and been told. Threads only append to it, or set a field once."""

    diary: Path
    began: float = field(default_factory=clock)
    faults: list[Fault] = field(default_factory=list)
    asks: list[Ask] = field(default_factory=list)
    restores: list[Restore] = field(default_factory=list)
    sweep: str = ""
    remarks: list[tuple[float, str]] = field(default_factory=list)

    def remark(self, text: str) -> None:
        self.remarks.append((clock(), text))

    def lives(self) -> dict[str, list[Life]]:
        """By job."""
        found = defaultdict(list)
        for life in lives(self.diary):
            found[life.job].append(life)
        return found
