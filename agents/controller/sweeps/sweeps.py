"""All sweeps of a controller: taking them in, steering them, and one `SweepRun` for each that runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlmodel import Session

from agents.controller.sweeps.studies import Study
from agents.controller.sweeps.sweeprun import Plant, SweepRun
from jobs.base.errors import Conflict, InvalidInput
from jobs.spec.command import Scalar
from jobs.store import sweepreading, sweepwriting
from jobs.store.sweeptables import SweepRow, SweepTrialRow
from jobs.store.writing import Caller
from jobs.sweeps.decisions import ENDED
from jobs.sweeps.spec import SweepSpec
from jobs.wire.sweepviews import SweepView, TrialView


class Sweeps:
    """Owns the running sweeps. Every change by a person is one transaction, and then a hint."""

    def __init__(self, plant: Plant) -> None:
        self._plant = plant
        self._runs: dict[int, SweepRun] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}

    async def load(self) -> None:
        """Go on with every sweep that is not over."""
        for number in await self._plant.database.read(sweepwriting.active):
            self.begin(number)

    async def close(self) -> None:
        """Stop looking after sweeps; their jobs run on."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        await asyncio.to_thread(self._plant.studies.close)

    def begin(self, number: int) -> None:
        """Look after a sweep that is recorded, or look again."""
        if number in self._runs:
            self._runs[number].wake()
            return
        run = self._runs[number] = SweepRun(number, self._plant)
        task = asyncio.create_task(run.run(), name=f"sweep-s{number}")
        self._tasks[number] = task
        task.add_done_callback(lambda _: self._end(number))

    def _end(self, number: int) -> None:
        run = self._runs.pop(number)
        if not self._tasks.pop(number).cancelled() and run.asked:
            self.begin(number)  # it was extended in the moment that it ended

    # -- what people ask ----------------------------------------------------------------------------

    async def submit(
        self,
        spec: SweepSpec,
        who: Caller,
        *,
        key: str | None,
        snapshot: str | None,
        git: Mapping[str, Any] | None,
        secrets: Mapping[str, str],
        prepare: Callable[[Session], None],
    ) -> tuple[SweepView, bool]:
        """Record a sweep, durably, and begin it; the same caller with the same key gets the same one.

        Args:
            prepare: more to write in the same transaction (the snapshot).
        """
        now = self._plant.now()

        def write(session: Session) -> tuple[SweepView, bool]:
            prepare(session)
            row, created = sweepwriting.create(
                session, spec, who, now, key=key, snapshot=snapshot, git=git
            )
            if created and secrets and row.id is not None:
                self._plant.sweep_secrets.save(row.id, dict(secrets))
            return sweepreading.sweep_view(session, row, now), created

        view, created = await self._plant.database.write(write)
        if created:
            self._plant.hub.publish("sweeps", view["id"], view)
            self.begin(int(view["id"][1:]))
        return view, created

    async def stop(self, number: int, who: Caller) -> SweepView:
        """End a sweep: its open trials are stopped, and the sampler is not told to mind them."""

        def change(_session: Session, row: SweepRow, _now: float) -> None:
            row.state, row.ending = "STOPPING", "FINISHED"
            row.reason = f"stopped by {who.user}"

        return await self._steer(number, who, "sweep.stop", {}, change)

    async def pause(self, number: int, who: Caller) -> SweepView:
        """Ask for no more trials; those that are open go on, and the time budget stands still."""

        def change(_session: Session, row: SweepRow, now: float) -> None:
            if row.state == "RUNNING":
                row.state, row.paused_at, row.reason = "PAUSED", now, f"paused by {who.user}"

        return await self._steer(number, who, "sweep.pause", {}, change)

    async def resume(self, number: int, who: Caller) -> SweepView:
        def change(_session: Session, row: SweepRow, now: float) -> None:
            if row.state == "PAUSED" and row.paused_at is not None:
                row.paused_for += max(now - row.paused_at, 0.0)
                row.state, row.paused_at, row.reason = "RUNNING", None, ""

        return await self._steer(number, who, "sweep.resume", {}, change)

    async def extend(
        self,
        number: int,
        who: Caller,
        *,
        trials: int | None = None,
        parallel: int | None = None,
        time: float | None = None,
        gpu_hours: float | None = None,
        generations: int | None = None,
        points: Sequence[Mapping[str, Scalar]] = (),
    ) -> SweepView:
        """Change the limits of a sweep, or have more points tried. One that was over goes on when its
        new limits allow for more.

        Args:
            trials, parallel, time, gpu_hours: the new limits; None leaves the old one.
            generations: turns of each member of a population.
            points: tried before others; they count as trials.

        Raises:
            InvalidInput: a limit or a point that the sweep cannot have.
        """
        given = {"trials": trials, "parallel": parallel, "time": time, "gpu_hours": gpu_hours}
        data = {name: value for name, value in given.items() if value is not None}
        if generations is not None:
            data["generations"] = generations

        def change(session: Session, row: SweepRow, now: float) -> None:
            _may_go_on(row)
            done = sweepwriting.ended(session, row.id or 0)
            if trials is not None and trials < done:
                raise InvalidInput(
                    f"trials: found {trials}; allowed: at least {done}, which are done already",
                    f"`qd sweep-stop s{row.id}` ends it now.",
                )
            spec = sweepwriting.plain(row)
            budget = dict(spec["budget"])
            for name, value in data.items():
                if name == "generations":
                    _extend_population(spec, generations)
                else:
                    (spec if name in ("trials", "parallel") else budget)[name] = value
            spec |= {"budget": budget, "enqueue": [*spec["enqueue"], *map(dict, points)]}
            row.spec = sweepwriting.stored(
                sweepwriting.changed(row, spec), sweepwriting.reruns(row)
            )
            if data.keys() != {"parallel"}:
                _go_on(row, now)

        logged = {**data, "points": [dict(point) for point in points]} if points else data
        return await self._steer(number, who, "sweep.extend", logged, change, ended=True)

    async def prune(self, number: int, trial: int, who: Caller) -> TrialView:
        """Stop one trial by hand; the sampler is told that it was pruned.

        Raises:
            NotFound: no such trial.
            Conflict: it is over.
        """

        def change(session: Session, _row: SweepRow, _now: float) -> None:
            row = _open(session, number, trial)
            row.wish = row.wish or "prune"
            session.add(row)

        await self._steer(number, who, "sweep.prune", {"trial": trial}, change)
        return await self._trial(number, trial)

    async def pin(self, number: int, trial: int, who: Caller, *, pinned: bool) -> TrialView:
        """Keep the pruner from ending a trial, or let it again.

        Raises:
            NotFound: no such trial.
            Conflict: it is over, or is being ended already.
        """

        def change(session: Session, _row: SweepRow, _now: float) -> None:
            row = _open(session, number, trial)
            if pinned and row.wish:
                raise Conflict(f"trial {trial} of s{number} is already being stopped")
            row.pinned = pinned
            session.add(row)

        action = "sweep.pin" if pinned else "sweep.unpin"
        await self._steer(number, who, action, {"trial": trial}, change)
        view = await self._trial(number, trial)
        self._plant.hub.publish(f"sweep:s{number}", str(trial), view, keep=False)
        return view

    async def rerun(self, number: int, trial: int, who: Caller) -> SweepView:
        """Run a trial's point once more, as a new trial, before others; a sweep that is over goes on
        for it. In a population, it begins with the checkpoint that the trial began with.

        Raises:
            NotFound: no such trial.
            Conflict: a sweep whose secrets are gone; of a population a trial that is not over, or
                whose beginning is not kept any more.
        """

        def change(session: Session, row: SweepRow, now: float) -> None:
            again = sweepwriting.trial_of(session, number, trial)
            _may_go_on(row)
            spec = sweepwriting.spec_of(row)
            if spec.sampler.name == "pbt":
                if again.state == "OPEN":
                    raise Conflict(f"trial {trial} of s{number} is not over")
                sweepwriting.start_of(session, again)  # refuses when it is gone
                known = sweepwriting.reruns(row)
                row.spec = sweepwriting.stored(spec, {**known, str(len(known)): trial})
                return _go_on(row, now)
            data = sweepwriting.plain(row)
            points = data["enqueue"]
            data["enqueue"] = [*points, again.params]
            if spec.trials is not None:
                data["trials"] = spec.trials + 1  # it takes the place of none
            reruns = {**sweepwriting.reruns(row), str(len(points)): trial}
            row.spec = sweepwriting.stored(sweepwriting.changed(row, data), reruns)
            return _go_on(row, now)

        return await self._steer(number, who, "sweep.rerun", {"trial": trial}, change, ended=True)

    async def _trial(self, number: int, trial: int) -> TrialView:
        now = self._plant.now()
        found = await self._plant.database.read(
            lambda session: sweepreading.trial_views(session, number, now, [trial])
        )
        return found[0]

    async def _steer(
        self,
        number: int,
        who: Caller,
        action: str,
        data: Mapping[str, Any],
        change: Callable[[Session, SweepRow, float], None],
        *,
        ended: bool = False,
    ) -> SweepView:
        """Change a sweep in one transaction with its audit row. `ended`: also one that is over."""
        now = self._plant.now()

        def write(session: Session) -> SweepView:
            row = sweepwriting.get(session, number)
            if row.state in ENDED and not ended:
                raise Conflict(f"s{number} is over: {row.reason}")
            change(session, row, now)
            session.add(row)
            sweepwriting.record(session, row, who, action, now, data)
            session.flush()
            return sweepreading.sweep_view(session, row, now)

        view = await self._plant.database.write(write)
        self._plant.hub.publish("sweeps", view["id"], view)
        self._plant.hub.publish(f"sweep:{view['id']}", view["id"], view, keep=False)
        if view["state"] not in ENDED:
            self.begin(number)
        return view

    async def importance(self, number: int) -> dict[str, float]:
        """How much each parameter matters to the first objective; they sum to 1."""

        def read(session: Session) -> tuple[str, SweepSpec]:
            row = sweepwriting.get(session, number)
            return sweepwriting.study_name(number, row.name), sweepwriting.spec_of(row)

        name, spec = await self._plant.database.read(read)
        study: Study = await self._plant.studies.open(name, spec)
        return await self._plant.studies.run(study.importance)


def _open(session: Session, number: int, trial: int) -> SweepTrialRow:
    row = sweepwriting.trial_of(session, number, trial)
    if row.state != "OPEN":
        raise Conflict(f"trial {trial} of s{number} is over: it is {row.state}")
    return row


def _extend_population(spec: dict[str, Any], generations: int | None) -> None:
    options = spec["sampler"].get("pbt")
    if options is None:
        raise InvalidInput("generations: only a population has them (`sampler: pbt`)")
    if generations is None or generations < options["generations"]:
        raise InvalidInput(f"generations: found {generations}; allowed: more than it has")
    spec["sampler"] = {"pbt": {**options, "generations": generations}}


def _may_go_on(row: SweepRow) -> None:
    if row.state in ENDED and row.spec["job"]["secrets"]:
        raise Conflict(
            f"s{row.id} is over, and the values of its secrets are no longer stored",
            "Start a new sweep from its file.",
        )


def _go_on(row: SweepRow, now: float) -> None:
    """Have a sweep that is over run again."""
    if row.state in ENDED:
        assert row.ended_at is not None
        row.paused_for += max(now - row.ended_at, 0.0)  # over is no time of its own
        row.state, row.reason, row.ending, row.ended_at = "RUNNING", "", None, None
