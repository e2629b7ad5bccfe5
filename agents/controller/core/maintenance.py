"""The head's maintenance: what is in force, what was granted ahead, and when both are over.

While it is in force, every lease is granted up to its end (`jobs.life.outages`), nothing is given up
and nothing is placed. It is in the registry before the first such lease is granted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from sqlmodel import Session

from agents.controller.core.live import Live
from agents.controller.nodes.links import Link
from agents.controller.stores.database import Database
from agents.controller.stores.hub import Hub
from jobs.base.names import job_name
from jobs.base.times import rfc3339
from jobs.life.lifecycle import Note
from jobs.life.outages import Ahead
from jobs.store import maintenance, writing
from jobs.store.maintenance import Record, Window
from jobs.wire.views import EventView, MaintenanceView


class Maintenance:
    """Args:
    now: unix time. monotonic: a clock that never jumps. Both in seconds.
    """

    def __init__(
        self,
        database: Database,
        hub: Hub,
        now: Callable[[], float],
        monotonic: Callable[[], float],
    ) -> None:
        self._db, self._hub, self._now, self._monotonic = database, hub, now, monotonic
        self._record: Record = {"longest": 0.0, "window": None}
        self._over = 0.0  # when the last lease that was granted ahead is but the job's own
        self.ahead = Ahead()

    async def load(self) -> None:
        """Go on with what the registry has."""
        self._record = await self._db.read(maintenance.read)
        now, longest, window = self._monotonic(), self._record["longest"], self._record["window"]
        left = 0.0
        if window is not None:  # however the wall clock was set meanwhile
            left = min(max(0.0, window["until"] - self._now()), window["seconds"])
        self.ahead, self._over = Ahead.resumed(now, longest, left), now + longest

    @property
    def window(self) -> Window | None:
        """What is in force."""
        return self._record["window"] if self.in_force else None

    @property
    def in_force(self) -> bool:
        return self.ahead.in_force(self._monotonic())

    def longer(self) -> float:
        """Seconds that leases are longer now than the jobs' own."""
        return self.ahead.longer(self._monotonic())

    def begin(self, session: Session, window: Window) -> Callable[[], None]:
        """Store that it begins; what is given makes it so, once that is committed."""
        seconds = window["seconds"]
        record = Record(longest=max(self._record["longest"], seconds), window=window)
        maintenance.write(session, record)

        def begun() -> None:
            now = self._monotonic()
            self._record, self.ahead = record, self.ahead.begun(now, seconds)
            self._over = max(self._over, now + seconds)

        return begun

    def end(self, session: Session) -> Callable[[], None]:
        """The same of its end."""
        record = Record(longest=self._record["longest"], window=None)
        maintenance.write(session, record)

        def ended() -> None:
            self._record, self.ahead = record, self.ahead.ended(self._monotonic())

        return ended

    async def tick(self) -> bool:
        """Note that it has ended by itself, and when nothing of it is left to reckon with; whether it has
        ended just now."""
        if self._record["window"] is not None and not self.in_force:
            await self._end_by_itself()
            return True
        if self._record["longest"] and self._monotonic() > self._over and not self.in_force:
            record = Record(longest=0.0, window=None)
            await self._db.write(lambda session: maintenance.write(session, record))
            self._record = record
        return False

    async def _end_by_itself(self) -> None:
        now = self._now()

        def write(session: Session) -> tuple[Callable[[], None], list[EventView]]:
            note = Note("maintenance.ended", "the head's maintenance is over: its time is up")
            return self.end(session), writing.add_events(session, None, [note], now)

        ended, events = await self._db.write(write)
        ended()
        self._hub.announce(events)

    def view(
        self, attempts: int, unanswered: Mapping[str, Iterable[str]]
    ) -> MaintenanceView | None:
        """What is in force, as the API says it.

        Args:
            attempts: how many run.
            unanswered: nodes that have not confirmed their leases, with the jobs there.
        """
        window = self.window
        if window is None:
            return None
        return {
            "since": rfc3339(window["since"]),
            "until": rfc3339(window["until"]),
            "left": round(self.longer(), 1),
            "reason": window["reason"],
            "user": window["user"],
            "attempts": attempts,
            "unanswered": [
                {"node": node, "jobs": list(jobs)} for node, jobs in sorted(unanswered.items())
            ],
        }


def unconfirmed(
    holding: Iterable[Live], links: Mapping[str, Link], cluster: str, until: float
) -> dict[str, list[str]]:
    """Nodes that have not confirmed that leases there last up to `until`, each with the jobs that run
    there."""
    found: dict[str, list[str]] = {}
    for live in holding:
        attempt = live.job.attempt
        if attempt is None or attempt.started_at is None:
            continue
        key = live.key(cluster)
        for allocation in attempt.allocations:
            link = links.get(allocation.node)
            confirmed = link.confirmed.get(key, 0.0) if link is not None else 0.0
            if not allocation.over and confirmed < until:
                found.setdefault(allocation.node, []).append(job_name(live.job.id))
    return found
