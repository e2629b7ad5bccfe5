"""What has become of allocations whose node says nothing of them, and whom the controller waits for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Container
from functools import partial
from typing import Any

from agents.controller.core import deadlines
from agents.controller.core.live import Live
from agents.controller.core.maintenance import Maintenance, unconfirmed
from agents.controller.nodes.links import Links
from jobs.base.names import job_name
from jobs.life import lifecycle as lc
from jobs.store import writing
from jobs.wire.views import MaintenanceView


class Losses:
    """Args:
    holding: the jobs that hold capacity.
    apply: lets an event happen to a job (`Reconciler.apply`).
    ask_after: asks a node about an allocation that it does not tell of (`effects.Performer`).
    monotonic: the controller's own clock, on which leases are booked.
    """

    def __init__(
        self,
        cluster: str,
        links: Links,
        maintenance: Maintenance,
        holding: Callable[[], list[Live]],
        apply: Callable[..., Awaitable[None]],
        ask_after: Callable[[Live, str], Awaitable[Any]],
        monotonic: Callable[[], float],
    ) -> None:
        self._cluster, self._links, self._maintenance = cluster, links, maintenance
        self._holding, self._apply, self._ask_after = holding, apply, ask_after
        self._monotonic = monotonic

    async def look(self) -> None:
        """Give up what cannot be alive any more, and ask after what nobody tells of."""
        links, monotonic, ahead = self._links.links, self._monotonic(), self._maintenance.ahead
        for live, event in deadlines.gone(self._holding(), links, self._cluster, monotonic, ahead):
            await self._lose(live, event)
        silent = deadlines.unreported(self._holding(), links, self._cluster, monotonic)
        for live, node in list(silent):
            await self._ask_after(live, node)

    async def _lose(self, live: Live, event: lc.Gone) -> None:
        lost = partial(writing.lose_ranks, epoch=event.epoch, node=event.node)
        await self._apply(live, event, extra=lost)

    async def restarted(self, node: str, boot: str, known: Container[str]) -> None:
        """A node is there, in this boot, and tells of these attempts: what it held in an earlier boot and
        does not tell of is over."""
        gone = deadlines.restarted(self._holding(), node, boot, known, self._cluster)
        for live, event in list(gone):
            await self._lose(live, event)

    def doomed(self, node: str) -> list[Live]:
        """Jobs of which an allocation would be over if this node were dead. Of one that answers, those that
        it does not tell of: its newest reports must have been asked for just now."""
        link = self._links.links.get(node)
        if link is None or not link.online:
            return [live for live, _ in deadlines.open_allocations(self._holding(), node)]
        links, monotonic = {node: link}, self._monotonic()
        found = deadlines.unreported(self._holding(), links, self._cluster, monotonic)
        return [live for live, where in found if where == node]

    async def confirm_dead(self, node: str, reason: str) -> None:
        """A person says that what a node held has gone down."""
        for live in self.doomed(node):
            await self._lose(live, lc.Gone(live.epoch, node, reason))

    def waiting_for(self, node: str) -> list[str]:
        """Jobs that hold an allocation there which no lease ends."""
        return [
            job_name(live.job.id)
            for live in self._holding()
            if (attempt := live.job.attempt) is not None
            and attempt.waits
            and attempt.started_at is not None
            and not attempt.over_on(node)
        ]

    def unconfirmed(self) -> dict[str, list[str]]:
        """Nodes that have not confirmed what is granted ahead, each with the jobs that run there."""
        links, until = self._links.links, self._maintenance.ahead.until
        return unconfirmed(self._holding(), links, self._cluster, until)

    def maintained(self) -> MaintenanceView | None:
        """The maintenance that is in force."""
        running = sum(live.job.state in ("RUNNING", "STOPPING") for live in self._holding())
        return self._maintenance.view(running, self.unconfirmed())
