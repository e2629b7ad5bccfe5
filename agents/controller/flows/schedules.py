"""All schedules of a controller: one loop that fires those whose moment has come."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from sqlmodel import Session

from agents.controller.flows.flowrun import Plant
from agents.controller.flows.flows import Flows
from agents.controller.stores.secretstore import SecretStore
from agents.loops import each, loop, woken
from jobs.flows.schedules import Schedule
from jobs.flows.spec import PipelineSpec
from jobs.spec.command import Scalar
from jobs.store import schedulewriting, writing
from jobs.store.flowtables import ScheduleRow
from jobs.store.schedulewriting import Fired
from jobs.store.writing import Caller
from jobs.wire.flowviews import ScheduleView

log = logging.getLogger(__name__)

TICK = 1.0
"""Seconds between two looks at the clock, which may be set."""


class Schedules:
    """Level-triggered: a moment that is due is due until it is recorded.

    Args:
        secrets: values for the steps that ask for them, as long as the schedule is there.
    """

    def __init__(self, plant: Plant, flows: Flows, secrets: SecretStore) -> None:
        self._plant, self._flows, self._secrets = plant, flows, secrets
        self._next: dict[int, float] = {}  # when to look at each that is not paused, unix time
        self._wake = asyncio.Event()

    async def load(self) -> None:
        for row in await self._plant.database.read(schedulewriting.every):
            if not row.paused and row.id is not None:
                self._next[row.id] = 0.0

    async def run(self) -> None:
        """Fire, for ever."""
        await loop("schedules", self._turn, self._rest, partial(self._plant.tell, "schedules"))

    async def _rest(self) -> None:
        await woken(self._wake, TICK)

    async def _turn(self) -> None:
        """Fire what is due. One that cannot be fired keeps no other from its time."""
        self._wake.clear()
        now = self._plant.now()
        due = [number for number, at in self._next.items() if at <= now]
        await each("schedules", [partial(self._fire, number) for number in due])

    async def _fire(self, number: int) -> None:
        now = self._plant.now()

        def write(session: Session) -> Fired | None:
            return self._with_secrets(number, schedulewriting.fire(session, number, now))

        if await self._plant.database.read(lambda session: schedulewriting.idle(session, number)):
            self._next[number] = now
            return
        fired = await self._plant.database.write(write)
        if fired is None:
            self._next.pop(number, None)
            return
        self._next[number] = fired.next
        self._after(fired)

    def _with_secrets(self, number: int, fired: Fired | None) -> Fired | None:
        """Give the pipelines that start their secrets, before the commit: see `submitting`."""
        values = self._secrets.load(number) if fired is not None and fired.started else {}
        for pipeline in fired.started if fired is not None else ():
            self._plant.stores.secrets.save(pipeline, values)
        return fired

    def _after(self, fired: Fired) -> None:
        for pipeline in (*fired.started, *fired.stopped):
            self._flows.begin(pipeline)
        self._plant.hub.announce(fired.events)

    # -- what people ask ----------------------------------------------------------------------------

    async def add(
        self,
        name: str,
        schedule: Schedule,
        spec: PipelineSpec,
        params: Mapping[str, Scalar],
        code: Mapping[str, Mapping[str, Any]],
        who: Caller,
        *,
        secrets: Mapping[str, str],
        manifests: Mapping[str, tuple[int, int]],
    ) -> ScheduleView:
        """Record a schedule.

        Args:
            manifests: files and bytes of each snapshot in `code`.

        Raises:
            Conflict: there is one of this name.
        """
        now = self._plant.now()

        def write(session: Session) -> tuple[int, ScheduleView]:
            for digest, size in manifests.items():
                writing.save_snapshot(session, digest, *size, now)
            row = schedulewriting.add(session, name, schedule, spec, params, code, who, now)
            assert row.id is not None
            self._secrets.save(row.id, dict(secrets))
            return row.id, schedulewriting.view(session, row, now)

        number, view = await self._plant.database.write(write)
        self._next[number] = 0.0
        self._wake.set()
        return view

    async def pause(self, name: str, who: Caller) -> ScheduleView:
        """Fire no more; what runs goes on."""

        def change(_session: Session, row: ScheduleRow, _now: float) -> None:
            row.paused = True

        return await self._steer(name, who, "schedule.pause", change)

    async def resume(self, name: str, who: Caller) -> ScheduleView:
        """Fire again, from now on: moments of the pause do not count as missed."""

        def change(session: Session, row: ScheduleRow, now: float) -> None:
            wanted = Schedule.from_json(row.schedule)
            row.paused, row.seen = False, schedulewriting.from_now_on(session, wanted, now)

        return await self._steer(name, who, "schedule.resume", change)

    async def fire_now(self, name: str, who: Caller) -> ScheduleView:
        """Start its pipeline once more, now."""
        now = self._plant.now()

        def write(session: Session) -> tuple[Fired, ScheduleView]:
            row = schedulewriting.get(session, name)
            fired = schedulewriting.fire_now(session, row, who, now)
            self._with_secrets(row.id or 0, fired)
            schedulewriting.record(session, row, who, "schedule.run", now, {})
            return fired, schedulewriting.view(session, row, now)

        fired, view = await self._plant.database.write(write)
        self._after(fired)
        return view

    async def remove(self, name: str, who: Caller) -> ScheduleView:
        """Delete a schedule; the pipelines that it started stay."""
        now = self._plant.now()

        def write(session: Session) -> tuple[int, ScheduleView]:
            row = schedulewriting.get(session, name)
            view = schedulewriting.view(session, row, now)
            schedulewriting.record(session, row, who, "schedule.remove", now, {})
            schedulewriting.remove(session, row)
            return row.id or 0, view

        number, view = await self._plant.database.write(write)
        self._next.pop(number, None)
        self._secrets.drop(number)
        return view

    async def _steer(
        self,
        name: str,
        who: Caller,
        action: str,
        change: Callable[[Session, ScheduleRow, float], None],
    ) -> ScheduleView:
        now = self._plant.now()

        def write(session: Session) -> tuple[int, ScheduleView]:
            row = schedulewriting.get(session, name)
            change(session, row, now)
            session.add(row)
            schedulewriting.record(session, row, who, action, now, {})
            session.flush()
            return row.id or 0, schedulewriting.view(session, row, now)

        number, view = await self._plant.database.write(write)
        self._next[number] = 0.0
        self._wake.set()
        return view
