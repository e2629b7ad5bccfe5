"""What is decided about the queue: who starts now, why the others wait, and what can never run."""

from __future__ import annotations

from collections.abc import Callable

from agents.controller.core.roster import Roster
from agents.controller.nodes.cluster import Cluster
from agents.controller.nodes.fabric import Fabric
from agents.controller.nodes.links import Links
from jobs.placement.capacity import NodeCapacity, Shape
from jobs.placement.reasons import never_fits
from jobs.placement.scheduling import Plan, Standing, plan_on

JUDGED_FOR = 1.0
"""Seconds for which what could never run is judged by the same nodes: submissions come by the hundred."""


class Planner:
    """Args:
    now: unix time. monotonic: a clock that never jumps. Both in seconds.
    """

    def __init__(
        self,
        roster: Roster,
        fabric: Fabric,
        links: Links,
        cluster: Cluster,
        now: Callable[[], float],
        monotonic: Callable[[], float],
    ) -> None:
        self._roster, self._fabric, self._links, self._cluster = roster, fabric, links, cluster
        self._now, self._monotonic = now, monotonic
        self._standing = Standing()
        self._started = monotonic()
        self._judged_at = -JUDGED_FOR
        self._nodes: list[NodeCapacity] | None = None  # None: too little is known to judge by
        self._refusals: dict[Shape, str | None] = {}

    @property
    def settled(self) -> bool:
        """Whether enough is known to place new work: the fabric is there, and every node that holds
        an attempt has been heard, or is not a member (any more)."""
        if self._fabric.state != "connected":
            return False
        for live in self._roster.holding.values():
            if live.job.attempt is None:
                continue
            for allocation in live.job.attempt.allocations:
                link = self._links.links.get(allocation.node)
                if link is not None and link.clock_at < self._started and not allocation.over:
                    return False
        return True

    def decide(self) -> Plan:
        """One pass of the scheduler over all that waits."""
        return plan_on(
            self._roster.queue,
            self._standing,
            self._cluster.capacities(self._roster.busy),
            [live.running() for live in self._roster.holding.values()],
            self._now(),
        )

    def refusal(self, shape: Shape) -> str | None:
        """Why no node could ever run this; None when one could, or when that is not known."""
        if self._monotonic() - self._judged_at >= JUDGED_FOR:
            known = all(node.facts is not None for node in self._cluster.nodes.values())
            certain = known and self.settled
            self._nodes = self._cluster.capacities(self._roster.busy) if certain else None
            self._judged_at, self._refusals = self._monotonic(), {}
        if self._nodes is None:
            return None  # it waits in the queue and is judged there
        if shape not in self._refusals:
            self._refusals[shape] = never_fits(shape, self._nodes)
        return self._refusals[shape]

    def look_again(self) -> None:
        """The nodes have changed."""
        self._judged_at = -JUDGED_FOR
