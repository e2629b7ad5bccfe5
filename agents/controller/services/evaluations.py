"""What the jobs of evaluations have measured, stored as evidence.

Level-triggered: an evaluation is over when its job is, and what came of it is stored in one transaction with
its event and its audit row. A controller that is killed at any moment finds the evaluation running or done.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from sqlmodel import Session

from agents.controller.services.front import Plant, ourselves
from agents.controller.stores.blobs import BlobStore
from agents.loops import loop
from jobs.base.errors import QuarterdeckError
from jobs.base.names import job_name
from jobs.base.states import TERMINAL
from jobs.base.times import rfc3339
from jobs.base.units import format_size
from jobs.life.lifecycle import Note
from jobs.models.evaluations import (
    checked_report,
    checked_samples,
    document,
    evaluation_name,
)
from jobs.models.names import version_name
from jobs.store import audit, evaluations, writing
from jobs.store.tables import JobRow
from jobs.wire.views import EventView

log = logging.getLogger(__name__)

LOOK_EVERY = 1.0
LARGEST = {"report": 4 << 20, "samples": 64 << 20}
"""Bytes of what a job leaves."""

LastWords = Callable[[int], Awaitable[str]]
"""Of a job that failed what its first failed rank wrote last, where that is a person's mistake."""


class Evaluations:
    """Ends evaluations whose jobs are over."""

    def __init__(self, plant: Plant, blobs: BlobStore, last_words: LastWords) -> None:
        self._plant, self._blobs, self._last_words = plant, blobs, last_words

    async def run(self) -> None:
        """Look after evaluations, for ever."""
        await loop("evaluations", self.look, LOOK_EVERY, partial(self._plant.tell, "evaluations"))

    async def look(self) -> None:
        """End those whose jobs are over."""
        for number, job in await self._plant.database.read(evaluations.running):
            if job.state in TERMINAL:
                await self._finish(number, job)

    async def _finish(self, number: int, job: JobRow) -> None:
        now, name = self._plant.now(), job_name(job.id or 0)
        report: dict[str, Any] | None = None
        samples: dict[str, list[float | None]] = {}
        reason = ""
        if job.state == "SUCCEEDED":
            try:
                report, samples = await self._written(job.id or 0)
            except (ValueError, QuarterdeckError) as error:
                reason = f"{name}: {error}"
        else:
            reason = f"{name} {job.state.lower()}: {job.reason}"
            if job.state == "FAILED":
                reason = await self._last_words(job.id or 0) or reason

        def write(session: Session) -> list[EventView]:
            row, model, version = evaluations.get(session, number)
            if row.state != "RUNNING":
                return []
            evidence = None
            if report is not None:
                evidence = document(
                    name=evaluation_name(number),
                    version=version_name(model.name, version.number),
                    digest=row.digest,
                    data=row.data,
                    data_digest=row.data_digest,
                    job=name,
                    command=job.spec.get("command"),
                    asked=row.asked,
                    report=report,
                    samples=samples,
                    at=rfc3339(now),
                    by=row.user,
                )
            evaluations.finish(session, row, now, reason=reason, document=evidence, samples=samples)
            view = evaluations.view((row, model, version))
            text = f"{view['model']} was measured on {row.data} ({view['id']})"
            if evidence is None:
                text = (
                    f"{view['model']} could not be measured on {row.data} ({view['id']}): {reason}"
                )
            data = {
                "evaluation": view["id"],
                "data": row.data,
                "digest": row.digest,
                "evidence": row.evidence,
                "metrics": {metric: one["value"] for metric, one in view["metrics"].items()},
                "reason": reason,
            }
            us = ourselves()
            audit.append(
                session,
                at=now,
                user=us.user,
                uid=us.uid,
                action="model.evaluated",
                target=view["model"],
                data=data,
            )
            severity = "info" if evidence is not None else "warning"
            note = Note("model.evaluated", text, severity, user=row.user)  # type: ignore[arg-type]
            return writing.add_events(session, None, [note], now)

        events = await self._plant.database.write(write)
        self._plant.hub.announce(events)
        if events:
            self._plant.hub.publish("models", "", None, keep=False)

    async def _written(self, job: int) -> tuple[dict[str, Any], dict[str, list[float | None]]]:
        """Report and samples. Raises ValueError."""
        digests = await self._plant.database.read(lambda s: evaluations.written(s, job))
        report = checked_report(await self._blob(digests, "report"))
        return report, checked_samples(await self._blob(digests, "samples"), report)

    async def _blob(self, digests: dict[str, str], name: str) -> bytes:
        if name not in digests:
            raise ValueError(f"it wrote no {name}")
        size = await asyncio.to_thread(self._blobs.size, digests[name])
        if size > LARGEST[name]:
            raise ValueError(f"its {name} is larger than {format_size(LARGEST[name])}")
        return await asyncio.to_thread(self._blobs.read, digests[name])
