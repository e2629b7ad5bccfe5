"""What the API says of services: more shapes like those of `jobs/wire/views.py`."""

from __future__ import annotations

from typing import (
    Literal,
    NotRequired,  # pydantic needs this one before Python 3.12
)

from typing_extensions import TypedDict

from jobs.wire.monitorviews import OnlineView

TargetName = Literal["staging", "production"]
RolloutPhase = Literal[
    "starting", "shadowing", "stepping", "paused", "done", "rolled_back", "aborted"
]


class VersionView(TypedDict):
    """A release that has replicas. Times are seconds; requests are counted since the front began."""

    release: int
    version: str
    state: str  # starting, live, warm
    traffic: float  # percent
    replicas: int
    healthy: int
    jobs: list[str]
    requests: int
    errors: int
    p50: float | None
    p95: float | None
    p99: float | None
    online: NotRequired[OnlineView]  # where truths are known (`qd feedback`)


class ComparedView(TypedDict):
    """Requests of two versions that were looked at, and how many of them were bad."""

    old_seen: int
    old_bad: int
    new_seen: int
    new_bad: int
    e_value: float  # how far the evidence goes against the new version
    limit: float  # the e-value at which it is rolled back


class OutputView(TypedDict):
    """One output of both versions, for copies of requests."""

    name: str
    rows: int
    same: int
    mean: float | None  # distance of two numbers
    most: float | None


class ShadowView(TypedDict):
    """What copies of requests have shown. Times are seconds inside the model server."""

    percent: float  # of the requests
    copies: int  # that were answered, or failed
    dropped: int  # that were never sent
    agree: float | None  # share of rows that are the same
    wanted: float | None  # percent of them that ends it automatically
    outputs: list[OutputView]
    old_p50: float | None
    old_p95: float | None
    new_p50: float | None
    new_p95: float | None


class RolloutView(TypedDict):
    version: str
    before: str | None
    phase: RolloutPhase
    steps: list[float]
    step: int
    share: float
    since: str
    seen: int
    least: int
    reason: str
    errors: ComparedView
    slow: ComparedView
    edge: float | None  # seconds from which a request is slow
    truths: int  # answers whose truth this step must have learnt
    told: int  # and has
    wrong: ComparedView  # answers whose truth is known, and those that are wrong
    far: float | None  # error from which a number is wrong
    shadow: NotRequired[ShadowView]  # where it began as one


class ScalingView(TypedDict):
    """How the version that serves is scaled automatically. Times are seconds."""

    version: str
    min: int
    max: int
    concurrency: float  # requests in progress for each replica
    latency: float | None
    quiet: float
    idle: float
    hold: float
    queue: int
    replicas: int  # wanted now
    ready: int
    load: float | None  # requests in progress, averaged over the last seconds
    held: int  # requests that wait for the first replica
    since: str  # when `replicas` changed
    reason: str  # of that
    blocked: str  # why a replica waits for room


class DeploymentView(TypedDict):
    """One row of `qd deployments`."""

    name: str
    target: TargetName
    user: str
    url: str
    live: str | None
    versions: list[VersionView]
    rollout: RolloutView | None
    changed_at: str
    keyed: bool  # requests need an API key
    certificate_until: str | None  # of a service behind TLS, when the front has one
    settled: bool  # the front does what is decided
    problem: str
    scaling: ScalingView | None  # None: a fixed number of replicas


class KeyView(TypedDict):
    """An API key of a service; the key itself is nowhere."""

    service: str
    target: TargetName
    name: str
    rate: str | None  # as `100/s` or `600/min`
    user: str
    created_at: str
    revoked_at: str | None


class NewKeyView(KeyView):
    """One that was just given out: the only time that the key is shown."""

    key: str


class PredictView(TypedDict):
    """An answer that a service gave."""

    status: int
    type: str
    seconds: float
    body: str
