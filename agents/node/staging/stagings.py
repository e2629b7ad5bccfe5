"""Stagings in progress: one task per attempt, which calls to `stage` look in on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from typing import Literal

from agents.node import machine
from agents.node.attempts import Attempt
from agents.node.guard import records
from agents.node.staging.ledger import GpusTaken
from agents.node.staging.steps import Missing, Staged, Stager
from jobs.base.disk import refused, storage_full
from jobs.base.errors import Conflict, QuarterdeckError, StorageFull
from jobs.wire.messages import LaunchPlan, StageReply

log = logging.getLogger(__name__)

PATIENCE = 0.1
"""Seconds that a call waits for the end: most attempts are staged in one call."""


class _Staging:
    """One staging, in progress or failed. Failed ones stay: the next attempt has another key."""

    def __init__(self) -> None:
        self.detail = "getting ready"
        self.task: asyncio.Task[Staged | Missing] | None = None

    def progress(self, detail: str) -> None:
        self.detail = detail


class Stagings:
    """Runs the stager's work in the background, for each attempt once at a time."""

    def __init__(self, stager: Stager) -> None:
        self._stager = stager
        self._known: dict[str, _Staging] = {}

    @property
    def quiet(self) -> bool:
        """Whether none is under way at this moment."""
        return all(known.task is None or known.task.done() for known in self._known.values())

    async def look_in(
        self, attempt: Attempt, plan: LaunchPlan, lost: Collection[str], ports: Collection[int]
    ) -> StageReply:
        """How an attempt's staging is coming along; begun now if it is not on its way.

        Args:
            attempt: one that is not staged yet.
            plan: its plan.
            lost: GPUs that cannot be used.
            ports: first ports given to other attempts.
        """
        staging = self._known.setdefault(attempt.key, _Staging())
        if staging.task is None:
            work = self._stager.stage(
                plan, attempt.folder, lost=lost, ports=ports, progress=staging.progress
            )
            staging.task = asyncio.get_running_loop().create_task(work)
        task = staging.task
        await asyncio.wait({task}, timeout=PATIENCE)
        if not task.done():
            return reply(attempt, "working", staging.detail)
        if task.cancelled():
            return reply(attempt, "failed", "it was stopped")
        error = task.exception()
        if error is not None and not isinstance(error, GpusTaken):
            return reply(attempt, "failed", self._words(attempt, error), blame=_blame(error))
        self._known.pop(attempt.key, None)
        if error is not None:
            # The controller counts them as free: an attempt that it gave up is still being stopped.
            return reply(attempt, "working", str(error))
        result = task.result()
        if isinstance(result, Missing):
            return reply(attempt, "working", f"needs {len(result.digests)} blobs", result.digests)
        attempt.remember(result)
        return reply(attempt, "ready")

    def _words(self, attempt: Attempt, error: BaseException) -> str:
        self._stager.ledger.release(attempt.key)
        if isinstance(error, QuarterdeckError):
            return error.message
        if isinstance(error, OSError) and refused(error):
            return storage_full("the node cannot prepare it", error).message
        log.error("staging %s", attempt.key, exc_info=error)
        return f"internal error: {error!r}"

    def drop(self, key: str) -> None:
        """End an attempt's staging, if it has one."""
        staging = self._known.pop(key, None)
        if staging is not None and staging.task is not None:
            staging.task.cancel()

    async def close(self) -> None:
        """End them all, and wait until what they run is gone."""
        tasks = [staging.task for staging in self._known.values() if staging.task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _blame(error: BaseException) -> Literal["job", "node"]:
    """Conflicts are over what this node has (GPUs, ports, memory); what is wrong with a plan (an
    interpreter that does not exist, a bad requirement) is wrong everywhere."""
    return "node" if isinstance(error, Conflict | StorageFull) or refused(error) else "job"


def reply(
    attempt: Attempt,
    state: Literal["ready", "working", "failed"],
    detail: str = "",
    missing: list[str] | None = None,
    blame: Literal["job", "node"] = "job",
) -> StageReply:
    """An answer to a call to `stage`. Digests in `missing` are hex, `blame` is for failures."""
    answer = StageReply(
        state=state,
        detail=detail,
        missing=missing or [],
        port=attempt.staged.port if attempt.staged else None,
        gpus=list(attempt.staged.gpus) if attempt.staged else [],
        clock=records.boot_clock(),
        blame=blame,
        boot=machine.boot(),
    )
    if attempt.staged and attempt.staged.image:
        answer["image"] = attempt.staged.image.digest
    return answer
