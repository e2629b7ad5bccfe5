"""The controller's clock, and the times of jobs that go along when it is set.

What counts seconds must not believe in an hour that never was: limits, back-offs and run times are counted
from stored moments of the wall clock, which people and time servers set.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from agents.controller.core.live import Live
from agents.controller.core.roster import Roster
from jobs.life import lifecycle as lc
from jobs.wire import messages as wire

log = logging.getLogger(__name__)

SET = 1.0
"""Seconds that the wall clock may gain on the monotonic one before it counts as set."""


class Clock:
    """Unix time, as long as the controller runs.

    Attributes:
        offset: what the wall clock is ahead of the monotonic one, seconds.
        begun: when this controller began, as the wall clock goes now.
        monotonic: seconds since some moment, which nobody sets.
    """

    def __init__(
        self, wall: Callable[[], float], monotonic: Callable[[], float], roster: Roster
    ) -> None:
        self._wall, self.monotonic, self._roster = wall, monotonic, roster
        self.offset = wall() - monotonic()
        self.begun = self.now()

    def now(self) -> float:
        """Unix time. When the clock was set, the times that jobs wait for or end at go along with it."""
        now = self._wall()
        moved = now - self.monotonic() - self.offset
        if abs(moved) > SET:
            log.warning("the clock was set by %+.0f s", moved)
            self.offset += moved
            self.begun += moved
            for live in self._roster.live.values():
                live.moved += moved
                live.held_until += moved if live.held_until else 0.0
                self._roster.index(live)
        return now

    def stored(self) -> float:
        """Unix time as the stored times of jobs go: as of the last time that somebody looked at the clock."""
        return self.monotonic() + self.offset

    def take_up(self, live: Live) -> None:
        """A job that was stored by an earlier controller, perhaps before the clock was set."""
        live.clocked = not runs(live.job)
        if live.clocked:
            # It waits no longer than it was meant to, should the clock have been set while we were away.
            live.moved = min(0.0, self.now() + lc.RESTART_BACKOFF[-1] - live.job.not_before)

    def heed(self, live: Live, report: wire.AttemptReport) -> bool:
        """Take the start of what ran before this controller began from its node, which counts on a clock
        that nobody sets: ours may have been set while no controller ran. What has ended says nothing of
        when that was. Gives whether the job's times have moved."""
        attempt = live.job.attempt
        if live.clocked or attempt is None or attempt.started_at is None:
            return False
        live.clocked = True
        ran = [rank["ran"] for rank in report["ranks"] if "ran" in rank]
        moved = self.now() - max(ran) - attempt.started_at if ran else 0.0
        if report["state"] == "ended" or abs(moved) <= SET:
            return False
        live.moved = moved
        self._roster.index(live)
        return True

    def to_store(self) -> list[Live]:
        """Jobs whose stored times are no longer those of the clock."""
        self.now()
        return [live for live in self._roster.live.values() if live.moved and _timed(live.job)]


def runs(job: lc.Job) -> bool:
    attempt = job.attempt
    return attempt is not None and attempt.started_at is not None and attempt.ended_at is None


def times(job: lc.Job) -> tuple[float, float | None]:
    """What its waits and limits are counted from, as the clock went then."""
    return job.not_before, job.attempt.started_at if job.attempt else None


def _timed(job: lc.Job) -> bool:
    """Whether there is a time that goes along with the clock."""
    return runs(job) or (job.state == "QUEUED" and job.not_before > 0)
