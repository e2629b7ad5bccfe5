"""The course of one sweep: asks its study for points, runs them as jobs, tells how they ended.

Level-triggered, like the reconciler: each pass reads what is so, decides (`jobs.sweeps`), and acts; a
wake-up is a hint. What makes a crash harmless is the order of the effects:

    asked of Optuna → recorded here with its job, in one transaction
    told to Optuna  → recorded here as over

A point that Optuna has and we do not is adopted at the next start; a trial that Optuna holds for over
and we for open is told again, which changes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from sqlmodel import Session

from agents.controller.database import Database
from agents.controller.hub import Hub
from agents.controller.reconciler import Reconciler
from agents.controller.secretstore import SecretStore
from agents.controller.studies import Asked, Studies, Study
from jobs import lifecycle as lc
from jobs import queries, registry, sweepqueries, sweepstore
from jobs.command import Scalar
from jobs.errors import Conflict, QuarterdeckError
from jobs.names import job_name, parse_run
from jobs.registry import Caller
from jobs.sweeps import ENDED, Decision, Tally, Verdict, decide, verdict
from jobs.sweepspec import SweepSpec
from jobs.sweepstore import Facts, OpenTrial
from jobs.sweeptables import SweepTrialRow
from jobs.tables import JobRow
from jobs.views import EventView

log = logging.getLogger(__name__)

ASK_AT_ONCE = 4
"""Points asked for before their jobs are recorded: the first of many should not wait for the last."""
LOOK_EVERY = 10.0
"""Seconds between two passes when nothing hints at a change."""
DEADLINE_EVERY = 1.0
"""The same while a budget runs: a clock may be set."""
SHOW_EVERY = 0.2
"""Seconds between two tellings of what watchers see."""
RETRY_AFTER = 1.0


@dataclass(frozen=True, slots=True)
class Plant:
    """What all sweeps share. `now` is unix time, `monotonic` never jumps; both in seconds."""

    database: Database
    studies: Studies
    reconciler: Reconciler
    hub: Hub
    sweep_secrets: SecretStore
    job_secrets: SecretStore
    now: Callable[[], float]
    monotonic: Callable[[], float]


_Points = tuple[OpenTrial, int, list[tuple[int, float | None]]]
"""A trial, the cursor behind what it has logged, and that as (step, value)."""


@dataclass(slots=True)
class _Changes:
    """What one pass has found and done, to be recorded together."""

    decision: Decision
    verdicts: list[tuple[OpenTrial, Verdict]]
    asked: list[Asked]
    prune: set[int] = field(default_factory=set)  # numbers of trials


class SweepRun:
    def __init__(self, number: int, plant: Plant) -> None:
        self.number, self._plant = number, plant
        self.name = sweepstore.sweep_name(number)
        self.asked = False  # a person's change that no pass has seen yet
        self._subscription = plant.hub.subscribe([], hints_only=True)
        self._jobs: dict[int, int] = {}  # job -> trial, of open trials
        self._cursors: dict[int, int] = {}  # job -> newest metric point that was told
        self._logged: set[int] = set()  # jobs that have logged since
        self._stale: set[int] = set()  # trials that watchers have not seen yet
        self._shown = 0.0
        self._adopted: list[Asked] = []
        self._exhausted = False
        self._patience = 0.0
        self._spec: SweepSpec
        self._stored: object = None
        self._study: Study

    def wake(self) -> None:
        """Look again: a person has changed something."""
        self.asked = True
        self._subscription.wake.set()

    async def run(self) -> None:
        """Go on until the sweep is over. Whatever goes wrong is taken up again from the registry."""
        try:
            while True:
                try:
                    await self._load()
                    while not await self._pass():
                        await self._wait()
                    return
                except QuarterdeckError as error:
                    log.warning("%s: %s", self.name, error.message)
                except Exception:
                    log.exception("%s", self.name)
                await asyncio.sleep(RETRY_AFTER)
        finally:
            self._plant.hub.unsubscribe(self._subscription)

    # -- beginning ----------------------------------------------------------------------------------

    async def _load(self) -> None:
        """Open the study and find what a crash left between Optuna and the registry."""

        def read(session: Session) -> tuple[SweepSpec, str, set[int], list[tuple[int, int]]]:
            row = sweepstore.get(session, self.number)
            spec = sweepstore.spec_of(row)
            trials = sweepstore.facts(session, self.number, spec, self._plant.now()).open
            open_ = [(item.row.job_id, item.row.number) for item in trials]
            return spec, row.name, sweepstore.numbers(session, self.number), open_

        spec, name, known, open_ = await self._plant.database.read(read)
        study = sweepstore.study_name(self.number, name)
        self._spec, self._stored, self._exhausted = spec, None, False
        self._study = await self._plant.studies.open(study, spec)
        self._adopted = await self._plant.studies.run(self._study.adopt, known)
        self._jobs, self._cursors = dict(open_), {}
        self._logged = set(self._jobs)  # points may have come that nobody told
        self._watch()

    def _watch(self) -> None:
        topics = {f"{kind}:{job_name(job)}" for job in self._jobs for kind in ("job", "metrics")}
        self._subscription.topics = frozenset(topics)

    async def _wait(self) -> None:
        """Until something is worth a pass; shows meanwhile how the trials are."""
        subscription, plant = self._subscription, self._plant
        until = plant.monotonic() + self._patience
        while not self._hinted():
            left = until - plant.monotonic()
            if left <= 0:
                break
            if self._stale:
                left = min(left, self._shown + SHOW_EVERY - plant.monotonic())
                if left <= 0:
                    await self._show()
                    continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(left, DEADLINE_EVERY)):
                    await subscription.wake.wait()
        if self._stale and plant.monotonic() > self._shown + 5 * SHOW_EVERY:
            await self._show()  # one pass has followed the other all the time

    def _hinted(self) -> bool:
        """Whether what was told since is more than a job's way from the queue to its ranks."""
        subscription = self._subscription
        if not subscription.wake.is_set():
            return False
        subscription.wake.clear()
        if self.asked:
            return True
        dirty, subscription.dirty = subscription.dirty, set()
        worth = False
        for topic in dirty:
            kind, _, name = topic.partition(":")
            job = parse_run(name).job
            if job not in self._jobs:
                continue
            self._stale.add(self._jobs[job])
            if kind == "metrics":
                self._logged.add(job)
                # Without a pruner nobody waits for values: they are told with the trial's end.
                worth = worth or self._spec.pruner.name != "none"
            else:
                live = self._plant.reconciler.live.get(job)
                worth = worth or live is None or live.job.terminal
        return worth

    # -- one pass -----------------------------------------------------------------------------------

    async def _pass(self) -> bool:
        """Read, decide, act. True when the sweep is over."""
        plant, self.asked = self._plant, False
        logged, self._logged = self._logged, set()
        found, points = await plant.database.read(lambda session: self._read(session, logged))
        if found.row.spec != self._stored:
            await self._take_spec(found)
        changes = self._decide(found)
        await plant.studies.run(self._consult, points, changes)
        jobs = await self._record(found, changes)
        self._after(changes, jobs)
        await self._stop_unwanted(found, changes)
        if changes.decision.state in ENDED:
            await self._show()
            plant.sweep_secrets.drop(self.number)
            return True
        within = changes.decision.within
        self._patience = LOOK_EVERY if within is None else min(max(within, 0.0), DEADLINE_EVERY)
        if len(changes.asked) < changes.decision.ask or (changes.decision.stop and jobs):
            self._patience = 0.0  # there is more to ask for, an end to find, or more to stop
        return False

    def _read(self, session: Session, logged: set[int]) -> tuple[Facts, list[_Points]]:
        """What is so, and what trials have logged since it was last told to the study."""
        found = sweepstore.facts(session, self.number, self._spec, self._plant.now())
        points = []
        for trial in found.open if len(self._spec.metrics) == 1 else []:
            job = trial.row.job_id
            if job in logged or trial.end is not None:
                cursor = self._cursors.get(job, 0)
                new = sweepstore.points_after(session, job, self._spec.metrics[0], cursor)
                points.append((trial, *new))
        return found, points

    async def _take_spec(self, found: Facts) -> None:
        """A person has steered: other limits, more points."""
        self._spec, self._stored = sweepstore.spec_of(found.row), found.row.spec
        self._exhausted = False
        await self._plant.studies.run(self._study.enqueue, self._spec.enqueue)

    def _decide(self, found: Facts) -> _Changes:
        """Judge the trials whose jobs have ended, and decide what is next."""
        verdicts = []
        for trial in found.open:
            if trial.end is not None:
                judged = verdict(
                    self._spec.metrics,
                    trial.row.wish,  # type: ignore[arg-type]  # only wishes are stored
                    trial.row.losses,
                    self._spec.retries,
                    trial.end,
                )
                verdicts.append((trial, judged))
        tally = _counted(found.tally, [judged for _, judged in verdicts])
        adopted, self._adopted = self._adopted, []
        tally = replace(tally, open=tally.open + len(adopted), exhausted=self._exhausted)
        decision = decide(sweepstore.sweep_of(found.row, self._spec), tally, self._plant.now())
        return _Changes(decision, verdicts, adopted)

    def _consult(self, points: list[_Points], changes: _Changes) -> None:
        """What there is to say to the study, and to hear from it: values, ends, new points. Runs on
        Optuna's thread, in one go: a trial slot that is free waits for it."""
        if points or changes.verdicts or changes.decision.ask:
            with self._study.together():
                self._say_and_hear(points, changes)

    def _say_and_hear(self, points: list[_Points], changes: _Changes) -> None:
        for trial, cursor, new in points:
            prune = self._study.report(trial.row.number, new, pinned=trial.row.pinned)
            self._cursors[trial.row.job_id] = cursor
            if prune and trial.end is None and not trial.row.wish:
                changes.prune.add(trial.row.number)
        for trial, judged in changes.verdicts:
            if judged.state != "OPEN":
                self._study.tell(trial.row.number, judged.state, judged.values)
        for _ in range(min(changes.decision.ask, ASK_AT_ONCE)):
            asked = self._study.ask()
            if asked is None:
                self._exhausted = True
                break
            changes.asked.append(asked)

    async def _record(
        self, found: Facts, changes: _Changes
    ) -> list[tuple[int, JobRow, lc.Job, list[EventView]]]:
        """Write down what was found and done. Gives the new jobs, each with its trial's number."""
        decision, now = changes.decision, self._plant.now()
        wanted = (decision.state, decision.reason, decision.ending)
        moved = wanted != (found.row.state, found.row.reason, found.row.ending)
        if not (changes.verdicts or changes.prune or changes.asked or moved or decision.stop):
            return []
        number = self.number

        def write(session: Session) -> list[tuple[int, JobRow, lc.Job, list[EventView]]]:
            row = sweepstore.get(session, number)
            reruns = sweepstore.reruns(row)
            made: list[tuple[int, JobRow]] = []
            for item, judged in changes.verdicts:
                trial = session.get(SweepTrialRow, (number, item.row.number))
                assert trial is not None
                trial.gpu_seconds += sweepstore.gpu_seconds(item.job, now)
                trial.started_at = trial.started_at or item.job.started_at
                trial.reason = judged.reason
                session.add(trial)
                if judged.state == "OPEN":
                    trial.losses += 1
                    job = self._new_job(session, trial.number, trial.params, trial.losses)
                    trial.job_id = job.id or 0
                    made.append((trial.number, job))
                    continue
                trial.state, trial.ended_at = judged.state, item.job.ended_at or now
                trial.silent = judged.silent
                if judged.values is not None:
                    trial.values, trial.value = list(judged.values), judged.values[0]
            for point in changes.asked:
                job = self._new_job(session, point.number, point.params, 0)
                made.append((point.number, job))
                session.add(
                    SweepTrialRow(
                        sweep_id=number,
                        number=point.number,
                        params=point.params,
                        state="OPEN",
                        job_id=job.id or 0,
                        asked_at=now,
                        **_origin(point, reruns),
                    )
                )
            for item in found.open:
                trial = session.get(SweepTrialRow, (number, item.row.number))
                assert trial is not None
                if trial.state == "OPEN" and not trial.wish:
                    if decision.stop:
                        trial.wish = "stop"
                    elif trial.pinned:  # since it was read
                        changes.prune.discard(trial.number)
                    elif trial.number in changes.prune:
                        trial.wish = "prune"
                    session.add(trial)
            # A person may have stopped or paused it since it was read: that stays, until the next pass.
            if moved and (row.state, row.paused_at) == (found.row.state, found.row.paused_at):
                row.state, row.reason, row.ending = wanted
                if decision.state in ENDED:
                    row.ended_at = now
                    sweepstore.note(session, row, f"sweep.{row.state.lower()}", row.reason, now)
                session.add(row)
            session.flush()
            return [
                (
                    trial_number,
                    job,
                    registry.load_job(session, job),
                    queries.events(session, 0, 1, job.id, newest=True),
                )
                for trial_number, job in made
            ]

        return await self._plant.database.write(write)

    def _new_job(
        self, session: Session, number: int, params: dict[str, Scalar], losses: int
    ) -> JobRow:
        row = sweepstore.get(session, self.number)
        spec = self._spec.job_of(self.name, number, params)
        job = sweepstore.create_job(session, row, spec, number, losses, self._plant.now())
        secrets = self._plant.sweep_secrets.load(self.number)
        if secrets and job.id is not None:
            self._plant.job_secrets.save(job.id, secrets)  # before the commit: see `submitting`
        return job

    def _after(
        self, changes: _Changes, jobs: list[tuple[int, JobRow, lc.Job, list[EventView]]]
    ) -> None:
        """Let the rest of the controller know of what was recorded."""
        for trial, _ in changes.verdicts:
            self._jobs.pop(trial.row.job_id, None)
            self._cursors.pop(trial.row.job_id, None)
            self._stale.add(trial.row.number)
        for number, row, job, events in jobs:
            self._jobs[job.id] = number
            self._stale.add(number)
            if job.id in self._plant.reconciler.live:
                continue  # its key was known: a crash came between its recording and ours
            live = self._plant.reconciler.add(row, job)
            self._plant.hub.publish("jobs", live.view["id"], live.view)
            for event in events:
                self._plant.hub.publish("events", str(event["id"]), event)
        self._watch()
        # The first points of a new job may have come before it was watched.
        self._logged |= {job.id for _, _, job, _ in jobs}

    async def _stop_unwanted(self, found: Facts, changes: _Changes) -> None:
        """Cancel the jobs of trials that are to be pruned or stopped, those of earlier passes too."""
        who = Caller(f"sweep {self.name}", found.row.uid)
        for trial in found.open:
            wanted = trial.row.wish or changes.decision.stop or trial.row.number in changes.prune
            if not wanted or trial.end is not None or trial.job.intent == "cancel":
                continue
            with contextlib.suppress(Conflict):  # it has ended meanwhile
                await self._plant.reconciler.cancel(trial.row.job_id, who)
            self._stale.add(trial.row.number)

    async def _show(self) -> None:
        """Tell watchers how the sweep and the trials that have changed are."""
        plant, stale, self._stale = self._plant, self._stale, set()
        self._shown = plant.monotonic()

        def read(session: Session) -> tuple[object, list[object]]:
            row = sweepstore.get(session, self.number)
            view = sweepqueries.sweep_view(session, row, plant.now())
            return view, [*sweepqueries.trial_views(session, self.number, plant.now(), stale)]

        view, trials = await plant.database.read(read)
        plant.hub.publish("sweeps", self.name, view)
        plant.hub.publish(f"sweep:{self.name}", self.name, view, keep=False)
        for trial in trials:
            key = str(trial["number"])  # type: ignore[index]
            plant.hub.publish(f"sweep:{self.name}", key, trial, keep=False)


def _counted(tally: Tally, verdicts: list[Verdict]) -> Tally:
    """A tally as it will be once these verdicts are recorded."""
    for judged in verdicts:
        if judged.state == "OPEN":
            continue
        name = judged.state.lower()
        tally = replace(
            tally,
            open=tally.open - 1,
            silent=tally.silent + judged.silent,
            **{name: getattr(tally, name) + 1},
        )
    return tally


def _origin(asked: Asked, reruns: Mapping[str, int]) -> dict[str, Any]:
    """Where a trial's point comes from, as its row says it."""
    if asked.point is None:
        return {"origin": "drawn"}
    again = reruns.get(str(asked.point))
    return {"origin": "enqueued"} if again is None else {"origin": "rerun", "parent": again}
