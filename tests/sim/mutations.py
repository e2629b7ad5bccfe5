"""Ways to break the design. The simulation is worth something only if it notices each of them.

Each entry is a patch that takes one safeguard away, and a seed where to look first for a history that
shows what it was for.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any
from unittest import mock

from sqlalchemy import update
from sqlmodel import Session, col

from agents.controller.core import deadlines
from agents.controller.core.intake import Intake
from agents.controller.core.reconciler import Reconciler
from agents.controller.nodes.links import Link
from jobs.life import endings, lifecycle
from jobs.life.outages import Ahead
from jobs.store import metricpoints
from jobs.store.tables import RankRow
from tests.sim.agent import Agent
from tests.sim.head import Logs
from tests.sim.machine import Folder, Guard

_Patch = AbstractContextManager[Any]


@dataclass(frozen=True, slots=True)
class Mutation:
    """`seed` is where to look first; `usual`: among histories whose jobs are as most people leave them."""

    what: str
    patch: Callable[[], _Patch]
    seed: int
    usual: bool = False


def _believe_in_no_lease() -> _Patch:
    return mock.patch.object(deadlines, "LEASE_MARGIN", -20.0)


def _no_margin() -> _Patch:
    return mock.patch.object(deadlines, "LEASE_MARGIN", -1.0)


def _grace_is_not_counted() -> _Patch:
    """An allocation is given up while its guard may still give its ranks time to end."""
    source = inspect.getsource(deadlines.gone)
    assert " + live.spec.grace" in source
    names = dict(vars(deadlines))
    exec(source.replace(" + live.spec.grace", ""), names)
    return mock.patch.object(deadlines, "gone", names["gone"])


def _guards_ignore_leases() -> _Patch:
    return mock.patch.object(Guard, "_read_lease", lambda self: float("inf"))


def _longer_leases_than_booked() -> _Patch:
    grant = Link.grant
    return mock.patch.object(Link, "grant", lambda self, key, lease: grant(self, key, lease) + 30.0)


def _maintenance_is_not_booked() -> _Patch:
    """A controller that begins forgets what earlier ones granted ahead."""
    resumed = Ahead.resumed

    def forgetful(now: float, longest: float, left: float) -> Ahead:
        return replace(resumed(now, longest, left), earlier=0.0)

    return mock.patch.object(Ahead, "resumed", forgetful)


def _waiting_ends_by_time() -> _Patch:
    """What waits for a node is given up as all else is."""
    source = inspect.getsource(deadlines.gone)
    assert " or attempt.waits" in source
    names = dict(vars(deadlines))
    exec(source.replace(" or attempt.waits", ""), names)
    return mock.patch.object(deadlines, "gone", names["gone"])


def _stopping_is_over() -> _Patch:
    over = property(lambda allocation: allocation.phase in ("ended", "gone", "stopping"))
    return mock.patch.object(lifecycle.Allocation, "over", over)


def _release_before_stop() -> _Patch:
    """As soon as one allocation of the gang is over, all of it counts as over."""
    finish = endings.finish_if_over

    def early(job: lifecycle.Job, now: float) -> Any:
        attempt = job.attempt
        assert attempt is not None
        if any(one.over for one in attempt.allocations) and attempt.ending:
            allocations = tuple(
                p if p.over else replace(p, phase="gone") for p in attempt.allocations
            )
            job = replace(job, attempt=replace(attempt, allocations=allocations))
        return finish(job, now)

    return mock.patch.object(endings, "finish_if_over", early)


def _end_before_the_logs_are_here() -> _Patch:
    async def all_here(*args: Any) -> bool:
        return True

    return mock.patch.object(Intake, "_all_here", all_here)


def _logs_are_not_synced() -> _Patch:
    return mock.patch.object(Logs, "sync", lambda self, job, attempt, rank: None)


def _given_up_parts_stay() -> _Patch:
    async def nothing(*args: Any) -> None:
        pass

    return mock.patch.object(Intake, "_stop_stale", nothing)


def _no_shield() -> _Patch:
    """A request that is given up takes the write of what it brought with it, or not: nobody waits."""
    return mock.patch.object(Reconciler, "apply", _bare_apply)


async def _bare_apply(self: Any, live: Any, event: Any, *, extra: Any = None) -> None:
    await self._apply(live, event, extra)


def _any_epoch() -> _Patch:
    """Agents do what an old message says."""
    return mock.patch.object(Agent, "_check_epoch", lambda self, key, epoch: None)


def _guards_start_again() -> _Patch:
    """What is launched twice starts twice: a guard does not look whether another was there before."""
    return mock.patch.object(Folder, "started", property(lambda folder: False, lambda f, v: None))


def _ray_is_never_compared() -> _Patch:
    async def rejoin(self: Any) -> None:
        pass

    return mock.patch.object(Reconciler, "rejoin", rejoin)


def _old_events_count() -> _Patch:
    """What is told of an earlier attempt is taken for news of the present one."""
    on_report = Intake.on_report

    async def mistaken(self: Intake, node: str, report: Any, *, quiet: bool) -> bool:
        found = await self._attempt(report["key"])
        live = self.reconciler.live.get(found[0]) if found is not None else None
        if live is not None and live.job.attempt is not None:
            present = {**report, "epoch": live.job.attempt.epoch}
            await self.reconciler.take_report(live, node, present)  # type: ignore[arg-type]
        return await on_report(self, node, report, quiet=quiet)

    return mock.patch.object(Intake, "on_report", mistaken)


def _points_count_again() -> _Patch:
    """A chunk is stored as often as it comes."""
    ingest = metricpoints.ingest_metrics

    def again(session: Session, epoch: int, rank: int, offset: int, data: bytes) -> Any:
        where = (col(RankRow.attempt_id) == epoch, col(RankRow.rank) == rank)
        session.execute(update(RankRow).where(*where).values(metric_offset=offset))
        return ingest(session, epoch, rank, offset, data)

    return mock.patch.object(metricpoints, "ingest_metrics", again)


MUTATIONS = {
    "lease": Mutation("allocations are given up before their lease ends", _believe_in_no_lease, 0),
    "margin": Mutation("no margin for clocks and late guards", _no_margin, 63),
    "grace": Mutation("the grace is not counted", _grace_is_not_counted, 307, usual=True),
    "fence": Mutation("guards ignore their lease", _guards_ignore_leases, 63),
    "grant": Mutation("leases last longer than is booked", _longer_leases_than_booked, 63),
    "maintenance": Mutation("what was granted ahead is forgotten", _maintenance_is_not_booked, 0),
    "wait": Mutation("what waits is given up without a word", _waiting_ends_by_time, 10),
    "stopping": Mutation("an allocation that is stopping counts as over", _stopping_is_over, 0),
    "gang": Mutation("one ended allocation ends the gang", _release_before_stop, 4),
    "logs": Mutation("an end is told before the logs are here", _end_before_the_logs_are_here, 4),
    "sync": Mutation("logs are not made durable", _logs_are_not_synced, 0),
    "given-up": Mutation(
        "allocations that were given up are not stopped", _given_up_parts_stay, 66
    ),
    "shield": Mutation("changes are cut off with who asked for them", _no_shield, 19),
    "epoch": Mutation("agents believe any epoch", _any_epoch, 161),
    "twice": Mutation("a guard is started again", _guards_start_again, 25),
    "rejoin": Mutation("Ray's reservations are never compared", _ray_is_never_compared, 6),
    "stale": Mutation("events of earlier attempts count", _old_events_count, 0),
    "points": Mutation("metric chunks are stored as often as they come", _points_count_again, 0),
}
