"""Strays: attempts that nodes hold and this registry never gave.

They are of another cluster, or of this registry as it was before a backup took its place. Nobody here
knows what they are for, so they are left alone: their leases are not renewed, and end them, where they have
any. They are said once as events, and as long as they are there in `qd status`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from agents.controller.nodes.links import Links
from jobs.base.errors import InvalidInput
from jobs.base.names import AttemptKey, parse_key
from jobs.wire import messages as wire
from jobs.wire.views import Problem, StrayView


@dataclass(frozen=True, slots=True)
class Stray:
    node: str
    key: AttemptKey
    report: wire.AttemptReport

    @property
    def live(self) -> bool:
        """Whether ranks of it may run, or begin to."""
        return self.report["state"] != "ended"

    @property
    def words(self) -> str:
        report = self.report
        state = report["state"] if self.live else f"ended: {report['outcome']}"
        return f"{self.key.run} ({state})"


class Strays:
    """Args:
    links: whose newest reports are looked at.
    unknown: whether an attempt's key was looked up, and is not in the registry.
    """

    def __init__(self, links: Links, cluster: str, unknown: Callable[[str], bool]) -> None:
        self._links, self._cluster, self._unknown = links, cluster, unknown

    def found(self) -> list[Stray]:
        """All of them, in order of node and key."""
        return [
            Stray(name, key, report)
            for name, link in sorted(self._links.links.items())
            for text, report in sorted(link.reports.items())
            if self._unknown(text) and text not in link.forget and (key := _parsed(text))
        ]

    def views(self) -> list[StrayView]:
        return [self.view(stray) for stray in self.found()]

    def view(self, stray: Stray) -> StrayView:
        report = stray.report
        return {
            "node": stray.node,
            "key": str(stray.key),
            "run": stray.key.run,
            "cluster": stray.key.cluster,
            "ours": stray.key.cluster == self._cluster,
            "state": report["state"],
            "outcome": report["outcome"],
            "ranks": len(report["ranks"]),
            "gpus": report["gpus"],
            "log_bytes": sum(rank["log_size"] for rank in report["ranks"]),
        }

    def problems(self) -> list[Problem]:
        """One for each node that holds some."""
        by_node: dict[str, list[Stray]] = {}
        for stray in self.found():
            by_node.setdefault(stray.node, []).append(stray)
        return [
            {
                "what": f"node {node} holds what this registry does not know: {_listed(strays)}",
                "fix": "What runs is stopped by the end of its lease, if it has one (services, and jobs "
                "with `on_node_loss: wait`, have none); its logs stay on the node. `qd strays` lists it, "
                "`qd strays --forget` removes what has ended, with `--stop` also what runs.",
                "severity": "warning",
            }
            for node, strays in by_node.items()
        ]


def _listed(strays: Iterable[Stray], most: int = 5) -> str:
    words = [stray.words for stray in strays]
    more = f" and {len(words) - most} more" if len(words) > most else ""
    return ", ".join(words[:most]) + more


def _parsed(key: str) -> AttemptKey | None:
    try:
        return parse_key(key)
    except InvalidInput:  # of a node that another version wrote to
        return None
