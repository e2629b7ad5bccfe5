"""What a node's agent tells of its attempts and of itself, in the words of `jobs.wire.messages`."""

from __future__ import annotations

from jobs.wire import messages as wire
from tests.sim.loop import EPOCH
from tests.sim.machine import Folder, Rank


def told(folder: Folder, state: str, outcome: str, reason: str, now: float) -> wire.AttemptReport:
    """A report on an attempt that is in that state at a virtual time."""
    first: Rank | None = None
    if folder.exit is not None:
        first = folder.exit["first_failed"]
    elif folder.guard is not None:
        first = folder.guard.first_failed
    return {
        "key": folder.key,
        "epoch": folder.epoch,
        "state": state,  # type: ignore[typeddict-item]
        "outcome": outcome,  # type: ignore[typeddict-item]
        "reason": reason,
        "first_failed": first.number if first else None,
        "first_failed_at": first.ends_at + EPOCH if first else None,
        "gpus": list(folder.staged["gpus"]) if folder.staged else [],
        "ranks": [_rank(rank, now) for rank in folder.ranks],
        "lease": folder.lease,
    }


def _rank(rank: Rank, now: float) -> wire.RankReport:
    report: wire.RankReport = {
        "rank": rank.number,
        "local_rank": rank.local_rank,
        "pid": rank.pid,
        "started_at": rank.started_at + EPOCH,
        "exit_code": rank.exit_code if rank.told else None,
        "signal": rank.signal if rank.told else None,
        "ended_at": rank.ends_at + EPOCH if rank.told else None,
        "log_size": len(rank.log(now)),
        "metrics_size": len(rank.metrics(now)),
    }
    report["ran"] = (rank.ends_at if rank.told else now) - rank.started_at
    # Of ranks that are not stopped nothing is said, and nothing follows from that.
    if rank.stopped_at is not None and rank.alive(now):
        since = now - rank.stopped_at
        report["vitals"] = {
            "process": "stopped",
            "process_for": since,
            "quiet": since,
            "usual": None,
            "longest": 0.0,
            "kept": 0.0,
        }
    return report


def sample_of(at: float) -> wire.NodeSample:
    """A node's telemetry at a virtual time."""
    return {
        "at": at + EPOCH,
        "cpu_util": 0.0,
        "load": 0.0,
        "mem_used": 0,
        "mem_total": 64 << 30,
        "disk_used": 0,
        "disk_total": 1 << 40,
        "net_rx": 0.0,
        "net_tx": 0.0,
        "gpus": [],
    }
