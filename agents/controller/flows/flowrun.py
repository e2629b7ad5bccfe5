"""The engine of one run of a pipeline: looks at what has ended, and takes it as far as it goes.

Level-triggered, like the reconciler: each pass reads what is so, decides (`jobs.flows.course`), and
writes the change together with the jobs that it starts; a wake-up is a hint.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from sqlmodel import Session

from agents.controller.core.reconciler import Reconciler
from agents.controller.flows.acts import Acts, Order
from agents.controller.flows.flowrecord import Book, Passed, Stores, advance
from agents.controller.flows.inputs import Lacking, Shelf
from agents.controller.stores.database import Database
from agents.controller.stores.hub import Hub
from agents.controller.sweeps.sweeps import Sweeps
from agents.loops import loop, woken
from jobs.access.roles import Role
from jobs.base.errors import Conflict, InvalidInput, NotAllowed, NotFound
from jobs.base.names import job_name
from jobs.flows.course import ENDED, End, TaskId
from jobs.flows.spec import PipelineSpec
from jobs.store import flowreading, flowwriting
from jobs.store.flowwriting import Place
from jobs.store.loading import new_job
from jobs.store.writing import Caller, Via
from jobs.wire.flowviews import PipelineView, TaskView

log = logging.getLogger(__name__)

LOOK_EVERY = 10.0
"""Seconds between two passes when nothing hints at a change."""
TICK = 1.0
"""Seconds between two looks at the clock while a time limit runs: a clock may be set."""
RETRY = (1.0, 30.0)
"""Seconds to wait after a pass that failed: the first time, and after many."""


@dataclass(frozen=True, slots=True)
class Plant:
    """What all pipelines share. `now` is unix time, `monotonic` never jumps; both in seconds. `tell`
    says what is wrong with a source at the moment, "" that nothing is."""

    database: Database
    reconciler: Reconciler
    sweeps: Sweeps
    hub: Hub
    stores: Stores
    now: Callable[[], float]
    monotonic: Callable[[], float]
    tell: Callable[[str, str], None]
    acts: Acts


class FlowRun:
    def __init__(self, number: int, plant: Plant) -> None:
        self.number, self._plant = number, plant
        self.name = flowwriting.pipeline_name(number)
        self.asked = False  # a person's change that no pass has seen yet
        self._subscription = plant.hub.subscribe([], hints_only=True)
        self._places: dict[TaskId, Place] = {}  # of tasks that run
        self._cancelled: set[TaskId] = set()
        self._patience = 0.0
        self._user = ""
        self._uid = 0
        self._book: Book | None = None

    def wake(self) -> None:
        """Look again: a person has changed something."""
        self.asked = True
        self._subscription.wake.set()

    async def run(self) -> None:
        """Go on until the run is over. Whatever goes wrong is taken up again from the registry."""
        complain = partial(self._plant.tell, f"pipeline {self.name}")
        try:
            await loop(self.name, self._turn, self._wait, complain, again=RETRY)
        finally:
            complain("")
            self._plant.hub.unsubscribe(self._subscription)

    async def _turn(self) -> bool:
        try:
            return await self._pass()
        except BaseException:
            self._book = None  # what a pass that failed has changed in it is not what was stored
            raise

    async def _wait(self) -> None:
        """Until something is worth a pass."""
        plant = self._plant
        until = plant.monotonic() + self._patience
        while not self._hinted() and (left := until - plant.monotonic()) > 0:
            await woken(self._subscription.wake, min(left, TICK))

    def _hinted(self) -> bool:
        """Whether what was told since is more than a job's way from the queue to its ranks."""
        subscription = self._subscription
        if not subscription.wake.is_set():
            return False
        subscription.wake.clear()
        dirty, subscription.dirty = subscription.dirty, set()
        if self.asked or any(place.job is None for place in self._places.values()):
            return True  # a sweep, or something that the controller does itself
        for topic in dirty:
            if not topic.startswith("job:"):
                return True
            live = self._plant.reconciler.live.get(int(topic.removeprefix("job:j")))
            if live is None or live.job.terminal:
                return True
        return False

    # -- one pass -----------------------------------------------------------------------------------

    async def _pass(self) -> bool:
        """Read, decide, act. True when the run is over."""
        plant = self._plant
        if self.asked or self._book is None:
            self.asked = False
            loaded, self._places = await plant.database.read(self._load)
            self._book = loaded
            self._watch()  # before looking: what happens in between is a hint
        places = self._places
        ends = await plant.database.read(lambda session: self._ends(session, places))
        ends |= await self._act(self._book, places)
        passed = await self._taken(self._book, ends)
        if passed.stale:
            self._book, self._patience = None, 0.0
            return False
        assert passed.decision is not None
        await self._cancel(passed)
        await self._show(passed)
        if passed.decision.state in ENDED:
            plant.stores.secrets.drop(self.number)
            return True
        within = passed.decision.within
        self._patience = LOOK_EVERY if within is None else min(max(within, 0.0), TICK)
        stops = passed.decision.stop and any(_is_act(place) for place in self._places.values())
        if passed.again or passed.acts or stops:
            self._patience = 0.0
        return False

    def _load(self, session: Session) -> tuple[Book, dict[TaskId, Place]]:
        row = flowwriting.get(session, self.number)
        self._user, self._uid = row.user, row.uid
        spec = PipelineSpec.from_json(row.spec)
        tasks = flowwriting.tasks_of(session, self.number, spec)
        book = Book(
            self.number, spec, row.steered, {name: tuple(group) for name, group in tasks.items()}
        )
        return book, flowwriting.running(session, self.number)

    def _ends(self, session: Session, places: dict[TaskId, Place]) -> dict[TaskId, End]:
        """How the jobs and sweeps of tasks that run have ended, of those that have."""
        jobs = flowwriting.ended_jobs(session, self.number)
        sweeps = flowwriting.ended_sweeps(session, self.number)
        outputs = flowwriting.artifacts(session, jobs) if jobs else {}
        metrics = flowwriting.metrics(session, jobs) if jobs else {}
        found = {}
        for task, place in places.items():
            if place.job is not None and place.job in jobs:
                there = outputs[place.job]
                made = [one.data for _, one in sorted(there.items()) if one.data is not None]
                left = {"data": made[0]} if made else {}
                found[task] = End(*jobs[place.job], frozenset(there), metrics[place.job], left)
            elif place.sweep is not None and place.sweep in sweeps:
                found[task] = End(*sweeps[place.sweep])
        return found

    async def _act(self, book: Book, places: dict[TaskId, Place]) -> dict[TaskId, End]:
        """Take the steps that are no jobs as far as they go; how those have ended that are over."""
        if not any(_is_act(place) for place in places.values()):
            return {}
        plant = self._plant

        def read(session: Session) -> tuple[dict[TaskId, flowwriting.Acting], Caller, bool]:
            row = flowwriting.get(session, self.number)
            who = Caller(row.user, row.uid, Role(row.role))
            return flowwriting.acting(session, self.number), who, row.state == "STOPPING"

        acting, who, stopping = await plant.database.read(read)
        ends, reasons = {}, {}
        for task, one in acting.items():
            step = book.spec.steps[task[0]]
            assert step.act is not None
            via = Via(self.number, *task, one.tries)
            order = Order(
                act=step.act,
                asked=one.asked,
                left=one.left,
                who=replace(who, via=via),
                since=one.since,
                now=plant.now(),
                timeout=step.timeout,
                stopping=stopping,
            )
            try:
                # Shielded: what an act has begun in the registry must reach the rest of the controller.
                look = await asyncio.shield(
                    asyncio.create_task(plant.acts.look(order), name=f"act-{self.name}")
                )
            except (InvalidInput, NotFound, NotAllowed, Conflict) as error:
                ends[task] = End("FAILED", error.message)
                continue
            if look.end is not None:
                ends[task] = look.end
            elif look.waits != one.reason:
                reasons[task] = look.waits
        if reasons:
            await self._explain(book, reasons)
        return ends

    async def _explain(self, book: Book, reasons: dict[TaskId, str]) -> None:
        """Write down and show what steps wait for."""
        database = self._plant.database
        await database.write(lambda session: flowwriting.tell(session, self.number, reasons))
        for (step, number), told in reasons.items():
            group = list(book.tasks[step])
            group[number] = replace(group[number], reason=told)
            book = replace(book, tasks={**book.tasks, step: tuple(group)})
        self._book = book
        await self._publish(list(reasons))

    async def _taken(self, book: Book, ends: dict[TaskId, End]) -> Passed:
        """Take the run on, with what that needs of the store of blobs."""
        shelf = Shelf(self._plant.stores.blobs)
        while True:
            # Shielded: what is recorded must reach the reconciler, whoever is cancelled meanwhile.
            recording = asyncio.ensure_future(self._record(book, ends, shelf))
            try:
                return await asyncio.shield(recording)
            except Lacking:
                await asyncio.to_thread(shelf.bring)

    async def _record(self, book: Book, ends: dict[TaskId, End], shelf: Shelf) -> Passed:
        """Write a pass down, and let the rest of the controller know. Raises Lacking."""
        plant, now = self._plant, self._plant.now()
        passed = await plant.database.write(
            lambda session: advance(session, plant.stores, shelf, book, ends, now)
        )
        if passed.stale:
            return passed
        tasks = {name: tuple(group) for name, group in passed.tasks.items()}
        self._book = Book(book.number, book.spec, book.steered, tasks)
        for task in ends:
            self._places.pop(task, None)
        for made in passed.made:
            if made.sweep is not None:
                self._places[made.task] = Place(None, made.sweep)
                plant.sweeps.begin(made.sweep)
                continue
            entered = made.entered
            assert entered is not None and made.spec is not None
            self._places[made.task] = Place(entered.number, None)
            if entered.row is None:
                continue  # its key was known, and so is the job
            live = plant.reconciler.add(entered.row, new_job(entered.row), made.spec)
            plant.hub.publish("jobs", live.view["id"], live.view)
            plant.hub.announce(entered.events)
        plant.hub.announce(passed.events)
        for name, number in passed.changed:
            if passed.tasks[name][number].state == "RUNNING":
                self._places.setdefault((name, number), Place(None, None))
        self._watch()
        return passed

    def _watch(self) -> None:
        topics = {f"job:{job_name(place.job)}" for place in self._places.values() if place.job}
        topics |= {f"sweep:s{place.sweep}" for place in self._places.values() if place.sweep}
        if self._book is not None:
            steps = self._book.spec.steps
            acts = {steps[name].kind for (name, _), one in self._places.items() if _is_act(one)}
            topics |= {_HINTS[kind] for kind in acts & _HINTS.keys()}
        self._subscription.topics = frozenset(topics)

    async def _cancel(self, passed: Passed) -> None:
        """Stop what runs, when the run is being stopped."""
        assert passed.decision is not None
        if not passed.decision.stop:
            return
        who = Caller(f"pipeline {self.name}", self._uid)
        for task, place in list(self._places.items()):
            if task in self._cancelled:
                continue
            with contextlib.suppress(Conflict):  # it has ended meanwhile
                if place.job is not None:
                    await self._plant.reconciler.cancel(place.job, who)
                elif place.sweep is not None:
                    await self._plant.sweeps.stop(place.sweep, who)
            self._cancelled.add(task)

    async def _show(self, passed: Passed) -> None:
        """Tell watchers what has changed."""
        assert passed.decision is not None
        if passed.changed or passed.decision.state in ENDED:
            await self._publish(passed.changed)

    async def _publish(self, changed: list[TaskId]) -> None:
        hub, topic = self._plant.hub, f"pipeline:{self.name}"
        shown = changed if hub.watched(topic) else []

        def read(session: Session) -> tuple[PipelineView, list[TaskView]]:
            row = flowwriting.get(session, self.number)
            view = flowreading.pipeline_view(session, row)
            return view, flowreading.task_views(session, row, shown)

        view, tasks = await self._plant.database.read(read)
        for task in tasks:
            hub.publish(topic, f"{task['step']}/{task['number']}", task, keep=False)
        hub.publish("pipelines", self.name, view)
        hub.publish(topic, self.name, view, keep=False)


_HINTS = {"approval": "models", "deploy": "deployments"}
"""What may end a step that waits, by its kind. The others wait for nobody."""


def _is_act(place: Place) -> bool:
    """Whether a task that runs has neither a job nor a sweep: the controller takes it itself."""
    return place.job is None and place.sweep is None
