"""Which nodes take no more work because something is wrong with them. Pure: facts in, reasons out.

A node is quarantined for what its GPUs say (a fatal Xid, an uncorrected memory error, a GPU that cannot
be read any more) or because gangs keep dying on it. Only a person lifts a quarantine. What was wrong by
then is acknowledged: an Xid stays in the agent's memory and an error count in the driver's, and neither is
to bring the node down a second time. What comes after it is.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jobs.base.words import counted, listed
from jobs.wire.messages import GpuSample

FATAL_XIDS = {
    48: "a double-bit ECC error",
    62: "its internal micro-controller halted",
    64: "its bad memory could not be remapped",
    74: "an NVLink error",
    79: "it has fallen off the bus",
    95: "an uncontained ECC error",
    119: "its system processor does not answer",
    120: "its system processor failed",
    136: "its links could not be trained",
    140: "an unrecovered ECC error",
    143: "it could not be initialised",
}
"""Xids after which a GPU needs a reset or a technician (NVIDIA's XID catalogue). Others tell of the
program that ran (13, 31, 43, 45), or of an error that only it had to pay for (94)."""

UNREADABLE = 30.0
"""Seconds for which a GPU could not be read. Restarting the driver takes less."""

LOSSES, WINDOW = 3, 3600.0
"""A node that loses gangs so many times in so many seconds is quarantined."""
AT_ONCE = 60.0
"""Seconds from the first of some losses in which the others count as the same one: who switches a node off
takes all of its gangs at a time, as soon as their leases are over."""
JOBS = 2
"""... if they were of so many different jobs: one that takes its node down wherever it runs would
otherwise take the cluster down, node by node (`jobs.life.endings.MAX_LOSSES` ends it)."""


@dataclass(frozen=True, slots=True)
class KnownFaults:
    """What is known and accepted of one GPU."""

    xid: int | None = None
    ecc: int = 0
    error: str = ""


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """What does not count any more: losses up to `at` (unix time), and faults of GPUs by UUID. While a
    node is quarantined its faults are noted here, so that to lift the quarantine is to acknowledge them."""

    at: float = 0.0
    gpus: Mapping[str, KnownFaults] = field(default_factory=dict)

    def noting(self, gpus: Iterable[GpuSample]) -> Acknowledged:
        """Together with all that is wrong now."""
        gpus = list(gpus)
        noted = dict(self.renewed(gpus).gpus)
        for gpu in gpus:
            known, now = noted.get(gpu["uuid"], KnownFaults()), _faults(gpu)
            noted[gpu["uuid"]] = KnownFaults(
                known.xid if now.xid is None else now.xid, max(known.ecc, now.ecc), now.error
            )
        return Acknowledged(
            self.at, {uuid: known for uuid, known in noted.items() if known != KnownFaults()}
        )

    def renewed(self, gpus: Iterable[GpuSample]) -> Acknowledged:
        """Less what has gone since: when it comes again, it is new."""
        if not self.gpus:
            return self
        left = dict(self.gpus)
        for gpu in gpus:
            known, now = left.get(gpu["uuid"]), _faults(gpu)
            if known is None:
                continue
            kept = KnownFaults(
                known.xid if now.xid == known.xid else None,
                min(known.ecc, now.ecc) if gpu["ecc_errors"] is not None else known.ecc,
                known.error if now.error == known.error else "",
            )
            left[gpu["uuid"]] = kept
        return Acknowledged(
            self.at, {uuid: known for uuid, known in left.items() if known != KnownFaults()}
        )

    def to_json(self) -> dict[str, Any]:
        gpus = {
            uuid: {"xid": known.xid, "ecc": known.ecc, "error": known.error}
            for uuid, known in self.gpus.items()
        }
        return {"at": self.at, "gpus": gpus}

    @classmethod
    def from_json(cls, data: Mapping[str, Any] | None) -> Acknowledged:
        if data is None:
            return cls()
        return cls(data["at"], {uuid: KnownFaults(**known) for uuid, known in data["gpus"].items()})


def _faults(gpu: GpuSample) -> KnownFaults:
    xid = gpu["xid"]
    return KnownFaults(xid if xid in FATAL_XIDS else None, gpu["ecc_errors"] or 0, gpu["error"])


def gpu_faults(
    gpus: Sequence[GpuSample], acknowledged: Acknowledged, unreadable: Mapping[str, float]
) -> list[str]:
    """What is wrong with a node's GPUs, a clause for each that is not well.

    Args:
        gpus: the newest samples.
        acknowledged: what does not count.
        unreadable: UUID -> seconds for which the GPU could not be read.
    """
    found = []
    for gpu in gpus:
        if gpu["xid"] is None and not gpu["ecc_errors"] and not gpu["error"]:
            continue  # nearly all of them, nearly always: a fleet has thousands
        known, now = acknowledged.gpus.get(gpu["uuid"], KnownFaults()), _faults(gpu)
        wrong = []
        if now.xid is not None and now.xid != known.xid:
            wrong.append(f"Xid {now.xid}: {FATAL_XIDS[now.xid]}")
        if now.ecc > known.ecc:
            wrong.append(counted(now.ecc - known.ecc, "uncorrected ECC error"))
        lasting = unreadable.get(gpu["uuid"], 0.0) >= UNREADABLE
        if now.error and now.error != known.error and lasting:
            wrong.append(f"it cannot be read: {now.error}")
        if wrong:
            found.append(f"GPU {gpu['index']}: {', '.join(wrong)}")
    return found


@dataclass(frozen=True, slots=True)
class Loss:
    """An attempt that was lost to the infrastructure, and the node with which that began."""

    node: str
    job: int
    at: float  # unix time


def losing_nodes(
    losses: Iterable[Loss],
    nodes: Collection[str],
    acknowledged: Mapping[str, Acknowledged],
    now: float,
) -> dict[str, str]:
    """Nodes that lose gangs repeatedly, each with the reason.

    Where most of the cluster does, the nodes have something in common (the network, the head), and
    taking them all out of service would help nobody: then, and on a cluster of one node, it is none.

    Args:
        losses: recent ones; older than `WINDOW` and acknowledged ones are passed over.
        nodes: all nodes in service.
        acknowledged: by node.
        now: unix time.
    """
    counting: dict[str, list[Loss]] = defaultdict(list)
    for loss in losses:
        since = max(now - WINDOW, acknowledged.get(loss.node, Acknowledged()).at)
        if loss.node in nodes and loss.at > since:
            counting[loss.node].append(loss)
    losing = {
        node: lost
        for node, lost in counting.items()
        if _times(lost) >= LOSSES and len({loss.job for loss in lost}) >= JOBS
    }
    if 2 * len(losing) > len(nodes):
        return {}
    return {
        node: f"it lost gangs {_times(lost)} times within an hour, of "
        + listed([f"j{job}" for job in sorted({loss.job for loss in lost})])
        for node, lost in losing.items()
    }


def _times(lost: Iterable[Loss]) -> int:
    """How many times something happened, of which these are the losses."""
    times, since = 0, float("-inf")
    for at in sorted(loss.at for loss in lost):
        if at - since >= AT_ONCE:
            times, since = times + 1, at
    return times
