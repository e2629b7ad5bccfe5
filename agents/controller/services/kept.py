"""What is known of one deployment: as the registry holds it, and what was seen of it since."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from agents.controller.services.patience import Patience
from jobs.services import keys as apikeys
from jobs.services import rollout as ro
from jobs.services.front import Baseline
from jobs.services.measuring import History
from jobs.services.scaling import Look
from jobs.services.spec import ServiceSpec
from jobs.store.services import Held
from jobs.store.servicetables import DeploymentRow, ReleaseRow


@dataclass(slots=True)
class Kept:
    """A deployment as the registry holds it: it changes only after a write has returned."""

    row: DeploymentRow
    deployment: ro.Deployment
    baseline: Baseline
    releases: dict[int, ReleaseRow]
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    learning: asyncio.Lock = field(default_factory=asyncio.Lock)
    held: list[Held] = field(default_factory=list)
    patience: dict[tuple[int, int], Patience] = field(default_factory=dict)  # (release, slot)
    policy: apikeys.Policy | None = None  # None: it is to be read anew
    keys_changed: int = 0
    histories: dict[int, History] = field(default_factory=dict)  # by release, those that are scaled
    looks: dict[int, Look] = field(default_factory=dict)
    short_since: dict[int, float] = field(default_factory=dict)  # monotonic
    shifted_at: float | None = None  # since when the front does what is asked, monotonic

    @property
    def number(self) -> int:
        assert self.row.id is not None
        return self.row.id

    def spec(self, release: int) -> ServiceSpec:
        return ServiceSpec.from_json(self.releases[release].spec)


@dataclass(frozen=True, slots=True)
class Address:
    """Where a service answers, whether it is a version of a model, and a key that opens it."""

    host: str
    port: int
    is_model: bool
    key: str | None = field(repr=False)
    sha256: str | None  # of its certificate, where it speaks TLS


@dataclass(frozen=True, slots=True)
class Serving:
    """A deployment that serves, by its live version. `since`: when that was deployed, unix time; `held`:
    jobs that are its replicas."""

    row: DeploymentRow
    version: str
    spec: ServiceSpec
    since: float
    held: frozenset[int]

    @property
    def key(self) -> str:
        return f"{self.row.name}@{self.row.target}"


def serving(kept: Kept) -> Serving | None:
    """What it serves by now; None when that is nothing."""
    number = kept.deployment.live
    release = kept.deployment.release(number)
    if number is None or release is None or kept.deployment.removed:
        return None
    jobs = frozenset(one.job for one in kept.held if one.release == number)
    since = kept.releases[number].created_at
    return Serving(kept.row, release.version, kept.spec(number), since, jobs)
