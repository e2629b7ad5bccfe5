"""What must be true of a node before a gang starts on it: its GPUs answer and are not occupied, and the
memory asked for is there. (Room on the disk is looked at where the code is unpacked.)

A node that fails is not well, or not alone on its machine; the job is not to blame, and may run on
another node. Some of it passes by itself: a process that was killed a moment ago still holds memory.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from jobs.base.errors import Conflict
from jobs.base.units import format_size
from jobs.base.words import joined
from jobs.wire.messages import GpuSample, LaunchPlan, NodeSample

PATIENCE = 20.0
"""Seconds for what may pass. Short of what a gang's other nodes should be kept waiting for."""
AGAIN = 0.5
OCCUPIED = 0.5
"""Part of a GPU's memory that others may use before a job that was promised all of it is not started.
A desktop takes some, a forgotten training run takes most."""


class Unfit(Conflict):
    """This node cannot run a part of the gang now; another one might."""


@dataclass(frozen=True, slots=True)
class Condition:
    """How the node is. `sample` is None while it could not be measured, `memory` bytes available."""

    sample: NodeSample | None
    memory: int


def complaint(plan: LaunchPlan, gpus: Sequence[str], condition: Condition) -> str:
    """Why a plan cannot run here now, in a sentence; empty when it can.

    Args:
        gpus: UUIDs that it was allotted.
    """
    asked = plan["memory"]
    if asked is not None and condition.memory < asked:
        return f"asks for {format_size(asked)} of memory; {format_size(condition.memory)} are available"
    if condition.sample is None:
        return ""
    seen = {gpu["uuid"]: gpu for gpu in condition.sample["gpus"]}
    for uuid in gpus if seen else ():
        gpu = seen.get(uuid)
        if gpu is None:
            return f"GPU {uuid} is not visible"
        if gpu["error"]:
            return f"GPU {gpu['index']} cannot be read: {gpu['error']}"
        if plan["gpus"] >= 1 and (words := _occupied(gpu)):
            return words
    return ""


def _occupied(gpu: GpuSample) -> str:
    used, total = gpu["mem_used"], gpu["mem_total"]
    if used is None or used <= OCCUPIED * total:
        return ""
    pids = [str(process["pid"]) for process in gpu["processes"]]
    noun = "process" if len(pids) == 1 else "processes"
    by = f" by {noun} {joined(pids)}, which no job here started" if pids else ""
    return f"GPU {gpu['index']} has {format_size(used)} of {format_size(total)} in use already{by}"


async def check(
    plan: LaunchPlan,
    gpus: Sequence[str],
    look: Callable[[], Condition],
    progress: Callable[[str], None],
    *,
    patience: float = PATIENCE,
) -> None:
    """Return when the plan can run here; a node that is well takes no time. Raises Unfit.

    Args:
        look: how the node is now.
        progress: told what is waited for.
        patience: seconds.
    """
    deadline = time.monotonic() + patience
    while words := complaint(plan, gpus, look()):
        if time.monotonic() >= deadline:
            raise Unfit(words, "Look at the node; the job is tried again.")
        progress(f"waits: {words}")
        await asyncio.sleep(AGAIN)
