"""A job that is not over, as the reconciler holds it in memory. Finished jobs cost none."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from jobs.base.names import AttemptKey
from jobs.life.lifecycle import Job
from jobs.placement.scheduling import Request, Running, Shape, Share
from jobs.spec.job import JobSpec
from jobs.wire import messages as wire
from jobs.wire.views import JobView


@dataclass(slots=True)
class Live:
    """`job` is always what the registry holds: it changes only after a write has returned."""

    job: Job
    view: JobView
    spec: JobSpec
    user: str
    name: str
    submitted_at: float
    snapshot: str | None
    uid: int = 0  # of who submitted it
    token: str = ""
    image: str = ""  # digest of its container image, once a node has resolved the name
    newest: int = 0  # the highest attempt number that logs or nodes know of
    held_until: float = 0.0  # not placed before: copies of it may run that this registry never gave
    doubtful: bool = False  # more may have become of its attempt than the registry knows
    running_since: float = 0.0  # this process's monotonic clock: when it saw the attempt RUNNING
    clocked: bool = True  # its start is known as the clock goes now; see `Reconciler._clock`
    moved: float = 0.0  # seconds the wall clock was set on since the job's times were taken
    grace: float | None = None  # asked for with a cancel, instead of the spec's
    port: int | None = None  # MASTER_PORT of the attempt, from node rank 0
    detail: str = ""  # what staging is doing, for people
    stall: str = ""  # which rank of the running gang has been silent for how long by now
    reports: dict[str, wire.AttemptReport] = field(default_factory=dict)  # node -> last one stored
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    reporting: asyncio.Lock = field(default_factory=asyncio.Lock)  # one report at a time
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    driver: asyncio.Task[None] | None = None
    shape: Shape = field(init=False)
    _request: Request | None = None
    _running: Running | None = None
    _counted: tuple[object, ...] = ()  # what `_running` was made of

    def __post_init__(self) -> None:
        self.shape = self.spec.shape()

    @property
    def waiting(self) -> bool:
        """It may be placed: queued, and nothing of an earlier attempt is left to give back."""
        attempt = self.job.attempt
        return self.job.state == "QUEUED" and (attempt is None or attempt.released)

    @property
    def holding(self) -> bool:
        """It holds capacity now."""
        attempt = self.job.attempt
        return attempt is not None and not attempt.released

    @property
    def epoch(self) -> int:
        """Of its attempt, which it must have."""
        assert self.job.attempt is not None
        return self.job.attempt.epoch

    def key(self, cluster: str) -> str:
        assert self.job.attempt is not None
        attempt = self.job.attempt
        return str(AttemptKey(cluster, self.job.id, attempt.number, self.token, attempt.identity))

    def request(self) -> Request:
        """What it asks of the scheduler; kept, since a long queue is asked each second."""
        not_before = max(self.job.not_before + self.moved, self.held_until)
        if self._request is None or self._request.not_before != not_before:
            self._request = Request(
                job=self.job.id,
                shape=self.shape,
                priority=self.spec.priority,
                arrival=self.submitted_at,
                user=self.user,
                timeout=self.spec.timeout,
                not_before=not_before,
            )
        return self._request

    @property
    def ends_by(self) -> float | None:
        """When its timeout ends it, as the clock goes now; None without one, or while nothing runs."""
        attempt, timeout = self.job.attempt, self.spec.timeout
        if attempt is None or attempt.started_at is None or timeout is None:
            return None
        return attempt.started_at + self.moved + timeout

    def running(self) -> Running:
        """What it holds, for the scheduler. One that is over holds nothing any more, but its
        reservation stays until the whole gang is released, so it counts until then. Kept, as the
        request is."""
        attempt = self.job.attempt
        assert attempt is not None
        told = [self.reports.get(one.node) for one in attempt.allocations]
        counted = (attempt, self.moved, told)
        if self._running is None or self._counted != counted:
            shape, shares = self.shape, {}
            for allocation, report in zip(attempt.allocations, told, strict=True):
                known = tuple(report["gpus"]) if report and report["epoch"] == attempt.epoch else ()
                shares[allocation.node] = Share(shape.cpus, shape.gpus, shape.memory, known)
            self._counted = counted
            self._running = Running(
                job=self.job.id,
                node_shares=shares,
                priority=self.spec.priority,
                ends_by=self.ends_by,
            )
        return self._running
