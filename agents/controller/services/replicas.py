"""The replicas of services: a job for each that is wanted, and none for others, which are drained first."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from sqlmodel import Session

from agents.controller.core.live import Live
from agents.controller.services.front import Front, Plant
from agents.controller.services.kept import Kept
from agents.controller.services.patience import Patience
from jobs.base.errors import Conflict
from jobs.base.names import SERVICE_PORT, job_name
from jobs.base.states import TERMINAL
from jobs.services import resize
from jobs.services import rollout as ro
from jobs.services.front import Replica, Service, asked_of, backend_name
from jobs.services.keys import Policy
from jobs.spec.job import JobSpec
from jobs.store import services as store
from jobs.store.entering import Entered
from jobs.store.services import Held
from jobs.store.writing import Caller

GIVE_UP = 3
"""A replica that has died so often, each time soon after its start, will not become ready."""


@dataclass(frozen=True, slots=True)
class Replicas:
    """`apply` lets the rollout's machine know; `policy` gives the keys of a service; `wake` asks for
    another look soon."""

    plant: Plant
    front: Front
    apply: Callable[[Kept, ro.Event], Awaitable[None]]
    policy: Callable[[Kept], Policy]
    wake: Callable[[], None]

    async def look(self, kept: Kept) -> None:
        """Start what is wanted and not there, and stop what is there and not wanted."""
        wanted = ro.wants(kept.deployment).replicas
        stay = self.staying(kept)
        free = not wanted or self._shifted(kept)
        for one in kept.held:
            place = (one.release, one.slot)
            if place in stay:
                continue
            if one.state in TERMINAL or (
                self._drained(kept, one) if one.release in wanted else free
            ):
                await self._remove(kept, one)
                kept.patience.pop(place, None)
        for release, count in wanted.items():
            mine = [one for one in kept.held if one.release == release]
            staying = [one for one in mine if (release, one.slot) in stay]
            for one in staying:
                if one.state in TERMINAL:
                    await self._again(kept, one)
            taken = {one.slot for one in mine}
            for slot in resize.places(count - len(staying), taken):
                await self._add(kept, release, slot)

    def staying(self, kept: Kept) -> set[tuple[int, int]]:
        """Release and slot of those that are wanted, of those that there are: first what answers."""
        found = set()
        for release, count in ro.wants(kept.deployment).replicas.items():
            mine = [one for one in kept.held if one.release == release]
            standings = {one.slot: self._standing(kept, one) for one in mine}
            found |= {(release, slot) for slot in resize.chosen(standings, count)}
        return found

    def _standing(self, kept: Kept, one: Held) -> resize.Standing:
        live = self.plant.reconciler.live.get(one.job)
        if one.state in TERMINAL or live is None:
            return "over"
        if live.job.cancel:
            return "stopping"
        if one.state != "RUNNING" or live.job.attempt is None:
            return "coming"
        servers = self.front.said.get("servers", {}).get(backend_name(kept.number, one.release), {})
        return "ready" if servers.get(server_name(live)) else "running"

    def _shifted(self, kept: Kept) -> bool:
        """Whether the front sends nothing any more to replicas that are not wanted, and has had the time
        to finish what it had sent.

        A clock alone does not tell: a controller that was killed before it could write to the front
        finds a version due to be retired that still has all of the traffic.
        """
        if not self.does(kept):
            kept.shifted_at = None
            return False
        now = self.plant.monotonic()
        if kept.shifted_at is None:
            kept.shifted_at = now
        return now - kept.shifted_at >= ro.DRAIN

    def _drained(self, kept: Kept, one: Held) -> bool:
        """Whether no request can be lost when a replica of a version that serves is stopped."""
        live = self.plant.reconciler.live.get(one.job)
        if live is None or one.state != "RUNNING":
            return True
        leaving = self.front.said.get("leaving", {}).get(backend_name(kept.number, one.release), [])
        return self.does(kept) and server_name(live) not in leaving

    def does(self, kept: Kept) -> bool:
        """Whether the front does what is asked for a service."""
        return kept.policy is not None and self.front.does(asked_of(self.asked(kept)))

    async def _again(self, kept: Kept, one: Held) -> None:
        """Another job for a replica whose job has ended, when it is time for it."""
        patience = kept.patience.setdefault((one.release, one.slot), Patience())
        may = patience.may_again(one.job, one.ran, self.plant.monotonic())
        release = kept.deployment.release(one.release)
        if release is not None and not release.ready and patience.deaths >= GIVE_UP:
            reason = one.reason or f"it ended as {one.state}"
            await self.apply(kept, ro.Broken(one.release, f"{job_name(one.job)}: {reason}"))
        elif may:
            await self._add(kept, one.release, one.slot)

    async def _add(self, kept: Kept, release: int, slot: int) -> None:
        now, row = self.plant.now(), kept.releases[release]

        def write(session: Session) -> tuple[JobSpec, Entered]:
            return store.add_replica(session, kept.row, row, slot, now)

        spec, entered = await self.plant.database.write(write)
        self.plant.entered(entered, spec)
        self.wake()

    async def _remove(self, kept: Kept, one: Held) -> None:
        if one.state in TERMINAL:
            await self.plant.database.write(
                lambda session: store.drop_replica(session, kept.number, one.release, one.slot)
            )
            return
        live = self.plant.reconciler.live.get(one.job)
        if live is None or live.job.cancel:
            return
        with contextlib.suppress(Conflict):  # it has ended meanwhile
            who = Caller(f"service {kept.row.name}", kept.row.uid)
            await self.plant.reconciler.cancel(one.job, who)

    def asked(self, kept: Kept) -> Service:
        """What is asked of the front for a service."""
        wanted, stay = ro.wants(kept.deployment).replicas, self.staying(kept)
        replicas: dict[int, list[Replica]] = {release: [] for release in wanted}
        for one in kept.held:
            live = self.plant.reconciler.live.get(one.job)
            if live is None or (one.release, one.slot) not in stay or live.job.cancel:
                continue
            attempt = live.job.attempt
            if live.job.state != "RUNNING" or attempt is None or live.port is None:
                continue
            address = self.plant.address(attempt.allocations[0].node)
            host = f"[{address}]" if ":" in address else address
            replicas[one.release].append(
                Replica(server_name(live), f"{host}:{live.port + SERVICE_PORT}")
            )
        ready = {release: kept.spec(release).ready for release in wanted}
        return Service(
            kept.deployment,
            kept.row.bind,
            kept.row.port,
            ready,
            replicas,
            self.policy(kept),
            kept.row.tls,
        )


def server_name(live: Live) -> str:
    """What the front calls a replica."""
    assert live.job.attempt is not None
    return f"e{live.job.attempt.epoch}"
