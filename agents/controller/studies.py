"""Optuna's end of sweeps: its studies in our database, asked and told from one thread.

Optuna is imported when the first sweep needs it (half a second), and every call of it runs on one
thread of its own. Its storage is plain: `optuna-dashboard` and `optuna.load_study` read it.

Two facts make this safe to kill at any moment. Optuna's rows are committed before ours that speak of
them, and in SQLite's write-ahead log a later commit that is synced carries all earlier ones. And every
call can be made again: what Optuna has that we do not know of is adopted (`Study.adopt`).
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from agents.controller.samplers import make_pruner, make_sampler, quietly
from jobs import searchspace
from jobs.command import Scalar
from jobs.sweeps import TrialState
from jobs.sweepspec import SweepSpec

if TYPE_CHECKING:
    from optuna.trial import Trial

    from agents.controller.studystorage import StudyStorage

T = TypeVar("T")

MAX_REPORTED = 1000
"""Intermediate values of a trial that are kept for the pruner; each is a row and a commit."""
_POINT, _CELL = "quarterdeck:point", "quarterdeck:grid"
"""User attributes: which enqueued point a trial is of, or which point of the grid."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A point to try, by the number that the trial has in Optuna and here."""

    number: int
    params: dict[str, Scalar]
    point: int | None = None  # which of the enqueued points it is


class Studies:
    """All studies of a registry.

    Args:
        url: an SQLAlchemy URL; Optuna's tables are made there when the first study is opened.
        turn: held while something is written.
    """

    def __init__(self, url: str, turn: threading.Lock) -> None:
        self._url, self._turn = url, turn
        self._storage: StudyStorage | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="optuna")

    async def run(self, fn: Callable[..., T], *args: Any) -> T:
        """Run `fn` on Optuna's thread."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, fn, *args)

    async def open(self, name: str, spec: SweepSpec) -> Study:
        """The study of this name, which is made when it is new."""
        return await self.run(lambda: Study(self._opened(), name, spec))

    def close(self) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)
        if self._storage is not None:
            self._storage.close()

    def _opened(self) -> StudyStorage:
        from agents.controller.studystorage import open_storage

        if self._storage is None:
            self._storage = open_storage(self._url, self._turn)
        return self._storage


class Study:
    """One sweep's study. Not thread-safe: call it by way of `Studies.run`. Only the sweep's run may ask
    and enqueue: what was tried already is remembered from the opening on."""

    def __init__(self, storage: StudyStorage, name: str, spec: SweepSpec) -> None:
        import optuna

        self._optuna, self._spec, self._storage = optuna, spec, storage
        several = len(spec.objective) > 1
        self._study = optuna.create_study(
            study_name=name,
            storage=storage,
            directions=[objective.goal for objective in spec.objective],
            load_if_exists=True,
        )
        known = self._study.get_trials(deepcopy=False)
        with quietly():
            self._study.sampler = make_sampler(spec, len(known))
            if not several:
                self._study.pruner = make_pruner(spec.pruner)
        self._grid: list[dict[str, Scalar]] | None = None
        self._open: dict[int, Trial] = {}
        self._reported: dict[int, set[int]] = {}  # steps told of each open trial
        attrs = [trial.user_attrs for trial in known]
        self._cells = {attr[_CELL] for attr in attrs if _CELL in attr}
        self._points = {attr[_POINT] for attr in attrs if _POINT in attr}
        self._waiting = sum(not t.state.is_finished() and t.state.name == "WAITING" for t in known)

    def enqueue(self, points: Sequence[dict[str, Scalar]]) -> None:
        """Have these points tried before others; those that were enqueued before are not again.

        Args:
            points: all of the sweep so far, in an order that only grows.
        """
        for number, point in enumerate(points):
            if number not in self._points:
                self._study.enqueue_trial(dict(point), user_attrs={_POINT: number})
                self._points.add(number)
                self._waiting += 1

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Store what is asked and told in this block at its end, in one transaction. After an error,
        open the study anew."""
        with self._storage.together():
            yield

    def adopt(self, known: set[int]) -> list[Asked]:
        """Points that were asked for, of which the registry does not know: a crash came between.

        Args:
            known: numbers of all trials in the registry.
        """
        trials = self._study.get_trials(deepcopy=False)
        found = []
        for frozen in trials:
            if frozen.state.name == "RUNNING":
                trial = self._optuna.trial.Trial(self._study, frozen._trial_id)
                self._open[frozen.number] = trial
                self._reported[frozen.number] = set(frozen.intermediate_values)
                if frozen.number not in known:
                    found.append(self._asked(trial))
        return found

    def ask(self) -> Asked | None:
        """The next point; None when the sampler has no other."""
        if self._waiting > 0:
            self._waiting -= 1
        elif self._spec.sampler.name == "grid":
            cell = len(self._cells)
            if self._grid is None:
                self._grid = list(searchspace.grid(self._spec.space))
            if cell >= len(self._grid):
                return None
            self._study.enqueue_trial(self._grid[cell], user_attrs={_CELL: cell})
            self._cells.add(cell)
        trial = self._study.ask()
        self._open[trial.number] = trial
        self._reported[trial.number] = set()
        return self._asked(trial)

    def _asked(self, trial: Trial) -> Asked:
        return Asked(trial.number, self._suggest(trial), trial.user_attrs.get(_POINT))

    def _suggest(self, trial: Trial) -> dict[str, Scalar]:
        values: dict[str, Scalar] = {}
        space = self._spec.space
        for name in searchspace.ordered(space):
            parameter = space[name]
            if not parameter.applies(values):
                continue
            if parameter.choices is not None:
                values[name] = trial.suggest_categorical(name, list(parameter.choices))
                continue
            low, high = parameter.low, parameter.high
            assert low is not None
            assert high is not None
            if parameter.is_int:
                step = int(parameter.step or 1)
                values[name] = trial.suggest_int(
                    name, int(low), int(high), step=step, log=parameter.log
                )
            else:
                values[name] = trial.suggest_float(
                    name, float(low), float(high), step=parameter.step, log=parameter.log
                )
        # In the order of the file, as people know it.
        return {name: values[name] for name in space if name in values}

    def report(
        self, number: int, points: Sequence[tuple[int, float | None]], *, pinned: bool = False
    ) -> bool:
        """Tell intermediate values of an open trial, and ask whether it should be pruned.

        Args:
            pinned: it should not, whatever the pruner thinks.
            points: (step, value) as they came; None for NaN. Of a step only the first counts, as it
                does for Optuna. With several objectives there are no intermediate values.
        """
        trial = self._open.get(number)
        if trial is None or len(self._spec.objective) > 1:
            return False
        told = self._reported[number]
        new = [(step, value) for step, value in points if step >= 0 and step not in told]
        room = max(MAX_REPORTED - len(told), 1)
        for step, value in new[: room - 1] + new[-1:] if len(new) > room else new:
            if step in told:
                continue
            told.add(step)
            trial.report(float("nan") if value is None else value, step)
            if self._spec.pruner.name != "none" and not pinned and trial.should_prune():
                return True
        return False

    def tell(self, number: int, state: TrialState, values: Sequence[float] | None) -> None:
        """Tell how a trial ended; telling it again changes nothing."""
        states = self._optuna.trial.TrialState
        told = {"COMPLETE": states.COMPLETE, "PRUNED": states.PRUNED}.get(state, states.FAIL)
        self._study.tell(
            number,
            list(values) if values is not None and told == states.COMPLETE else None,
            state=told,
            skip_if_finished=True,
        )
        self._open.pop(number, None)
        self._reported.pop(number, None)

    def importance(self) -> dict[str, float]:
        """How much each parameter matters to the first objective, summing to 1; empty before there
        are enough trials. By PED-ANOVA (Watanabe et al., IJCAI 2023)."""
        from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

        sign = -1.0 if self._spec.objective[0].goal == "maximize" else 1.0
        several = len(self._spec.objective) > 1
        try:
            with quietly():
                found = get_param_importances(
                    self._study,
                    evaluator=PedAnovaImportanceEvaluator(),
                    # It asks which parameters lead to low values.
                    target=(lambda trial: sign * trial.values[0]) if several else None,
                )
        except (RuntimeError, ValueError):  # too few trials, or all of one value
            return {}
        return {name: float(value) for name, value in found.items()}
