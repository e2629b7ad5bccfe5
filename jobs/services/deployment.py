"""A deployment as data: its releases, its rollout, what may happen to it, and what is then wanted. What
becomes of it is decided in `jobs.services.rollout`."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from jobs.life.vocabulary import Note
from jobs.services.evidence import NONE, UNSEEN, Counts, Evidence
from jobs.services.scaling import Decision, Scale
from jobs.services.shadow import Sources

Target = Literal["staging", "production"]
Phase = Literal["starting", "shadowing", "stepping", "paused", "done", "rolled_back", "aborted"]
ReleaseState = Literal["starting", "live", "warm", "retired"]

OPEN: tuple[Phase, ...] = ("starting", "shadowing", "stepping", "paused")
"""Phases of a rollout that is not over."""

DRAIN = 5.0
"""Seconds between the last request that a release is given and its stop, beside what its own stop takes."""


BLOCK = 10
"""Answers whose truth is known that make a block, if some are of each version. (Truths may come one by one;
their number, and not what they say, ends a block, or the test would not be valid.)"""

TESTS = 3
"""Errors, slow answers and wrong ones: neither test may be wrong, so each has its part of `alpha`."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How a release gets its traffic. Times in seconds.

    Attributes:
        steps: percent of the traffic, rising; none: all of it as soon as it is ready.
        rest: how long each step is watched at least.
        least: requests of the new version that each step must have seen.
        patience: how long a step waits for them before a person is asked.
        ready: how long its replicas may take to be ready.
        warm: how long the version that was replaced stays ready to take the traffic back.
        truths: answers of the new version whose truth each step must have learnt (`qd feedback`).
        alpha: chance, at most, of rolling back a version that is no worse. `TESTS` share it.
        slower: a request is slow when it takes longer than so many times the running version's p95.
        shadow: percent of the requests that are copied to it before its first step; 0: none.
        agree: percent of the rows that must be answered the same for it to go on to its first step; without
            it, a person decides.
    """

    steps: tuple[float, ...] = ()
    rest: float = 60.0
    least: int = 20
    patience: float = 600.0
    ready: float = 300.0
    warm: float = 900.0
    alpha: float = 0.05
    slower: float = 1.5
    truths: int = 0
    shadow: float = 0.0
    agree: float | None = None

    @property
    def level(self) -> float:
        """The chance that each test has. Copies and requests are tested one after the other."""
        return self.alpha / (TESTS * (2 if self.shadow else 1))


@dataclass(frozen=True, slots=True)
class Release:
    """A version as it was deployed. The same version deployed again is another release.

    `replicas`: how many are wanted now. `until`: when a warm one is retired, unix time. `ready`: its
    replicas have all been ready.

    With `scale` it is scaled automatically: `scaled` says since when it has its replicas, or all requests,
    unix time; `capacity` how many requests in progress a replica could not carry in time, which was
    `learned` then; `short` that there is no room for all of its replicas, which was said.
    """

    number: int
    version: str
    replicas: int
    state: ReleaseState = "starting"
    ready: bool = False
    until: float = 0.0
    scale: Scale | None = None
    scaled: float = 0.0
    capacity: float | None = None
    learned: float = 0.0
    short: bool = False
    why: str = ""  # of the last change of `replicas`


@dataclass(frozen=True, slots=True)
class Rollout:
    """One release on its way from no traffic to all of it.

    `step` is the place in `plan.steps`; `since` when the phase or the step began, unix time; `seen`
    requests of the new version in this step, `told` those of its answers whose truth came in this step;
    `edge` seconds above which a request is slow, `far` the error above which a number is wrong; `began`
    when it was asked for, unix time. `block` holds answers, of the old and of the new version, that wait
    until there are enough of both: a block of one version alone is no evidence. `sources` are what copies of
    requests have shown, by who counted them.
    """

    new: int
    old: int | None
    plan: Plan
    phase: Phase = "starting"
    step: int = 0
    since: float = 0.0
    seen: int = 0
    edge: float | None = None
    errors: Evidence = UNSEEN
    slow: Evidence = UNSEEN
    reason: str = ""
    wrong: Evidence = UNSEEN
    told: int = 0
    far: float | None = None
    began: float = 0.0
    block: tuple[Counts, Counts] = (NONE, NONE)
    sources: Sources = field(default_factory=dict)

    @property
    def open(self) -> bool:
        return self.phase in OPEN


@dataclass(frozen=True, slots=True)
class Deployment:
    """A name at a target. `live` is the release that has the traffic which no rollout takes, `previous`
    the one that had it before, to which a rollback goes."""

    id: int
    name: str
    target: Target
    releases: tuple[Release, ...] = ()
    live: int | None = None
    rollout: Rollout | None = None
    removed: bool = False
    previous: int | None = None

    def release(self, number: int | None) -> Release | None:
        return next((item for item in self.releases if item.number == number), None)

    def having(self, release: Release) -> Deployment:
        """The same with this release as it is now."""
        releases = tuple(
            release if item.number == release.number else item for item in self.releases
        )
        return replace(self, releases=releases)

    @property
    def busy(self) -> bool:
        return self.rollout is not None and self.rollout.open


# -- events ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Deployed:
    """A person wants this release to serve. `number` is new, and larger than all before. Without `replicas`
    it is scaled as the version before it, unless it has its own `scale`."""

    number: int
    version: str
    replicas: int | None
    plan: Plan
    user: str
    scale: Scale | None = None


@dataclass(frozen=True, slots=True)
class Ready:
    """All replicas of a release answer."""

    release: int


@dataclass(frozen=True, slots=True)
class Broken:
    """A release that has never been ready cannot become it."""

    release: int
    reason: str


@dataclass(frozen=True, slots=True)
class Observed:
    """Requests that were answered since the last look: how many, how many in error, how many slow.
    `edge` is what is slow, in seconds, where the running version has shown it."""

    old: Counts = NONE
    new: Counts = NONE
    old_slow: Counts = NONE
    new_slow: Counts = NONE
    edge: float | None = None


@dataclass(frozen=True, slots=True)
class Learnt:
    """Answers whose truth has come: how many, how many wrong, of the running version and of `release`. `far`
    is the error above which a number counts as wrong, fixed before any was counted."""

    release: int
    old: Counts = NONE
    new: Counts = NONE
    far: float | None = None


@dataclass(frozen=True, slots=True)
class Shadowed:
    """What replicas of the running version have counted of their copies to `release`, since they began."""

    release: int
    sources: Sources


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""


@dataclass(frozen=True, slots=True)
class Ask:
    """What a person wants of a rollout."""

    what: Literal["pause", "resume", "abort", "promote", "rollback", "remove"]
    user: str


@dataclass(frozen=True, slots=True)
class Scaled:
    """Another number of replicas, as `jobs.services.scaling` decided."""

    release: int
    decision: Decision


@dataclass(frozen=True, slots=True)
class Short:
    """There is no room for all replicas of a release, and why; without a reason: there is again."""

    release: int
    reason: str


@dataclass(frozen=True, slots=True)
class Rescale:
    """A person sets how many replicas there are: by bounds, or, without them, a number."""

    scale: Scale | None
    replicas: int
    user: str


Event = (
    Deployed | Ready | Broken | Observed | Learnt | Shadowed | Tick | Ask | Scaled | Short | Rescale
)


@dataclass(frozen=True, slots=True)
class Result:
    deployment: Deployment
    notes: tuple[Note, ...] = ()


@dataclass(frozen=True, slots=True)
class Wants:
    """What should be true now.

    `replicas`: how many of each release; a release that is not in it has none. `share`: percent of the
    traffic for `candidate`; the rest is for `stable`. `copies`: percent of the requests that `stable`
    answers and `shadow` gets a copy of.
    """

    replicas: dict[int, int]
    stable: int | None
    candidate: int | None
    share: float
    shadow: int | None = None
    copies: float = 0.0
