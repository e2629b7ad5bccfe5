"""Ray's node table as members of the fabric: one for each name, and the right one.

For up to half a minute after a host's Ray was replaced, its old incarnation is alive in the table too,
in no order. And two hosts may have been given the same name, which nobody but a person can set right.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from agents.controller.nodes.fabric import FabricNode


class Members:
    """Remembers in which order incarnations came up."""

    def __init__(self) -> None:
        self._seen: dict[str, int] = {}  # id -> when it was first seen, as a count
        self._count = 0

    def take(self, table: Iterable[dict[str, Any]]) -> list[FabricNode]:
        """The members of a table of Ray's.

        Of two incarnations at the same address the newer one counts. Of two hosts with the same name
        the older one does, and `conflict` says so.
        """
        alive = [member_of(entry) for entry in table if entry["Alive"]]
        before, self._count = self._seen, self._count + 1
        self._seen = {node.id: before.get(node.id, self._count) for node in alive}
        by_name: dict[str, list[FabricNode]] = {}
        for node in sorted(alive, key=lambda node: (self._seen[node.id], node.id)):
            by_name.setdefault(node.name, []).append(node)
        return [_choose(nodes) for nodes in by_name.values()]


def _choose(nodes: list[FabricNode]) -> FabricNode:
    """The one that counts of all with a name, oldest first."""
    address = nodes[0].address
    newest = [node for node in nodes if node.address == address][-1]
    others = sorted({node.address for node in nodes} - {address})
    if not others:
        return newest
    return replace(newest, conflict=f"{', '.join(others)} has the same name as {address}")


def member_of(entry: dict[str, Any]) -> FabricNode:
    """A row of Ray's node table."""
    resources, labels = entry["Resources"], dict(entry.get("Labels") or {})
    return FabricNode(
        name=labels.get("qd.node") or entry["NodeManagerHostname"],
        address=entry["NodeManagerAddress"],
        id=entry["NodeID"],
        cpus=float(resources.get("CPU", 0)),
        gpus=float(resources.get("GPU", 0)),
        memory=int(resources.get("memory", 0)),
        labels=labels,
    )
