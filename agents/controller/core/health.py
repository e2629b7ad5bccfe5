"""The health of what runs: gangs that hang, nodes that are not well, clocks that disagree.

Looks at what the links brought, once a second; what it means is decided in `jobs.life.stalls` and
`jobs.placement.nodehealth`. Nothing is concluded from a node that does not answer: its silence says
nothing about its ranks.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from sqlmodel import Session

from agents.controller.core.live import Live
from agents.controller.core.reconciler import Reconciler
from agents.controller.nodes.cluster import Cluster, Node
from agents.controller.nodes.links import Links
from agents.controller.stores.database import Database
from agents.controller.stores.hub import Hub
from agents.controller.stores.problems import Problems
from agents.loops import loop
from jobs.life import lifecycle as lc
from jobs.life.stalls import Vitals, judge
from jobs.placement.nodehealth import WINDOW, Acknowledged, Loss, gpu_faults, losing_nodes
from jobs.store import reading, writing
from jobs.store.tables import NodeRow
from jobs.wire.views import EventView

log = logging.getLogger(__name__)

TICK = 1.0
FRESH = 15.0
"""Seconds for which what a node said of its ranks can be judged by. An agent answers every five."""
LOSSES_EVERY = 60.0
"""Seconds between two looks at the losses in the registry, besides one whenever a job has lost."""
SKEW = 30.0
"""Seconds by which a node's wall clock may be off. Nothing here depends on wall clocks, but merged logs
do, and so do certificates and object stores that ranks talk to."""
SKEWED = 3
"""Samples in a row that must show it: one may have been held up on its way."""


@dataclass(slots=True)
class _Watch:
    """What has to be remembered of a node between two looks. Times are our monotonic clock."""

    sample_at: float = 0.0  # the sample that was looked at last, by its own time
    unreadable: dict[str, float] = field(default_factory=dict)  # GPU uuid -> since when
    skewed: int = 0  # samples in a row
    skew: float = 0.0  # seconds that the node is ahead


class Health:
    """Watches jobs and nodes.

    Args:
        now: unix time. monotonic: a clock that never jumps. Both in seconds.
    """

    def __init__(
        self,
        *,
        database: Database,
        reconciler: Reconciler,
        links: Links,
        cluster: Cluster,
        hub: Hub,
        problems: Problems,
        now: Callable[[], float],
        monotonic: Callable[[], float],
    ) -> None:
        self._db, self._reconciler, self._links = database, reconciler, links
        self._cluster, self._hub, self._problems = cluster, hub, problems
        self._now, self._monotonic = now, monotonic
        self._watches: dict[str, _Watch] = {}
        self._losses: dict[int, int] = {}  # job -> losses that were counted
        self._losses_at = -LOSSES_EVERY

    async def run(self) -> None:
        """Look for ever."""
        await loop("health", self.look, TICK)

    def forget(self, name: str) -> None:
        """Remember nothing of a node."""
        self._watches.pop(name, None)

    async def look(self) -> None:
        """Look once."""
        for live in self._reconciler.holding():
            await self._look_at_job(live)
        for node in list(self._cluster.nodes.values()):
            await self._look_at_node(node)
        await self._look_at_losses()
        self._tell_of_clocks()

    # -- gangs that hang ----------------------------------------------------------------------------

    async def _look_at_job(self, live: Live) -> None:
        attempt = live.job.attempt
        if live.job.state != "RUNNING" or attempt is None:
            return
        if live.spec.kind == "service":
            return  # one that nobody asks anything is silent; its front knows whether it answers
        ranks = self._vitals(live, attempt)
        if ranks is None:
            return
        policy = live.spec.on_stall
        stall = judge(ranks, policy.after)
        if stall is None:
            self._reconciler.show_stall(live, "")
            if live.job.stalled:
                await self._reconciler.apply(live, lc.Unstalled(attempt.epoch))
            return
        self._reconciler.show_stall(live, stall.text)
        if policy.action != "warn" or not live.job.stalled:
            event = lc.Stalled(attempt.epoch, stall.node, stall.text, policy.action)
            await self._reconciler.apply(live, event)

    def _vitals(self, live: Live, attempt: lc.Attempt) -> list[Vitals] | None:
        """How the ranks are now; None while that is not known of all of them."""
        key, monotonic = live.key(self._reconciler.cluster_id), self._monotonic()
        found = []
        for allocation in attempt.allocations:
            if allocation.over:
                continue
            link = self._links.links.get(allocation.node)
            if link is None or not link.online or monotonic - link.clock_at > FRESH:
                return None
            report = link.reports.get(key)
            if report is None or (report["epoch"], report["state"]) != (attempt.epoch, "running"):
                return None
            age = monotonic - link.clock_at
            for rank in report["ranks"]:
                vitals = rank.get("vitals")
                if vitals is not None:
                    silent = {**vitals, "quiet": vitals["quiet"] + age}
                    found.append(Vitals(rank["rank"], allocation.node, **silent))  # type: ignore[arg-type]
        return found

    # -- nodes that are not well --------------------------------------------------------------------

    async def _look_at_node(self, node: Node) -> None:
        sample = node.sample
        watch = self._watches.setdefault(node.name, _Watch())
        if sample is None or node.seen is None or sample["at"] == watch.sample_at:
            return
        monotonic = self._monotonic()
        watch.sample_at = sample["at"]
        watch.skew = sample["at"] - (self._now() - (monotonic - node.seen))
        watch.skewed = watch.skewed + 1 if abs(watch.skew) > SKEW else 0
        broken = {gpu["uuid"] for gpu in sample["gpus"] if gpu["error"]}
        watch.unreadable = {uuid: watch.unreadable.get(uuid, monotonic) for uuid in broken}
        gpus = sample["gpus"]
        if not node.quarantine:
            lasting = {uuid: monotonic - since for uuid, since in watch.unreadable.items()}
            faults = gpu_faults(gpus, node.acknowledged, lasting)
            if faults:
                await self._quarantine(node, "; ".join(faults))
        acknowledged = (
            node.acknowledged.noting(gpus) if node.quarantine else node.acknowledged.renewed(gpus)
        )
        if acknowledged != node.acknowledged:
            await self._save(node, node.quarantine, acknowledged, None)

    async def _look_at_losses(self) -> None:
        """Ask the registry, which remembers across restarts, but only when there may be news."""
        monotonic = self._monotonic()
        losses = {
            number: live.job.losses
            for number, live in self._reconciler.live.items()
            if live.job.losses
        }
        news = any(count > self._losses.get(number, 0) for number, count in losses.items())
        if not news and monotonic - self._losses_at < LOSSES_EVERY:
            return
        now = self._now()

        def read(session: Session) -> list[Loss]:
            return reading.losses(session, now - WINDOW)

        recent = await self._db.read(read)
        self._losses, self._losses_at = losses, monotonic
        nodes = {
            node.name
            for node in self._cluster.nodes.values()
            if node.state(monotonic, False) != "LOST"
        }
        acknowledged = {node.name: node.acknowledged for node in self._cluster.nodes.values()}
        for name, reason in losing_nodes(recent, nodes, acknowledged, now).items():
            node = self._cluster.nodes[name]
            if not node.quarantine:
                await self._quarantine(node, reason)

    async def _quarantine(self, node: Node, reason: str) -> None:
        text = f"{node.name} is quarantined: {reason}"
        log.warning("%s", text)
        acknowledged = node.acknowledged.noting(node.sample["gpus"] if node.sample else [])
        note = lc.Note("node.quarantined", text, "error", node=node.name)
        await self._save(node, reason, acknowledged, note)
        self._reconciler.wake()

    async def _save(
        self, node: Node, quarantine: str, acknowledged: Acknowledged, note: lc.Note | None
    ) -> None:
        now = self._now()

        def write(session: Session) -> list[EventView]:
            row = session.get(NodeRow, node.name)
            if row is not None:
                row.quarantine, row.acknowledged = quarantine, acknowledged.to_json()
                session.add(row)
            if note is None:
                return []
            return writing.add_events(session, None, [note], now)

        events = await self._db.write(write)
        node.quarantine, node.acknowledged = quarantine, acknowledged
        self._hub.announce(events)

    # -- clocks -------------------------------------------------------------------------------------

    def _tell_of_clocks(self) -> None:
        wrong = [
            f"{name} is {abs(watch.skew):.0f} s {'ahead' if watch.skew > 0 else 'behind'}"
            for name, watch in sorted(self._watches.items())
            if watch.skewed >= SKEWED
        ]
        self._problems.tell("clock", ", ".join(wrong))
