"""The words in which a job's life is told: what it is, what can happen to it, what may be wanted.

Values only; what follows from what is in `jobs.life.lifecycle`, through which they are imported.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from jobs.base.states import JobState
from jobs.wire.views import AttemptState

Phase = Literal["pending", "staged", "running", "stopping", "ended", "gone"]
Ending = Literal["", "failed", "stage", "lost", "cancelled", "timeout", "stalled", "preempted"]


@dataclass(frozen=True, slots=True)
class Allocation:
    """One node's share of an attempt. `staged` is reached only with everything in place to launch.

    `boot`: of the machine that it was staged on (`jobs.life.boots`); empty when nobody knows."""

    node: str
    phase: Phase = "pending"
    outcome: str = ""
    ran: float | None = None  # seconds, as its node counted them; not stored
    boot: str = ""

    @property
    def over(self) -> bool:
        return self.phase in ("ended", "gone")


@dataclass(frozen=True, slots=True)
class Failure:
    """The first thing that went wrong in an attempt. `rank` None: not a rank's doing."""

    node: str
    reason: str
    rank: int | None = None
    at: float = 0.0


@dataclass(frozen=True, slots=True)
class Attempt:
    """`waits`: no lease ends it (`on_node_loss: wait`), so that no time that passes proves that it is
    over."""

    number: int
    epoch: int
    state: AttemptState
    allocations: tuple[Allocation, ...]
    ending: Ending = ""
    failure: Failure | None = None
    placed_at: float = 0.0
    started_at: float | None = None
    ended_at: float | None = None
    released: bool = False
    identity: str = ""  # random; empty for one that an older version placed
    waits: bool = False

    def over_on(self, node: str) -> bool:
        """Whether nothing of it is left on a node, as far as is known."""
        return all(one.over for one in self.allocations if one.node == node)


def stalled(state: str, reason: str) -> bool:
    """Whether a job was found to make no progress: while it runs, that is all there is to say of it. The
    one definition, for the scheduler, the API and every screen."""
    return state == "RUNNING" and bool(reason)


@dataclass(frozen=True, slots=True)
class Job:
    """`endless`: it runs until somebody ends it, so what its nodes do to it never makes it fail."""

    id: int
    state: JobState = "QUEUED"
    reason: str = ""
    cancel: bool = False
    attempt: Attempt | None = None
    attempts: int = 0
    max_restarts: int = 0
    endless: bool = False
    restarts_left: int = 0
    losses: int = 0
    not_before: float = 0.0
    started_at: float | None = None
    ended_at: float | None = None

    @property
    def terminal(self) -> bool:
        return self.state in ("SUCCEEDED", "FAILED", "CANCELLED")

    @property
    def stalled(self) -> bool:
        """It was found to make no progress (`stalled`)."""
        return stalled(self.state, self.reason)


# -- events ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Placed:
    """The scheduler chose nodes, in order of node rank. `epoch` is new and larger than all before;
    `number` is the attempt's, the next one when it is None. `waits`: see `Attempt`."""

    nodes: tuple[str, ...]
    epoch: int
    identity: str = ""
    number: int | None = None
    waits: bool = False


@dataclass(frozen=True, slots=True)
class Granted:
    """The fabric reserved what the placement asked for."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The fabric did not; the job goes back to the queue."""

    reason: str


@dataclass(frozen=True, slots=True)
class Staged:
    """A node has everything in place; nothing runs yet. `boot`: see `Allocation`."""

    epoch: int
    node: str
    boot: str = ""


@dataclass(frozen=True, slots=True)
class StageFailed:
    """`blame`: "node" could have run the job, were it well; another one may."""

    epoch: int
    node: str
    reason: str
    blame: Literal["job", "node"] = "job"


@dataclass(frozen=True, slots=True)
class Reported:
    """What an agent said of its allocation (`jobs.wire.messages.AttemptReport`)."""

    epoch: int
    node: str
    phase: Literal["staged", "running", "stopping", "ended"]
    outcome: str = ""
    reason: str = ""
    first_failed: int | None = None
    first_failed_at: float | None = None
    ran: float | None = None  # seconds, on the node's boot clock; None when nobody has counted


@dataclass(frozen=True, slots=True)
class ClockSet:
    """The wall clock was set on by so many seconds: the times of what runs or waits go along with it, so
    that what is counted from them is what has passed."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Gone:
    """A node's allocation cannot be alive any more: its lease has run out, its machine was restarted, or a
    person has said so.

    `silent` is for how many seconds the node has said nothing; None when nobody knows.
    """

    epoch: int
    node: str
    reason: str
    silent: float | None = None


@dataclass(frozen=True, slots=True)
class Cancel:
    user: str


@dataclass(frozen=True, slots=True)
class Timeout:
    """The job's own time limit is over."""

    limit: float


@dataclass(frozen=True, slots=True)
class Stalled:
    """The gang makes no progress (`jobs.life.stalls`). `action` is what the job wants done about it."""

    epoch: int
    node: str
    reason: str
    action: Literal["warn", "restart", "fail"]


@dataclass(frozen=True, slots=True)
class Unstalled:
    """It goes on."""

    epoch: int


@dataclass(frozen=True, slots=True)
class Retry:
    user: str


@dataclass(frozen=True, slots=True)
class Released:
    """The reservation was given back."""

    epoch: int


Event = (
    Placed | Granted | Refused | Staged | StageFailed | Reported | Gone
    | Cancel | Timeout | Stalled | Unstalled | Retry | Released | ClockSet
)  # fmt: skip


# -- effects --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reserve:
    nodes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Stage:
    node: str
    node_rank: int


@dataclass(frozen=True, slots=True)
class Launch:
    node: str
    node_rank: int


@dataclass(frozen=True, slots=True)
class Stop:
    node: str
    reason: str


@dataclass(frozen=True, slots=True)
class Release:
    epoch: int


Effect = Reserve | Stage | Launch | Stop | Release


@dataclass(frozen=True, slots=True)
class Note:
    """A line for the job's story."""

    kind: str
    message: str
    severity: Literal["info", "warning", "error"] = "info"
    node: str | None = None
    user: str | None = None
