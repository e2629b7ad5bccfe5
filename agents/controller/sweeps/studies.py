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
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from agents.controller.sweeps.points import distributions, suggest
from agents.controller.sweeps.samplers import first_generation, make_pruner, make_sampler, quietly
from jobs.spec.command import Scalar
from jobs.sweeps import space as searchspace
from jobs.sweeps.decisions import TrialState
from jobs.sweeps.populations import Next
from jobs.sweeps.spec import SweepSpec

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial, Trial

    from agents.controller.sweeps.studystorage import StudyStorage

T = TypeVar("T")

MAX_REPORTED = 1000
"""Intermediate values of a trial that are kept for the pruner; each is a row and a commit."""
_POINT, _CELL, _TURN = "quarterdeck:point", "quarterdeck:grid", "quarterdeck:turn"
"""User attributes: which enqueued point a trial is of, which point of the grid, or whose turn in a
population."""
_FROM, _WARM = "quarterdeck:from", "quarterdeck:warm"
"""A trial that another study has lent, and a study that has been lent all it will be."""
_REFUSED = "quarterdeck:refused"
"""A point that breaks a constraint, and so was never tried."""
MAX_LENT = 1000
"""Trials that a study takes over from another one, the newest: samplers slow down with more."""
_DRAWS, _RANDOM_AFTER = 500, 10
"""How often a point is drawn until it breaks no constraint, and after how many draws at random: a sampler
that is not told of a point may well come back to it."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A point to try, by the number that the trial has in Optuna and here."""

    number: int
    params: dict[str, Scalar]
    point: int | None = None  # which of the enqueued points it is
    turn: Mapping[str, Any] | None = None  # of a population: what `Next` says of it


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
        from agents.controller.sweeps.studystorage import open_storage

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
        self._make_sampler(known)
        if not several:
            with quietly():
                self._study.pruner = make_pruner(spec.pruner)
        self._random = optuna.samplers.RandomSampler(spec.seed)
        self.exhausted = ""  # why there can be no further point
        self._grid: list[dict[str, Scalar]] | None = None
        self._open: dict[int, Trial] = {}
        self._reported: dict[int, set[int]] = {}  # steps told of each open trial
        attrs = [trial.user_attrs for trial in known]
        self._cells = {attr[_CELL] for attr in attrs if _CELL in attr}
        self._points = {attr[_POINT] for attr in attrs if _POINT in attr}
        self._turns = {_turn(attr[_TURN]) for attr in attrs if _TURN in attr}
        self._waiting = sum(not t.state.is_finished() and t.state.name == "WAITING" for t in known)

    def _make_sampler(self, known: Sequence[FrozenTrial]) -> None:
        lent = [trial for trial in known if _FROM in trial.user_attrs]
        with quietly():
            self._study.sampler = make_sampler(self._spec, len(known), lent)

    def warm(self, lenders: Sequence[str]) -> int | None:
        """Take over what other studies know; once, before the first point of this one is asked for.

        Args:
            lenders: names of studies with the same objectives.

        Returns:
            How many trials were taken over: those that are over, whose points lie in this space. None
            when it was done before.
        """
        if _WARM in self._study.user_attrs:
            return None
        lent = 0
        for name in lenders:
            lender = self._optuna.load_study(study_name=name, storage=self._storage)
            states = self._optuna.trial.TrialState
            over = lender.get_trials(deepcopy=False, states=(states.COMPLETE, states.PRUNED))
            for trial in over[-MAX_LENT:]:
                if _FROM in trial.user_attrs or not self._holds(trial.params):
                    continue
                kept = {
                    key: value
                    for key, value in trial.system_attrs.items()
                    if key.startswith("constraints")
                }
                if trial.state == states.COMPLETE:
                    kept |= first_generation(self._study.sampler)
                self._study.add_trial(
                    self._optuna.trial.create_trial(
                        state=trial.state,
                        values=trial.values,
                        params=trial.params,
                        distributions=distributions(self._spec.space, trial.params),
                        intermediate_values=trial.intermediate_values,
                        user_attrs={_FROM: f"{name}/{trial.number}"},
                        system_attrs=kept,
                    )
                )
                lent += 1
        self._study.set_user_attr(_WARM, lent)
        known = self._study.get_trials(deepcopy=False)
        self._make_sampler(known)
        return lent

    def _holds(self, params: Mapping[str, Any]) -> bool:
        """Whether a point of another study lies in this space."""
        found: dict[str, Scalar] = {}
        space = self._spec.space
        for name in searchspace.ordered(space):
            if space[name].applies(found):
                if name not in params or space[name].problem_with(params[name]):
                    return False
                found[name] = space[name].snapped(params[name])
        return len(found) == len(params) and self._spec.admits(found)

    def enqueue(self, points: Sequence[dict[str, Scalar]]) -> None:
        """Have these points tried before others; those that were enqueued before are not again.

        Args:
            points: all of the sweep so far, in an order that only grows.
        """
        if self._spec.sampler.name == "pbt":
            return  # its first members begin with them
        for number, point in enumerate(points):
            if number not in self._points:
                self._enqueue(point, {_POINT: number})
                self._points.add(number)

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
        found = []
        for frozen in self._study.get_trials(deepcopy=False):
            if frozen.state.name == "RUNNING":
                trial = self._optuna.trial.Trial(self._study, frozen._trial_id)
                self._open[frozen.number] = trial
                self._reported[frozen.number] = set(frozen.intermediate_values)
                if frozen.number not in known:
                    asked = self._asked(trial)
                    if self._spec.admits(asked.params):
                        found.append(asked)
                    else:
                        self._refuse(trial)
        return found

    def ask(self) -> Asked | None:
        """The next point; None when the sampler has no other (`exhausted` says why)."""
        if self._waiting == 0 and self._spec.sampler.name == "grid":
            cell = len(self._cells)
            if self._grid is None:
                self._grid = list(self._spec.points())
            if cell >= len(self._grid):
                return None
            self._enqueue(self._grid[cell], {_CELL: cell})
            self._cells.add(cell)
        return self._admitted()

    def _admitted(self) -> Asked | None:
        for draw in range(_DRAWS):
            asked = self._draw(at_random=draw >= _RANDOM_AFTER)
            if self._spec.admits(asked.params):
                return asked
            self._refuse(self._open[asked.number])
        self.exhausted = f"of {_DRAWS} points that were drawn, each breaks a constraint"
        return None

    def begin(self, turn: Next) -> Asked | None:
        """The trial of a turn of a population; one that was chosen before may come first."""
        key = (turn.member, turn.generation, turn.again)
        if key not in self._turns:  # else it waits since before a crash
            told = {
                "member": turn.member,
                "generation": turn.generation,
                "parent": turn.parent,
                "origin": turn.origin,
                "again": turn.again,
            }
            self._enqueue(turn.params, {_TURN: told})
            self._turns.add(key)
        return self._admitted()

    def _enqueue(self, point: Mapping[str, Scalar], attrs: dict[str, Any]) -> None:
        space = self._spec.space
        snapped = {
            name: space[name].snapped(value) if name in space else value
            for name, value in point.items()
        }
        self._study.enqueue_trial(snapped, user_attrs=attrs)
        self._waiting += 1

    def _draw(self, *, at_random: bool = False) -> Asked:
        sampler = self._study.sampler
        if at_random:
            self._study.sampler = self._random
        self._waiting = max(self._waiting - 1, 0)
        try:
            trial = self._study.ask()
            self._open[trial.number] = trial
            self._reported[trial.number] = set()
            return self._asked(trial)
        finally:
            self._study.sampler = sampler

    def _refuse(self, trial: Trial) -> None:
        """Take back a point that breaks a constraint; one that a person has begun is drawn anew."""
        attrs = trial.user_attrs
        trial.set_user_attr(_REFUSED, True)
        self.tell(trial.number, "FAILED", None)
        for key in (_POINT, _TURN):
            if key in attrs:
                fixed = self._study._storage.get_trial_system_attrs(trial._trial_id).get(
                    "fixed_params", {}
                )
                self._enqueue(fixed, {key: attrs[key]})

    def _asked(self, trial: Trial) -> Asked:
        params, attrs = suggest(trial, self._spec.space), trial.user_attrs
        return Asked(trial.number, params, attrs.get(_POINT), attrs.get(_TURN))

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

    def tell(
        self,
        number: int,
        state: TrialState,
        values: Sequence[float] | None,
        constraints: Mapping[str, float] | None = None,
    ) -> None:
        """Tell how a trial ended; telling it again changes nothing.

        Args:
            constraints: by how much it exceeds each, 0 or less where it does not.
        """
        states = self._optuna.trial.TrialState
        told = {"COMPLETE": states.COMPLETE, "PRUNED": states.PRUNED}.get(state, states.FAIL)
        trial = self._open.get(number)
        if trial is not None and constraints:
            known = trial.constraints
            for text, excess in constraints.items():
                if text not in known:
                    trial.set_constraint(text, excess)
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


def _turn(told: Mapping[str, Any]) -> tuple[int, int, int | None]:
    return told["member"], told["generation"], told.get("again")
