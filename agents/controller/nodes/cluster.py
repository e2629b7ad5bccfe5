"""The nodes as the controller sees them: facts, newest sample, state, and what the scheduler may use.

All of it is in memory and rebuilt by talking to the agents, except what a person said (drained),
which is in the registry.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field

from agents.controller.nodes.fabric import FabricNode
from jobs.base.times import rfc3339
from jobs.metrics.history import History
from jobs.placement.capacity import NodeCapacity
from jobs.placement.nodehealth import Acknowledged
from jobs.wire.messages import GpuFacts, GpuSample, NodeFacts, NodeSample
from jobs.wire.views import GpuView, HistoryPoint, NodeState, NodeView

SUSPECT_AFTER = 5.0
"""Seconds of silence after which a node is SUSPECT: nothing new is placed on it."""
LOST_AFTER = 30.0
"""Seconds of silence after which it is called LOST. Its jobs are restarted only when their leases
have run out, which is another clock."""
AT_ONCE = 16
"""Histories that are summed up before others have their turn: 5 ms."""


@dataclass(slots=True)
class Binding:
    """Who uses a GPU."""

    job: str
    rank: int


@dataclass(slots=True)
class Node:
    name: str
    address: str
    fabric: FabricNode | None = None
    facts: NodeFacts | None = None
    sample: NodeSample | None = None
    boot_id: str = ""
    drained: bool = False
    reason: str = ""
    problems: list[str] = field(default_factory=list)
    quarantine: str = ""
    acknowledged: Acknowledged = field(default_factory=Acknowledged)
    seen: float | None = None  # the controller's monotonic clock
    bindings: dict[str, Binding] = field(default_factory=dict)  # GPU uuid -> user
    history: History = field(default_factory=History)  # by metric, or GPU uuid
    capacity: NodeCapacity | None = None
    capacity_of: tuple[object, ...] = ()  # what it was made of

    def state(self, monotonic: float, busy: bool) -> NodeState:
        if self.seen is None or monotonic - self.seen > LOST_AFTER:
            return "LOST"
        if monotonic - self.seen > SUSPECT_AFTER or self.fabric is None:
            return "SUSPECT"
        if self.quarantine:
            return "QUARANTINED"
        if self.drained:
            return "DRAINING" if busy else "DRAINED"
        return "READY"


class Cluster:
    """The set of nodes.

    Args:
        monotonic: a clock in seconds that never jumps.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self.nodes: dict[str, Node] = {}
        self._monotonic = monotonic

    def node(self, name: str, address: str = "") -> Node:
        """The node of that name, made when it is new."""
        node = self.nodes.setdefault(name, Node(name, address))
        if address:
            node.address = address
        return node

    def heard(self, name: str) -> None:
        self.nodes[name].seen = self._monotonic()

    def take_sample(self, name: str, sample: NodeSample) -> None:
        """Keep the newest sample and add it to the histories."""
        node = self.nodes[name]
        node.sample = sample
        values = {
            "cpu": sample["cpu_util"],
            "mem": percent(sample["mem_used"], sample["mem_total"]),
        }
        gpus = sample["gpus"]
        if gpus:
            utils = [gpu["util"] for gpu in gpus if gpu["util"] is not None]
            powers = [gpu["power"] for gpu in gpus if gpu["power"] is not None]
            used = sum(gpu["mem_used"] or 0 for gpu in gpus)
            if utils:
                values["gpu_util"] = sum(utils) / len(utils)
            values["gpu_mem"] = percent(used, sum(gpu["mem_total"] for gpu in gpus))
            if powers:
                values["power"] = sum(powers)
            values |= {gpu["uuid"]: gpu["util"] for gpu in gpus if gpu["util"] is not None}
        node.history.add(sample["at"], values)

    def view(self, node: Node, busy: Mapping[str, tuple[set[str], float, float]]) -> NodeView:
        """What the API says of a node.

        Args:
            busy: node name -> (ids of its jobs, GPUs held, CPUs held).
        """
        monotonic = self._monotonic()
        jobs, gpus_held, cpus_held = busy.get(node.name, (set(), 0.0, 0.0))
        sample, facts = node.sample, node.facts
        cpus = node.fabric.cpus if node.fabric else float(facts["cpus"]) if facts else 0.0
        age = monotonic - node.seen if node.seen is not None else 0.0
        # A node is READY a moment before its first sample: its GPUs are there, not yet measured.
        measured = sample["gpus"] if sample else map(unmeasured, facts["gpus"] if facts else ())
        gpus = [_gpu_view(gpu, node.bindings.get(gpu["uuid"])) for gpu in measured]
        return {
            "name": node.name,
            "address": node.address,
            "state": node.state(monotonic, bool(jobs)),
            "reason": node.quarantine
            or (node.reason if node.drained else "")
            or "; ".join(node.problems),
            "gpus": gpus,
            "cpu": {
                "count": cpus,
                "util": sample["cpu_util"] if sample else None,
                "load": sample["load"] if sample else None,
            },
            "memory": {
                "used": sample["mem_used"] if sample else None,
                "total": sample["mem_total"] if sample else facts["memory"] if facts else 0,
            },
            "disk": {
                "used": sample["disk_used"] if sample else None,
                "total": sample["disk_total"] if sample else 0,
            },
            "net_rx": sample["net_rx"] if sample else None,
            "net_tx": sample["net_tx"] if sample else None,
            "jobs": sorted(jobs, key=lambda job: (len(job), job)),
            "free_gpus": max(0.0, self.gpus(node) - gpus_held),
            "free_cpus": max(0.0, cpus - cpus_held),
            "seen_at": rfc3339(sample["at"]) if sample else None,
            "age": round(age, 1),
            "labels": dict(node.fabric.labels) if node.fabric else {},
        }

    def gpus(self, node: Node) -> float:
        """GPUs that may be placed on: those that the agent sees, as far as the fabric counts them."""
        if node.facts is None:
            return 0.0
        seen = float(len(node.facts["gpus"]))
        return min(seen, node.fabric.gpus) if node.fabric else seen

    def capacities(self, busy: Container[str]) -> list[NodeCapacity]:
        """The scheduler's view of every node, in order of name. That of a node which has not changed
        is the same object as before.

        Args:
            busy: the nodes on which something is held.
        """
        monotonic, result = self._monotonic(), []
        for _, node in sorted(self.nodes.items()):
            state = node.state(monotonic, node.name in busy)
            if node.capacity is None or node.capacity_of != (state, node.facts, node.fabric):
                node.capacity_of = (state, node.facts, node.fabric)
                node.capacity = self._capacity(node, state)
            result.append(node.capacity)
        return result

    def _capacity(self, node: Node, state: NodeState) -> NodeCapacity:
        facts = node.facts
        models = sorted({gpu["model"] for gpu in facts["gpus"]}) if facts else []
        why_not = "" if state == "READY" else state.lower()
        if state == "READY" and facts is None:
            why_not = "still starting"
        return NodeCapacity(
            name=node.name,
            cpus=node.fabric.cpus if node.fabric else float(facts["cpus"]) if facts else 0.0,
            gpus=int(self.gpus(node)),
            memory=facts["memory"] if facts else 0,
            accelerator=", ".join(models),
            schedulable=not why_not,
            why_not=why_not,
            containers=bool(facts and facts.get("containers")),
        )

    def history(
        self, name: str, metric: str, seconds: float, points: int, now: float
    ) -> list[HistoryPoint]:
        """A metric's history of one node."""
        history = self.nodes[name].history
        return history.query(metric, seconds, points, now) if metric in history else []

    async def whole_history(
        self, metric: str, seconds: float, points: int, now: float
    ) -> list[HistoryPoint]:
        """The mean over all nodes that have it; of power, the sum. With a thousand nodes it takes a
        quarter of a second, so others have their turn in between."""
        by_time: dict[float, list[HistoryPoint]] = {}
        for number, node in enumerate(list(self.nodes.values())):
            if number % AT_ONCE == AT_ONCE - 1:
                await asyncio.sleep(0)
            if metric in node.history:
                for point in node.history.query(metric, seconds, points, now):
                    by_time.setdefault(point["at"], []).append(point)
        total = metric == "power"
        return [
            {
                "at": at,
                "mean": sum(p["mean"] for p in group) / (1 if total else len(group)),
                "low": min(p["low"] for p in group),
                "high": sum(p["high"] for p in group) if total else max(p["high"] for p in group),
            }
            for at, group in sorted(by_time.items())
        ]


def percent(used: float, total: float) -> float:
    return 100.0 * used / total if total else 0.0


def unmeasured(gpu: GpuFacts) -> GpuSample:
    """A GPU of which only is known that it is there."""
    return {
        "index": gpu["index"],
        "uuid": gpu["uuid"],
        "model": gpu["model"],
        "simulated": gpu["simulated"],
        "util": None,
        "mem_used": None,
        "mem_total": gpu["memory"],
        "power": None,
        "power_limit": None,
        "temp": None,
        "sm_clock": None,
        "mem_clock": None,
        "throttle": [],
        "ecc_errors": None,
        "ecc_corrected": None,
        "xid": None,
        "pcie_rx": None,
        "pcie_tx": None,
        "nvlink_rx": None,
        "nvlink_tx": None,
        "processes": [],
        "error": "",
    }


def _gpu_view(gpu: GpuSample, binding: Binding | None) -> GpuView:
    return {
        "index": gpu["index"],
        "uuid": gpu["uuid"],
        "model": gpu["model"],
        "simulated": gpu["simulated"],
        "util": gpu["util"],
        "mem_used": gpu["mem_used"],
        "mem_total": gpu["mem_total"],
        "power": gpu["power"],
        "power_limit": gpu["power_limit"],
        "temp": gpu["temp"],
        "sm_clock": gpu["sm_clock"],
        "mem_clock": gpu["mem_clock"],
        "throttle": gpu["throttle"],
        "ecc_errors": gpu["ecc_errors"],
        "pcie_rx": gpu["pcie_rx"],
        "pcie_tx": gpu["pcie_tx"],
        "processes": [process["pid"] for process in gpu["processes"]],
        "job": binding.job if binding else None,
        "rank": binding.rank if binding else None,
    }
