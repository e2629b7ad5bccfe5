"""The course of one sweep: asks its study for points, runs them as jobs, tells how they ended.

Level-triggered, like the reconciler: each pass reads what is so, decides
(`jobs.sweeps.decisions`), and acts; a wake-up is a hint.
What makes a crash harmless is the order of the effects:

    asked of Optuna → recorded here with its job, in one transaction
    told to Optuna  → recorded here as over

A point that Optuna has and we do not is adopted at the next start; a trial that Optuna holds for over
and we for open is told again, which changes nothing.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

from sqlmodel import Session

from agents.controller.core.reconciler import Reconciler
from agents.controller.stores.database import Database
from agents.controller.stores.hub import Hub
from agents.controller.stores.secretstore import SecretStore
from agents.controller.sweeps.studies import Asked, Studies, Study
from agents.controller.sweeps.sweeprecord import Changes, Made, judge, record
from agents.loops import loop, woken
from jobs.base.errors import Conflict, QuarterdeckError
from jobs.base.names import job_name, parse_run
from jobs.base.words import counted
from jobs.store import sweepfacts, sweepreading, sweepwriting
from jobs.store.loading import new_job
from jobs.store.sweepfacts import Facts, OpenTrial
from jobs.store.writing import Caller
from jobs.sweeps.decisions import ENDED, decide, tallied
from jobs.sweeps.populations import choose
from jobs.sweeps.spec import SweepSpec
from jobs.wire.views import EventView

log = logging.getLogger(__name__)

ASK_AT_ONCE = 4
"""Points asked for before their jobs are recorded: the first of many should not wait for the last."""
LOOK_EVERY = 10.0
"""Seconds between two passes when nothing hints at a change."""
DEADLINE_EVERY = 1.0
"""The same while a budget runs: a clock may be set."""
SHOW_EVERY = 0.2
"""Seconds between two tellings of what watchers see."""
RETRY = (1.0, 30.0)
"""Seconds to wait after a pass that failed: the first time, and after many."""


@dataclass(frozen=True, slots=True)
class Plant:
    """What all sweeps share. `now` is unix time, `monotonic` never jumps; both in seconds. `tell` says
    what is wrong with a source at the moment, "" that nothing is."""

    database: Database
    studies: Studies
    reconciler: Reconciler
    hub: Hub
    sweep_secrets: SecretStore
    job_secrets: SecretStore
    now: Callable[[], float]
    monotonic: Callable[[], float]
    tell: Callable[[str, str], None]


_Points = tuple[OpenTrial, int, list[tuple[int, float | None]]]
"""A trial, the cursor behind what it has logged, and that as (step, value)."""


class SweepRun:
    def __init__(self, number: int, plant: Plant) -> None:
        self.number, self._plant = number, plant
        self.name = sweepwriting.sweep_name(number)
        self.asked = False  # a person's change that no pass has seen yet
        self._offset = plant.reconciler.clock.offset
        self._at = plant.now()  # of this pass
        self._subscription = plant.hub.subscribe([], hints_only=True)
        self._jobs: dict[int, int] = {}  # job -> trial, of open trials
        self._cursors: dict[int, int] = {}  # job -> newest metric point that was told
        self._logged: set[int] = set()  # jobs that have logged since
        self._stale: set[int] = set()  # trials that watchers have not seen yet
        self._shown = 0.0
        self._adopted: list[Asked] = []
        self._exhausted, self._stuck = False, ""
        self._trouble = ""  # what keeps it from going on
        self._patience = 0.0
        self._spec: SweepSpec
        self._stored: object = None
        self._loaded = False  # whether the study is what the registry holds
        self._study: Study

    def wake(self) -> None:
        """Look again: a person has changed something."""
        self.asked = True
        self._subscription.wake.set()

    async def run(self) -> None:
        """Go on until the sweep is over. Whatever goes wrong is taken up again from the registry."""
        try:
            await loop(self.name, self._turn, self._wait, self._complain, again=RETRY)
        finally:
            self._plant.tell(f"sweep {self.name}", "")
            self._plant.hub.unsubscribe(self._subscription)

    async def _turn(self) -> bool:
        if not self._loaded:
            await self._load()
        self._loaded = False  # should the pass fail
        over = await self._pass()
        self._loaded = True
        return over

    async def _complain(self, trouble: str) -> None:
        """Say what keeps the sweep from going on, in `qd status` and once as an event; "" when it does."""
        if trouble == self._trouble:
            return
        self._trouble = trouble
        self._plant.tell(f"sweep {self.name}", trouble)
        told = f"cannot go on: {trouble}" if trouble else "goes on"
        with contextlib.suppress(QuarterdeckError):  # the registry itself may be what is wrong
            await self._note("sweep.trouble" if trouble else "sweep.well", told)

    # -- beginning ----------------------------------------------------------------------------------

    async def _load(self) -> None:
        """Open the study and find what a crash left between Optuna and the registry."""

        def read(session: Session) -> tuple[SweepSpec, str, set[int], list[tuple[int, int]]]:
            row = sweepwriting.get(session, self.number)
            spec = sweepwriting.spec_of(row)
            trials = sweepfacts.facts(session, self.number, spec, self._plant.now()).open
            open_ = [(item.row.job_id, item.row.number) for item in trials]
            return spec, row.name, sweepwriting.numbers(session, self.number), open_

        spec, name, known, open_ = await self._plant.database.read(read)
        study = sweepwriting.study_name(self.number, name)
        self._spec, self._stored, self._exhausted, self._stuck = spec, None, False, ""
        self._study = await self._plant.studies.open(study, spec)
        if spec.warm_start:
            await self._warm()
        self._adopted = await self._plant.studies.run(self._study.adopt, known)
        self._jobs, self._cursors = dict(open_), {}
        self._logged = set(self._jobs)  # points may have come that nobody told
        self._watch()

    async def _warm(self) -> None:
        """Let the study take over what the sweeps know that it was told to start from."""

        def lenders(session: Session) -> list[str]:
            rows = [
                sweepwriting.get(session, sweepwriting.resolve(session, text))
                for text in self._spec.warm_start
            ]
            return [sweepwriting.study_name(row.id or 0, row.name) for row in rows]

        def lend(names: list[str]) -> int | None:
            with self._study.together():
                return self._study.warm(names)

        names = await self._plant.database.read(lenders)
        lent = await self._plant.studies.run(lend, names)
        if lent is not None:
            told = f"starts from {counted(lent, 'trial')} of {', '.join(self._spec.warm_start)}"
            await self._note("sweep.warm", told)

    async def _note(self, kind: str, text: str) -> None:
        now = self._plant.now()

        def write(session: Session) -> list[EventView]:
            row = sweepwriting.get(session, self.number)
            return sweepwriting.note(session, row, kind, text, now)

        self._plant.hub.announce(await self._plant.database.write(write))

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
            await woken(subscription.wake, min(left, DEADLINE_EVERY))
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
        await self._heed_the_clock()
        found, points = await plant.database.read(lambda session: self._read(session, logged))
        if found.row.spec != self._stored:
            await self._take_spec(found)
        changes = self._decide(found)
        if self._spec.sampler.name == "pbt":
            await self._choose(found, changes)
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
        more = len(changes.asked) < changes.decision.ask or (changes.decision.stop and jobs)
        if more or changes.again:
            self._patience = 0.0  # there is more to ask for, an end to find, or more to stop
        return False

    async def _heed_the_clock(self) -> None:
        """Budgets are counted from stored times. Once the clock was set, those of jobs, and of this sweep, go
        along before anything is decided: it would be over for an hour that never was."""
        plant = self._plant
        await plant.reconciler.keep_times()
        self._at = plant.reconciler.clock.stored()
        moved = plant.reconciler.clock.offset - self._offset
        if not moved:
            return

        def move(session: Session) -> None:
            row = sweepwriting.get(session, self.number)
            row.paused_for += moved
            if row.paused_at is not None:
                row.paused_at += moved
            session.add(row)

        await plant.database.write(move)
        self._offset += moved

    def _read(self, session: Session, logged: set[int]) -> tuple[Facts, list[_Points]]:
        """What is so, and what trials have logged since it was last told to the study."""
        found = sweepfacts.facts(session, self.number, self._spec, self._at)
        points = []
        for trial in found.open if len(self._spec.metrics) == 1 else []:
            job = trial.row.job_id
            if job in logged or trial.end is not None:
                cursor = self._cursors.get(job, 0)
                new = sweepwriting.points_after(session, job, self._spec.metrics[0], cursor)
                points.append((trial, *new))
        return found, points

    async def _take_spec(self, found: Facts) -> None:
        """A person has steered: other limits, more points."""
        self._spec, self._stored = sweepwriting.spec_of(found.row), found.row.spec
        self._exhausted, self._stuck = False, ""
        await self._plant.studies.run(self._study.enqueue, self._spec.enqueue)

    def _decide(self, found: Facts) -> Changes:
        """Judge the trials whose jobs have ended, and decide what is next."""
        verdicts = [
            (trial, judge(self._spec, trial, trial.end)) for trial in found.open if trial.end
        ]
        tally = tallied(found.tally, [judged for _, judged in verdicts])
        adopted, self._adopted = self._adopted, []
        tally = replace(
            tally,
            open=tally.open + len(adopted),
            exhausted=self._exhausted,
            stuck=self._stuck or self._study.exhausted,
        )
        decision = decide(sweepwriting.sweep_of(found.row, self._spec), tally, self._at)
        return Changes(decision, verdicts, adopted)

    async def _choose(self, found: Facts, changes: Changes) -> None:
        """Whose turns of a population are next. What has only just ended is recorded first."""
        spec, number = self._spec, self.number
        if changes.verdicts or changes.asked or not changes.decision.ask:
            changes.again = changes.decision.ask > 0
            changes.decision = replace(changes.decision, ask=0)
            return
        turns = await self._plant.database.read(lambda session: sweepwriting.turns(session, number))
        choice = choose(
            spec.population,
            spec.space,
            turns,
            changes.decision.ask,
            maximize=spec.objective[0].goal == "maximize",
            enqueued=spec.enqueue,
            admits=spec.admits,
            seed=f"{found.row.submitted_at if spec.seed is None else spec.seed}",
            reruns=sweepwriting.to_run_again(found.row),
        )
        if choice.stuck:
            self._exhausted, self._stuck, changes.again = True, choice.stuck, True
        changes.turns = choice.turns
        changes.decision = replace(changes.decision, ask=len(choice.turns))

    def _consult(self, points: list[_Points], changes: Changes) -> None:
        """What there is to say to the study, and to hear from it: values, ends, new points. Runs on
        Optuna's thread, in one go: a trial slot that is free waits for it."""
        if points or changes.verdicts or changes.decision.ask:
            with self._study.together():
                self._say_and_hear(points, changes)

    def _say_and_hear(self, points: list[_Points], changes: Changes) -> None:
        for trial, cursor, new in points:
            prune = self._study.report(trial.row.number, new, pinned=trial.row.pinned)
            self._cursors[trial.row.job_id] = cursor
            if prune and trial.end is None and not trial.row.wish:
                changes.prune.add(trial.row.number)
        for trial, judged in changes.verdicts:
            if judged.state != "OPEN":
                self._study.tell(trial.row.number, judged.state, judged.values, judged.constraints)
        for number in range(min(changes.decision.ask, ASK_AT_ONCE)):
            turns = changes.turns
            asked = self._study.begin(turns[number]) if turns else self._study.ask()
            if asked is None:
                self._exhausted = True
                break
            changes.asked.append(asked)

    async def _record(self, found: Facts, changes: Changes) -> list[Made]:
        """Write down what was found and done. Gives the new jobs, each with its trial's number."""
        now = self._plant.now()
        news = changes.verdicts or changes.prune or changes.asked or changes.decision.stop
        if not news and not changes.move(found.row):
            return []

        def write(session: Session) -> list[Made]:
            made = record(session, self.number, self._spec, found, changes, now)
            secrets = self._plant.sweep_secrets.load(self.number) if made else None
            for item in made if secrets else ():
                # Before the commit: see `submitting`.
                self._plant.job_secrets.save(item.entered.number, secrets or {})
            return made

        return await self._plant.database.write(write)

    def _after(self, changes: Changes, jobs: list[Made]) -> None:
        """Let the rest of the controller know of what was recorded."""
        for trial, _ in changes.verdicts:
            self._jobs.pop(trial.row.job_id, None)
            self._cursors.pop(trial.row.job_id, None)
            self._stale.add(trial.row.number)
        for made in jobs:
            entered = made.entered
            self._jobs[entered.number] = made.trial
            self._stale.add(made.trial)
            if entered.row is None:
                continue  # its key was known, and so is the job
            live = self._plant.reconciler.add(entered.row, new_job(entered.row), made.spec)
            self._plant.hub.publish("jobs", live.view["id"], live.view)
            self._plant.hub.announce(entered.events)
        self._watch()
        # The first points of a new job may have come before it was watched.
        self._logged |= {made.entered.number for made in jobs}

    async def _stop_unwanted(self, found: Facts, changes: Changes) -> None:
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
            row = sweepwriting.get(session, self.number)
            view = sweepreading.sweep_view(session, row, plant.now())
            return view, [*sweepreading.trial_views(session, self.number, plant.now(), stale)]

        view, trials = await plant.database.read(read)
        plant.hub.publish("sweeps", self.name, view)
        plant.hub.publish(f"sweep:{self.name}", self.name, view, keep=False)
        for trial in trials:
            key = str(trial["number"])  # type: ignore[index]
            plant.hub.publish(f"sweep:{self.name}", key, trial, keep=False)
