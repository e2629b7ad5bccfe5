"""All runs of pipelines of a controller: taking them in, steering them, and one `FlowRun` for each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from sqlmodel import Session

from agents.controller.flows.flowrecord import Stores
from agents.controller.flows.flowrun import FlowRun, Plant
from agents.controller.stores.database import to_its_end
from jobs.base.errors import Conflict
from jobs.flows.course import ENDED, retried
from jobs.flows.spec import PipelineSpec
from jobs.store import flowreading, flowwriting
from jobs.store.flowtables import PipelineRow
from jobs.store.flowwriting import Wanted
from jobs.store.writing import Caller
from jobs.wire.flowviews import PipelineView


class Flows:
    """Owns the runs that are not over. Every change by a person is one transaction, and then a hint."""

    def __init__(self, plant: Plant) -> None:
        self._plant = plant
        self._runs: dict[int, FlowRun] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}

    @property
    def stores(self) -> Stores:
        return self._plant.stores

    async def load(self) -> None:
        """Go on with every run that is not over."""
        for number in await self._plant.database.read(flowwriting.active):
            self.begin(number)

    async def close(self) -> None:
        """Stop looking after runs; their jobs run on."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def begin(self, number: int) -> None:
        """Look after a run that is recorded, or look again."""
        if number in self._runs:
            self._runs[number].wake()
            return
        run = self._runs[number] = FlowRun(number, self._plant)
        task = asyncio.create_task(run.run(), name=f"pipeline-p{number}")
        self._tasks[number] = task
        task.add_done_callback(lambda _: self._end(number))

    def _end(self, number: int) -> None:
        run = self._runs.pop(number)
        if not self._tasks.pop(number).cancelled() and run.asked:
            self.begin(number)  # it was retried in the moment that it ended

    async def submit(
        self,
        wanted: Callable[[Session], Wanted],
        who: Caller,
        secrets: Mapping[str, str],
    ) -> tuple[PipelineView, bool]:
        """Record a run, durably, and begin it; the same caller with the same key gets the same one.

        Args:
            wanted: what is asked for, looked up in the same transaction.
        """
        now = self._plant.now()

        def write(session: Session) -> tuple[PipelineView, bool]:
            row, created = flowwriting.create(session, wanted(session), who, now)
            if created and secrets and row.id is not None:
                self._plant.stores.secrets.save(row.id, dict(secrets))
            session.flush()
            return flowreading.pipeline_view(session, row), created

        async def record() -> tuple[PipelineView, bool]:
            view, created = await self._plant.database.write(write)
            if created:
                self._plant.hub.publish("pipelines", view["id"], view)
                self.begin(int(view["id"][1:]))
            return view, created

        # Shielded: who hangs up must not leave a run in the registry that nobody looks after.
        return await to_its_end(record)

    async def cancel(self, number: int, who: Caller) -> PipelineView:
        """Stop a run: what runs is cancelled, and nothing else starts."""

        def change(_session: Session, row: PipelineRow, _now: float) -> None:
            if row.state in ENDED:
                raise Conflict(f"p{number} is over: {row.state}")
            row.state, row.ending = "STOPPING", "CANCELLED"
            row.reason = f"cancelled by {who.user}"

        return await self._steer(number, who, "pipeline.cancel", change)

    async def retry(self, number: int, who: Caller) -> PipelineView:
        """Run what did not succeed again; what did stays."""

        def change(session: Session, row: PipelineRow, now: float) -> None:
            if row.state not in ENDED:
                raise Conflict(f"p{number} is not over: it is {row.state}")
            spec = PipelineSpec.from_json(row.spec)
            if spec.secrets:
                raise Conflict(
                    f"p{number} is over, and the values of its secrets are no longer stored",
                    "Run its file again; the results of steps that succeeded are reused.",
                )
            changes = []
            for group in flowwriting.tasks_of(session, number, spec).values():
                for task in group:
                    if (again := retried(task)) is not None:
                        changes.append(_reset(again.step, again.number))
            if not changes:
                raise Conflict(
                    f"every step of p{number} has succeeded", "Run its file with --no-cache."
                )
            flowwriting.save_tasks(session, number, changes)
            row.state, row.reason, row.ending, row.ended_at = "RUNNING", "", None, None
            row.started_at = now

        return await self._steer(number, who, "pipeline.retry", change)

    async def _steer(
        self,
        number: int,
        who: Caller,
        action: str,
        change: Callable[[Session, PipelineRow, float], None],
    ) -> PipelineView:
        """Change a run in one transaction with its audit row."""
        now = self._plant.now()

        def write(session: Session) -> PipelineView:
            row = flowwriting.get(session, number)
            change(session, row, now)
            row.steered += 1
            session.add(row)
            flowwriting.record(session, row, who, action, now, {})
            session.flush()
            return flowreading.pipeline_view(session, row)

        view = await self._plant.database.write(write)
        self._plant.hub.publish("pipelines", view["id"], view)
        self._plant.hub.publish(f"pipeline:{view['id']}", view["id"], view, keep=False)
        self.begin(number)
        return view


def _reset(step: str, number: int) -> dict[str, Any]:
    return {
        "step": step,
        "number": number,
        "state": "WAITING",
        "reason": "",
        "ended_at": None,
        "taken_from": None,
    }
