"""After a restore: jobs of which copies may run that the registry does not know."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from agents.controller.core import deadlines
from agents.controller.core.clock import Clock
from agents.controller.core.live import Live
from agents.controller.core.maintenance import Maintenance
from agents.controller.core.roster import Roster
from agents.controller.stores.database import Database
from jobs.store import writing

FOREVER = 10 * 365 * 86_400.0
STRAY_HELD = 15.0
"""Seconds for which a job is not placed after a node has said that it holds a copy of it. An agent
answers every five."""
_HELD = (
    "the registry was restored: a copy of it that began after the backup may still run, until its lease "
    "must be over"
)
_HELD_FOREVER = (
    "the registry was restored: a copy of it that began after the backup may still run, and under "
    "on_node_loss: wait nothing ends it. When none does, cancel it and submit it again"
)


class Doubts:
    """Which jobs are not placed yet, and why.

    Args:
        waits: whether no lease ends an attempt of a job that is placed now.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        roster: Roster,
        maintenance: Maintenance,
        waits: Callable[[Live], bool],
    ) -> None:
        self._db, self._clock, self._roster = database, clock, roster
        self._maintenance, self._waits = maintenance, waits
        self._found = 0  # the highest number of a job that was there before this controller began
        self._distrusted = False  # the registry may lack attempts that run
        self._doubted = (0, 0)  # the same of what waits, whichever controller found out

    async def load(self, *, restored: bool) -> None:
        """Before any job is taken up. `restored`: the registry is older than what was written last."""
        self._distrusted = restored
        self._found = await self._db.read(writing.newest_job)
        self._doubted = await self._db.read(writing.doubted)

    def take_up(self, live: Live) -> None:
        if self._distrusted:
            self._doubt(live)
        self._hold_what_waits(live)

    def distrust(self) -> bool:
        """The registry is older than what was written last: attempts may run that it does not know of,
        also on nodes that were not heard yet. No job that it has is placed before their leases, which
        nobody has renewed since this controller began, must be over. Gives whether that is news."""
        news, self._distrusted = not self._distrusted, True
        if news:
            for live in self._roster.live.values():
                self._doubt(live)
                if live.job.id <= self._found:
                    attempt = live.job.attempt
                    epoch = attempt.epoch if attempt is not None else 0
                    self._doubted = (
                        max(self._doubted[0], live.job.id),
                        max(self._doubted[1], epoch),
                    )
            for live in self._roster.live.values():
                self._hold_what_waits(live)
        return news

    def hold(self, live: Live) -> None:
        """Do not place a job yet: a copy of it may run."""
        now, begun = self._clock.now(), self._clock.begun - self._clock.offset
        ahead = self._maintenance.ahead.bound(None, begun, live.spec.lease)
        bound = ahead + self._clock.offset + live.spec.grace + deadlines.LEASE_MARGIN
        live.held_until = max(live.held_until, bound, now + STRAY_HELD)
        self._roster.index(live)

    def held(self, live: Live) -> str:
        """Why it is not placed because a copy of it may run; empty when none may."""
        left = live.held_until - self._clock.now()
        if left <= 0.0:
            return ""
        return _HELD_FOREVER if left > FOREVER / 2 else _HELD

    def reasons(self, waiting: Iterable[int]) -> dict[int, str]:
        """The same of those jobs that are held."""
        lives = {number: self._roster.live.get(number) for number in waiting}
        return {n: held for n, live in lives.items() if live and (held := self.held(live))}

    def _doubt(self, live: Live) -> None:
        if live.job.id <= self._found:
            live.doubtful = True
            self.hold(live)

    def _hold_what_waits(self, live: Live) -> None:
        """No time is enough for a copy to end that nobody knows of, and that no lease ends."""
        job, epoch = self._doubted
        attempt = live.job.attempt
        if not self._waits(live) or live.job.id > job or (attempt and attempt.epoch > epoch):
            return
        live.held_until = self._clock.now() + FOREVER
        self._roster.index(live)
