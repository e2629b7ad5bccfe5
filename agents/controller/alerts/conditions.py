"""What holds now that rules of alerts may be about."""

from __future__ import annotations

import shutil
from pathlib import Path

from agents.controller.alerts.alerts import Seen
from agents.controller.core.reconciler import Reconciler
from agents.controller.nodes.cluster import Cluster
from agents.controller.stores.problems import Problems
from jobs.base.words import counted, duration

FULL = 0.10
"""Share of the disk with the registry, blobs and logs below which it counts as full."""
STUCK = 3600.0
"""Seconds for which the oldest job has waited when the queue counts as stuck."""


class Conditions:
    """Args:
    state: the folder whose disk is watched.
    """

    def __init__(
        self, cluster: Cluster, reconciler: Reconciler, problems: Problems, state: Path
    ) -> None:
        self._cluster, self._reconciler = cluster, reconciler
        self._problems, self._state = problems, state

    def __call__(self, monotonic: float, now: float) -> list[Seen]:
        return [*self._nodes(monotonic), *self._told(), *self._disk(), *self._queue(now)]

    def _nodes(self, monotonic: float) -> list[Seen]:
        found = []
        busy = self._reconciler.busy()
        for name, node in self._cluster.nodes.items():
            state = node.state(monotonic, name in busy)
            if state == "LOST" and not (node.drained and name not in busy):
                found.append(Seen("node.lost", f"node {name}", f"{name} does not answer", name))
            elif state == "QUARANTINED":
                text = f"{name} is quarantined: {node.quarantine}"
                found.append(Seen("node.quarantined", f"node {name}", text, name))
        return found

    def _told(self) -> list[Seen]:
        """What `qd status` names, but for what alerts themselves have to say."""
        found = []
        for problem in self._problems.views():
            source = problem["what"].partition(":")[0]
            if not source.startswith("alerts"):
                found.append(Seen("problem", source, problem["what"]))
        return found

    def _disk(self) -> list[Seen]:
        usage = shutil.disk_usage(self._state)
        if usage.free >= FULL * usage.total:
            return []
        share = f"{100 * usage.free / usage.total:.0f} %"
        return [Seen("disk.full", "the head's disk", f"{share} of {self._state} is free")]

    def _queue(self, now: float) -> list[Seen]:
        waiting = self._reconciler.waiting()
        oldest = min((live.submitted_at for live in waiting), default=now)
        if now - oldest < STUCK:
            return []
        told = (
            f"{counted(len(waiting), 'job')} in the queue, the oldest for {duration(now - oldest)}"
        )
        return [Seen("queue.stuck", "the queue", told)]
