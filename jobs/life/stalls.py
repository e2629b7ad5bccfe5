"""Which ranks have stopped making progress. Pure: readings in, a verdict out.

A rank shows that it is alive by writing: a log line, a metric. Its agent learns the rhythm in which it
does (`Rhythm`) and tells how long it has been quiet (`Vitals`); `judge` says whether that is too long.

Ranks of a gang wait for one another, so one that hangs silences all, and one that writes shows that
none hangs. Silence is therefore the gang's, with two exceptions: a process that is stopped (SIGSTOP)
cannot go on whatever the others do, and a rank that has kept a rhythm for long and lost it is missed
even while others write. A rank that only wrote while it started is not: most scripts log from rank 0.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from jobs.base.words import counted, duration

KEPT = 64
"""Gaps from which the usual one is taken."""
KNOWN = 4
"""Gaps that make a rhythm; of fewer, nothing can be said."""
QUANTILE = 0.9
"""The usual gap is one that nine of ten stay below: lines come in bursts, and it is the pause between
two steps that counts, not the one between two lines of a step."""

FLOOR = 600.0
"""Seconds. Without a limit of the job's own nothing quiets down sooner than this: evaluations, large
checkpoints and compilation take minutes, and collectives give up by themselves after about ten."""
TIMES_USUAL, TIMES_LONGEST = 20.0, 3.0
"""How much longer than the usual and than the longest pause so far a silence has to be."""
STOPPED = 30.0
"""Seconds for which a process must have been stopped. A profiler or a person may stop one for a moment,
but while it is stopped nothing will come of it."""


@dataclass(slots=True)
class Rhythm:
    """When a rank has written. Times are seconds on any clock that never jumps."""

    first: float | None = None
    last: float | None = None
    longest: float = 0.0
    gaps: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT))

    def beat(self, at: float) -> None:
        """It wrote something at `at`."""
        if self.first is None or self.last is None:
            self.first = self.last = at
            return
        gap = max(0.0, at - self.last)
        self.last += gap
        self.longest = max(self.longest, gap)
        self.gaps.append(gap)

    @property
    def usual(self) -> float | None:
        """Seconds of the usual gap; None while too little is known."""
        if len(self.gaps) < KNOWN:
            return None
        return sorted(self.gaps)[int(QUANTILE * (len(self.gaps) - 1))]

    @property
    def kept(self) -> float:
        """For how many seconds it has been writing, from the first time to the last."""
        return 0.0 if self.first is None or self.last is None else self.last - self.first


@dataclass(frozen=True, slots=True)
class Vitals:
    """What is known of a rank that runs. All durations in seconds, `quiet` counted until now.

    Attributes:
        process: what the rank's process does, or a child of it that is stopped: "running",
            "sleeping", "disk" (waits for a device and cannot be interrupted), "stopped", ...
        process_for: for how long it has been that.
        quiet: since it wrote something, or since it started.
        usual: the usual gap between two writes, None when too little is known.
        longest: the longest such gap.
        kept: for how long it had been writing when it fell silent, 0 when it never wrote twice.
    """

    rank: int
    node: str
    process: str
    process_for: float
    quiet: float
    usual: float | None
    longest: float
    kept: float


@dataclass(frozen=True, slots=True)
class Stall:
    """A verdict. `rank` is the one to look at first; `others` are silent with it."""

    rank: int
    node: str
    seconds: float
    stopped: bool = False
    usual: float | None = None
    others: int = 0

    @property
    def text(self) -> str:
        """ "rank 3 on n2 has been silent for 12m; usual 4s" """
        who = f"rank {self.rank} on {self.node}"
        if self.stopped:
            return f"{who} has been stopped (SIGSTOP) for {duration(self.seconds)}"
        if self.others:
            who += f" and {counted(self.others, 'other')}"
        verb = "have" if self.others else "has"
        usual = "" if self.usual is None else f"; usual {duration(self.usual)}"
        return f"{who} {verb} been silent for {duration(self.seconds)}{usual}"


def judge(ranks: Sequence[Vitals], after: float | None) -> Stall | None:
    """Whether a gang has stalled, and which rank to look at.

    Args:
        ranks: those that run now.
        after: the silence that the job allows, in seconds; None to go by each rank's rhythm.
    """
    silence = _silence(ranks, after)
    halted = [rank for rank in ranks if rank.process == "stopped"]
    if halted:
        worst = max(halted, key=lambda rank: rank.process_for)
        if silence is not None or worst.process_for >= min(STOPPED, after or STOPPED):
            return Stall(worst.rank, worst.node, worst.process_for, stopped=True)
    return silence


def _silence(ranks: Sequence[Vitals], after: float | None) -> Stall | None:
    judged = [(rank, limit) for rank in ranks if (limit := limit_of(rank, after)) is not None]
    if not judged:
        return None
    if min(rank.quiet for rank in ranks) > max(limit for _, limit in judged):
        worst = _first_silent(judged)
        return Stall(worst.rank, worst.node, worst.quiet, usual=worst.usual, others=len(ranks) - 1)
    missed = [
        (rank, limit)
        for rank, limit in judged
        if rank.usual is not None and rank.quiet > limit and rank.kept >= limit
    ]
    if missed:
        worst = _first_silent(missed)
        return Stall(worst.rank, worst.node, worst.quiet, usual=worst.usual)
    return None


def limit_of(rank: Vitals, after: float | None) -> float | None:
    """How long a rank may be silent, in seconds; None when nothing tells."""
    if after is not None:
        return after
    if rank.usual is None:
        return None
    return max(FLOOR, TIMES_USUAL * rank.usual, TIMES_LONGEST * rank.longest)


def _first_silent(judged: Sequence[tuple[Vitals, float]]) -> Vitals:
    """The rank to look at: one that hangs in the kernel, else the one that kept a rhythm for long and
    fell silent first."""

    def suspicion(item: tuple[Vitals, float]) -> tuple[bool, bool, bool, float, int]:
        rank, limit = item
        rhythm = rank.usual is not None
        return rank.process == "disk", rhythm, rank.kept >= limit, rank.quiet, -rank.rank

    return max(judged, key=suspicion)[0]
