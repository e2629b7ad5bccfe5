"""The reconciler: what is stored, what is wanted, and the loop that closes the gap.

Level-triggered: a wake-up is only a hint to look again. Decisions are the pure functions of
`jobs.life.lifecycle` and `jobs.placement.scheduling`; this module stores them and then lets
`effects.Performer` act.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Any

from sqlalchemy import Row
from sqlmodel import Session

from agents.controller.core import deadlines
from agents.controller.core.carrying import Carrier
from agents.controller.core.clock import Clock, times
from agents.controller.core.copying import Copier
from agents.controller.core.doubts import Doubts
from agents.controller.core.effects import Performer
from agents.controller.core.live import Live
from agents.controller.core.losses import Losses
from agents.controller.core.maintenance import Maintenance
from agents.controller.core.planner import Planner
from agents.controller.core.roster import Holdings, Roster
from agents.controller.nodes.cluster import Binding, Cluster
from agents.controller.nodes.fabric import Fabric
from agents.controller.nodes.links import Links
from agents.controller.stores.blobs import BlobStore
from agents.controller.stores.database import Database
from agents.controller.stores.datasets import Datasets
from agents.controller.stores.hub import Hub
from agents.controller.stores.secretstore import SecretStore
from agents.loops import each, loop, woken
from jobs.base import names
from jobs.base.errors import NotFound
from jobs.base.names import job_name
from jobs.life import lifecycle as lc
from jobs.placement.gpus import gpus_of_rank
from jobs.placement.scheduling import Placement
from jobs.spec.job import JobSpec
from jobs.spec.runas import RanksAs
from jobs.store import audit, reading, writing
from jobs.store.tables import AttemptRow, JobRow
from jobs.store.writing import Caller
from jobs.wire import messages as wire
from jobs.wire.views import JobView

log = logging.getLogger(__name__)

TICK = 1.0
MAINTAINED = "the head is in maintenance: nothing is started before its end (`qd maintenance`)"


class _LetGo(Exception):
    """The job was over and let go while a request waited for its turn: it has to be taken up anew, or
    what is done to it is done to something that nobody looks at any more."""


class Reconciler:
    def __init__(
        self,
        *,
        cluster_id: str,
        database: Database,
        fabric: Fabric,
        links: Links,
        cluster: Cluster,
        hub: Hub,
        blobs: BlobStore,
        datasets: Datasets,
        secrets: SecretStore,
        copier: Copier,
        now: Callable[[], float],
        monotonic: Callable[[], float],
        ray_address: Callable[[], str | None],
        newest_attempt: Callable[[int], int] = lambda job: 0,
        waiting: bool = False,
        ranks_as: RanksAs = RanksAs(),  # noqa: B008 - immutable
    ) -> None:
        """`waiting`: jobs that do not say what a lost node means to them wait for it."""
        self.cluster_id = cluster_id
        self.roster = Roster()
        self.live = self.roster.live
        self.clock = Clock(now, monotonic, self.roster)
        self._now, self._monotonic = self.clock.now, monotonic
        self._keeping_times = asyncio.Lock()
        self.planner = Planner(self.roster, fabric, links, cluster, self._now, monotonic)
        self.maintenance = Maintenance(database, hub, now, monotonic)
        self.doubts = Doubts(database, self.clock, self.roster, self.maintenance, self.waits)
        self.reasons: dict[int, str] = {}  # why each waiting job waits; not worth a write each
        self._db, self._fabric, self._links = database, fabric, links
        self._cluster, self._hub, self._secrets = cluster, hub, secrets
        self._copier = copier
        self._wake = asyncio.Event()
        self.passes = 0
        self._thought = 0.0  # seconds that the last pass took to decide
        self._newest_attempt, self._waiting = newest_attempt, waiting
        self._carrier = Carrier(
            cluster_id, database, links, blobs, hub, tell=self.detail, now=self._now
        )
        self._performer = Performer(
            cluster_id,
            fabric,
            links,
            blobs,
            datasets,
            secrets,
            copier,
            self._carrier,
            self,
            monotonic,
            ray_address,
            ranks_as,
        )
        self.ranks_as = ranks_as
        self.losses = Losses(
            cluster_id,
            links,
            self.maintenance,
            self.holding,
            self.apply,
            self._performer.ask_after,
            monotonic,
        )

    # -- life ---------------------------------------------------------------------------------------

    async def load(self, *, restored: bool = False) -> None:
        """Read every unfinished job and go on with it.

        Args:
            restored: the registry is older than what was written last (see `Doubts`).
        """
        await self.maintenance.load()

        def read(session: Session) -> list[tuple[JobRow, lc.Job, int | None]]:
            found = []
            for row, job in writing.load_unfinished(session):
                attempt = session.get(AttemptRow, job.attempt.epoch) if job.attempt else None
                found.append((row, job, attempt.master_port if attempt else None))
            return found

        await self.doubts.load(restored=restored)
        for row, job, port in await self._db.read(read):
            live = self.add(row, job)
            live.port = port
            self._drive(live)

    def add(self, row: JobRow | Row[Any], job: lc.Job, spec: JobSpec | None = None) -> Live:
        """Take a job under care.

        Args:
            row: all columns of the table `jobs`.
            spec: the row's, where it has been checked already.
        """
        live = Live(
            job=job,
            view=reading.job_view(row),
            spec=spec or JobSpec.from_json(row.spec),
            user=row.user,
            name=row.name,
            submitted_at=row.submitted_at,
            snapshot=row.snapshot,
            uid=row.uid,
            token=row.token,
            image=row.image,
            newest=self._newest_attempt(job.id),
            running_since=self._monotonic(),
        )
        self.doubts.take_up(live)
        self.clock.take_up(live)
        self.roster.add(live)
        self._wake.set()
        return live

    def waiting(self) -> list[Live]:
        """Jobs that may be placed, in no order that matters."""
        return list(self.roster.waiting.values())

    def holding(self) -> list[Live]:
        """Jobs that hold capacity."""
        return list(self.roster.holding.values())

    async def run(self) -> None:
        """Schedule, check time limits and leases, for ever."""
        await self._rest()
        await loop("reconciler", self._turn, self._rest, again=(TICK, TICK))

    async def _turn(self) -> None:
        self._wake.clear()
        self.passes += 1
        self._thought = 0.0
        # Each by itself: one job that cannot be placed must not let leases pass.
        steps = (
            self.keep_times,
            self._look_at_maintenance,
            self._schedule,
            self._check_limits,
            self.losses.look,
        )
        await each("reconciler", steps)

    async def _rest(self) -> None:
        # With a long queue a pass costs tens of milliseconds; hints that come meanwhile are
        # answered together, so that passes never take more than a fifth of the time.
        await asyncio.sleep(min(4 * self._thought, TICK))
        await woken(self._wake, TICK)

    def wake(self) -> None:
        """The nodes may have changed: look again."""
        self.planner.look_again()
        self._wake.set()

    async def close(self) -> None:
        drivers = [live.driver for live in self.live.values() if live.driver]
        for driver in drivers:
            driver.cancel()
        await asyncio.gather(*drivers, return_exceptions=True)

    # -- the one way to change a job ----------------------------------------------------------------

    async def apply(
        self,
        live: Live,
        event: lc.Event,
        *,
        extra: Callable[[Session], None] | None = None,
    ) -> None:
        """Let an event happen to a job: decide, store, then act on what is wanted.

        Args:
            extra: more to write in the same transaction.
        """
        # Shielded: a caller that is cancelled must not leave memory behind what the registry holds.
        await asyncio.shield(asyncio.ensure_future(self._apply(live, event, extra)))

    async def _apply(
        self, live: Live, event: lc.Event, extra: Callable[[Session], None] | None
    ) -> None:
        async with live.lock:
            if isinstance(event, lc.Cancel | lc.Retry) and self.live.get(live.job.id) is not live:
                raise _LetGo
            now, before = self._now(), live.job
            result = lc.handle(before, event, now)
            if result.job == before and not result.notes:
                if extra is not None:
                    await self._db.write(extra)
                    self._hub.touch(f"job:{job_name(before.id)}")
                return

            def write(session: Session) -> writing.Saved:
                if extra is not None:
                    extra(session)
                return writing.save(session, before, result, event, now)

            self._changed(live, result.job, await self._db.write(write))

    async def place(self, live: Live, placement: Placement) -> None:
        """Give a waiting job a new attempt on the nodes that the scheduler chose."""
        async with live.lock:
            if not live.waiting:
                return
            now, before = self._now(), live.job
            number, identity = max(before.attempts, live.newest) + 1, names.new_identity()
            waits = self.waits(live)

            def write(session: Session) -> tuple[lc.Job, writing.Saved]:
                epoch = writing.new_epoch(session, before.id, number, now, identity, waits=waits)
                event = lc.Placed(placement.nodes, epoch, identity, number, waits)
                result = lc.handle(before, event, now)
                return result.job, writing.save(session, before, result, event, now)

            job, saved = await self._db.write(write)
            live.reports, live.port, live.detail, live.stall = {}, None, "", ""
            live.doubtful = False
            self._changed(live, job, saved)

    def _changed(self, live: Live, job: lc.Job, saved: writing.Saved) -> None:
        if job.state == "RUNNING" and live.job.state != "RUNNING":
            live.running_since = self._monotonic()
        if times(job) != times(live.job):
            live.moved = 0.0
        view = saved.view
        live.job, live.view = job, view
        self.roster.index(live)
        self.reasons.pop(job.id, None)
        self._hub.publish("jobs", view["id"], self.overlay(view))
        self._hub.announce(saved.events)
        self._hub.touch(f"job:{view['id']}")
        if job.terminal:
            self._secrets.drop(job.id)
            key = live.key(self.cluster_id) if job.attempt is not None else ""
            self._copier.ended(live, key)
            self._carrier.ended(job.id)
            if not live.holding:
                self._drop(live)
        self._drive(live)
        live.wake.set()
        self._wake.set()

    def _drop(self, live: Live) -> None:
        self.roster.drop(live)
        self.reasons.pop(live.job.id, None)

    def _drive(self, live: Live) -> None:
        if live.holding and (live.driver is None or live.driver.done()):
            live.driver = asyncio.create_task(
                self._performer.drive(live), name=f"drive-j{live.job.id}"
            )

    def overlay(self, view: JobView) -> JobView:
        """A stored view with what is known only here: why it waits, what staging does."""
        live = self.live.get(int(view["id"][1:]))
        if live is None:
            return view
        if view["state"] == "QUEUED":
            reason = self.reasons.get(live.job.id)
            if reason is not None:
                return {**view, "reason": reason}
        elif view["state"] in ("PLACING", "STAGING") and live.detail:
            return {**view, "reason": live.detail}
        elif view["state"] == "RUNNING" and live.stall:
            return {**view, "reason": live.stall}
        return view

    # -- requests -----------------------------------------------------------------------------------

    async def cancel(self, number: int, caller: Caller, grace: float | None = None) -> None:
        """Stop a job for good, or take it out of the queue.

        Args:
            grace: seconds between SIGTERM and SIGKILL instead of the job's own. It is said again to
                an agent that was away, but not by a controller that was restarted meanwhile.

        Raises:
            IllegalTransition: it has ended.
        """
        live = self.live.get(number)
        if live is not None and grace is not None:
            live.grace = grace
        await self._request(number, lc.Cancel(caller.user), caller, "job.cancel")

    async def retry(self, number: int, caller: Caller) -> None:
        """Queue a finished job again.

        Raises:
            IllegalTransition: it is not finished.
        """
        await self._request(number, lc.Retry(caller.user), caller, "job.retry")

    async def _request(self, number: int, event: lc.Event, caller: Caller, action: str) -> None:
        now = self._now()

        def record(session: Session) -> None:
            audit.append(
                session,
                at=now,
                user=caller.user,
                uid=caller.uid,
                action=action,
                target=job_name(number),
            )

        while True:
            live = self.live.get(number) or await self._take_up(number, event)
            with contextlib.suppress(_LetGo):
                return await self.apply(live, event, extra=record)

    async def _take_up(self, number: int, event: lc.Event) -> Live:
        """Take a job that is over under care again, for an event that makes sense for it."""

        def read(session: Session) -> tuple[JobRow, lc.Job]:
            row = reading.get_job(session, number)
            return row, writing.load_job(session, row)

        row, job = await self._db.read(read)
        lc.handle(job, event, self._now())  # refuses what makes no sense before anything is kept
        return self.live.get(number) or self.add(row, job)

    # -- what agents say ----------------------------------------------------------------------------

    async def take_report(
        self,
        live: Live,
        node: str,
        report: wire.AttemptReport,
        *,
        extra: Callable[[Session], None] | None = None,
    ) -> None:
        """Store what a node says of the job's current attempt, and let the lifecycle decide."""
        attempt = live.job.attempt
        if attempt is None or attempt.epoch != report["epoch"]:
            return
        async with live.reporting:  # what a launch answers and what a sync brings may be the same
            await self._take_report(live, node, report, extra)

    async def _take_report(
        self,
        live: Live,
        node: str,
        report: wire.AttemptReport,
        extra: Callable[[Session], None] | None,
    ) -> None:
        if report["state"] != "staged" and self.clock.heed(live, report):
            self._wake.set()
        known = live.reports.get(node)
        if known is not None and _same(known, report) and extra is None:
            return
        event = lc.Reported(
            epoch=report["epoch"],
            node=node,
            phase=report["state"],
            outcome=report["outcome"],
            reason=report["reason"],
            first_failed=report["first_failed"],
            first_failed_at=report["first_failed_at"],
            ran=max((rank["ran"] for rank in report["ranks"] if "ran" in rank), default=None),
        )

        def record(session: Session) -> None:
            writing.save_ranks(session, report["epoch"], node, report)
            if extra is not None:
                extra(session)

        if report["state"] != "staged":  # of which nothing is stored
            await self.apply(live, event, extra=record)
        live.reports[node] = report
        self._bind(node, live, report)

    def _bind(self, node: str, live: Live, report: wire.AttemptReport) -> None:
        bindings = self._cluster.node(node).bindings
        job = job_name(live.job.id)
        for uuid in [uuid for uuid, binding in bindings.items() if binding.job == job]:
            del bindings[uuid]
        if report["state"] == "ended":
            return
        for rank in report["ranks"]:
            for uuid in gpus_of_rank(report["gpus"], len(report["ranks"]), rank["local_rank"]):
                bindings.setdefault(uuid, Binding(job, rank["rank"]))

    # -- what performers need -----------------------------------------------------------------------

    def reserve_name(self, live: Live) -> str:
        assert live.job.attempt is not None
        return f"qd-{live.key(self.cluster_id)}-{live.job.attempt.epoch}"

    def detail(self, live: Live, text: str) -> None:
        if live.detail == text:
            return
        live.detail = text
        self._hub.touch(f"job:{job_name(live.job.id)}")

    def show_stall(self, live: Live, text: str) -> None:
        """How long a gang has been silent by now; empty when it is not."""
        if live.stall == text:
            return
        live.stall = text
        self._hub.publish("jobs", live.view["id"], self.overlay(live.view))
        self._hub.touch(f"job:{job_name(live.job.id)}")

    async def staged(self, live: Live, event: lc.Staged, port: int | None, image: str) -> None:
        """A part is staged; `port` is where the gang's ranks will meet, from node rank 0, and `image` the
        digest of what they run in, from the first node that has it."""
        pinned = image if image and not live.image else ""
        if port is None and not pinned:
            return await self.apply(live, event)

        def write(session: Session) -> None:
            row = session.get(AttemptRow, event.epoch)
            if row is not None and port is not None:
                row.master_port = port
                session.add(row)
            job = session.get(JobRow, live.job.id)
            if job is not None and pinned:
                job.image = pinned
                session.add(job)

        live.port = live.port if port is None else port  # before the launch that may follow
        live.image = pinned or live.image
        return await self.apply(live, event, extra=write)

    # -- the loop's parts ---------------------------------------------------------------------------

    @property
    def settled(self) -> bool:
        """See `Planner.settled`."""
        return self.planner.settled

    async def rejoin(self) -> None:
        """Make the fabric's reservations what they should be: reserve again what runs, release what
        nobody holds. After the fabric was lost and found, and now and then: a request that nobody
        waited for any more may have been granted after all."""
        held = await self._fabric.reservations()
        wanted = {self.reserve_name(live): live for live in self.holding()}
        for name in sorted(held - wanted.keys()):
            await self._fabric.release(name)
        for name, live in wanted.items():
            attempt = live.job.attempt  # as it is by now
            if attempt is None or attempt.state not in ("STAGING", "RUNNING", "STOPPING"):
                continue  # its own driver reserves or releases it
            if self.reserve_name(live) != name:
                continue
            # Asked for even if it is held: what has lost a node of it is made anew that way.
            if not await self._fabric.reserve(name, self._performer.bundles(live)):
                log.warning("%s runs, but Ray would not reserve it again", name)

    async def _schedule(self) -> None:
        began, waiting = self._monotonic(), self.waiting()
        if not waiting:
            return
        if not self.settled:
            self._say({live.job.id: "waits for Ray to be back" for live in waiting})
            return
        if self.maintenance.in_force:
            self._say(dict.fromkeys((live.job.id for live in waiting), MAINTAINED))
            return
        decided = self.planner.decide()
        self._thought = self._monotonic() - began
        placing = (self.place(self.live[item.job], item) for item in decided.placements)
        # Each to its end, whatever becomes of the others: the next pass counts on what they hold.
        for outcome in await asyncio.gather(*placing, return_exceptions=True):
            if isinstance(outcome, BaseException):
                raise outcome
        self._say({**decided.reasons, **self.doubts.reasons(decided.reasons)})

    def _say(self, reasons: dict[int, str]) -> None:
        for number, reason in reasons.items():
            if self.reasons.get(number) == reason or number not in self.live:
                continue
            self.reasons[number] = reason
            view = self.live[number].view
            self._hub.publish("jobs", view["id"], self.overlay(view))

    async def _look_at_maintenance(self) -> None:
        if await self.maintenance.tick():
            self.wake()

    def lease(self, live: Live) -> float:
        """Seconds for which its ranks may run now without hearing from us."""
        return live.spec.lease + self.maintenance.longer()

    def waits(self, live: Live) -> bool:
        """Whether no lease ends an attempt of it that is placed now."""
        if live.spec.kind == "service":
            return False
        asked = live.spec.on_node_loss
        return self._waiting if asked is None else asked == "wait"

    def unrenewed(self, live: Live) -> float | None:
        """When, on the monotonic clock, its ranks are certainly gone if nobody has renewed their leases
        since this controller has had the job. None: no time is enough."""
        attempt = live.job.attempt
        if self.waits(live) or (attempt is not None and attempt.waits):
            return None
        bound = self.maintenance.ahead.bound(None, live.running_since, live.spec.lease)
        return bound + live.spec.grace + deadlines.LEASE_MARGIN

    async def keep_times(self) -> None:
        """Store the times of jobs as the clock goes now, once it was set: what others count from them, such
        as budgets and how long a job ran, is right then, and after a restart of this controller too."""
        async with self._keeping_times:  # or two would move the same job by the same hour
            for live in self.clock.to_store():
                await self.apply(live, lc.ClockSet(live.moved))

    async def _check_limits(self) -> None:
        links, now = self._links.links, self._now()
        for live, event in deadlines.timeouts(self.holding(), links, self.cluster_id, now):
            await self.apply(live, event)

    def busy(self) -> Holdings:
        """What is held on which node."""
        return self.roster.busy

    def find(self, number: int) -> Live:
        live = self.live.get(number)
        if live is None:
            raise NotFound(f"j{number} is not running")
        return live


def _same(one: wire.AttemptReport, other: wire.AttemptReport) -> bool:
    """Equal but for how much the ranks have written, which changes all the time."""

    def essence(report: wire.AttemptReport) -> tuple[Any, ...]:
        ranks = [
            (rank["rank"], rank["pid"], rank["exit_code"], rank["signal"])
            for rank in report["ranks"]
        ]
        return (report["epoch"], report["state"], report["outcome"], report["gpus"], ranks)

    return essence(one) == essence(other)
