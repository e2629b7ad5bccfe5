"""Which nodes the fabric has: the links in step with them, and joined again when the fabric was lost."""

from __future__ import annotations

from collections.abc import Callable

from agents.controller.core.reconciler import Reconciler
from agents.controller.nodes.cluster import Cluster
from agents.controller.nodes.fabric import Fabric
from agents.controller.nodes.links import Keeper, Links
from agents.loops import loop

EVERY = 1.0
"""Seconds between two looks at the fabric's members."""
REJOIN_EVERY = 15.0
"""Seconds between two comparisons of what runs with what Ray has reserved: Ray may lose reservations."""


class Membership:
    def __init__(
        self,
        fabric: Fabric,
        cluster: Cluster,
        links: Links,
        keeper: Keeper,
        reconciler: Reconciler,
        *,
        tell: Callable[[str, str], None],
        monotonic: Callable[[], float],
    ) -> None:
        self._fabric, self._cluster, self._links = fabric, cluster, links
        self._keeper = keeper
        self._reconciler, self._tell, self._monotonic = reconciler, tell, monotonic
        self._joined = False
        self._compared = 0.0  # when what runs was last compared with what is reserved
        self._reserved_on: set[str] = set()  # incarnations of nodes

    async def run(self) -> None:
        """Look for ever."""
        await loop("membership", self.look, EVERY, self._complain)

    def _complain(self, problem: str) -> None:
        self._joined = self._joined and not problem
        self._tell("ray", problem)

    async def look(self) -> None:
        """Look once."""
        if not self._joined:
            await self._fabric.connect()
        members = await self._fabric.nodes()
        incarnations = {member.id for member in members}
        changed = not self._joined or incarnations != self._reserved_on
        if changed or self._monotonic() > self._compared + REJOIN_EVERY:
            await self._reconciler.rejoin()
            self._reserved_on, self._compared = incarnations, self._monotonic()
        if not self._joined:
            self._joined = True
            self._reconciler.wake()
        present = {node.name for node in members}
        for member in members:
            self._cluster.node(member.name, member.address).fabric = member
            self._tell(f"name {member.name}", member.conflict)
        for node in self._cluster.nodes.values():
            if node.name not in present:
                node.fabric = None
        await self._links.members(members, self._keeper)
