"""Optuna's storage in the registry's database, held in memory: what a sampler and a pruner read costs no
query, and what they write is stored together, in one short transaction.

Only this process writes to it, from one thread, so what is in memory is what is stored. When something
could not be stored, memory is let go, and read anew when it is next asked for.
"""

from __future__ import annotations

import contextlib
import copy
import threading
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, check_distribution_compatibility
from optuna.storages import BaseStorage, RDBStorage
from optuna.study import StudyDirection
from optuna.study._frozen import FrozenStudy
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Connection, StaticPool, event, make_url, text

from agents.controller.sweeps import studyrows
from agents.controller.sweeps.studyrows import Journal, StudyRows

_NEXT_ID = text("SELECT nextval(pg_get_serial_sequence('trials', 'trial_id'))")
_READ_ONLY = "qd_reads"


@dataclass(slots=True)
class _Held:
    """A study in memory. Trials are replaced when they change, never changed: lists of them are out."""

    rows: StudyRows
    distributions: dict[str, BaseDistribution] = field(default_factory=dict)
    waiting: int = 0  # no trial before this place waits


class StudyStorage(BaseStorage):
    """Not thread-safe.

    Args:
        tables: makes Optuna's tables and studies; its engine is used for all else.
        turn: held while something is written.
    """

    def __init__(self, tables: RDBStorage, turn: threading.Lock) -> None:
        self._tables, self._turn = tables, turn
        self._sqlite = tables.engine.dialect.name == "sqlite"
        self._studies: dict[int, _Held] = {}
        self._names: dict[str, int] = {}
        self._places: dict[int, tuple[int, int]] = {}  # trial -> study, place among its trials
        self._newest: int | None = None  # the largest trial id that was given out
        self._journal = Journal()
        self._held = False

    def close(self) -> None:
        self._tables.engine.dispose()

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Store all that is written in this block at its end, or nothing. After an error the studies
        have to be opened anew: what they remember was not stored."""
        self._held = True
        try:
            yield
        except BaseException:
            self._let_go()
            raise
        finally:
            self._held = False
        self._store()

    def _store(self) -> None:
        """Write the journal, unless more is to come."""
        if self._held or not self._journal:
            return
        journal, self._journal = self._journal, Journal()
        try:
            with self._turn, self._tables.engine.begin() as connection:
                journal.write(connection, self.get_trial)
        except BaseException:
            self._let_go()
            raise

    def _let_go(self) -> None:
        self._journal = Journal()
        self._studies, self._names, self._places, self._newest = {}, {}, {}, None

    @contextlib.contextmanager
    def _reading(self) -> Iterator[Connection]:
        with self._tables.engine.connect() as connection:
            yield connection.execution_options(**{_READ_ONLY: True})

    def _study(self, study_id: int) -> _Held:
        held = self._studies.get(study_id)
        if held is None:
            with self._reading() as connection:
                rows = studyrows.load(connection, study_id)
            held = self._studies[study_id] = _Held(rows)
            self._names[rows.name] = study_id
            for place, trial in enumerate(rows.trials):
                self._places[trial._trial_id] = (study_id, place)
                held.distributions |= trial.distributions
        return held

    def _next_trial_id(self) -> int:
        if not self._sqlite:  # its sequence must know, should anybody else ever insert
            with self._tables.engine.begin() as connection:
                return int(connection.scalar(_NEXT_ID) or 0)
        if self._newest is None:
            with self._reading() as connection:
                self._newest = studyrows.newest_trial(connection)
        self._newest += 1
        return self._newest

    # -- studies ------------------------------------------------------------------------------------

    def create_new_study(
        self, directions: Sequence[StudyDirection], study_name: str | None = None
    ) -> int:
        with self._turn:
            return int(self._tables.create_new_study(directions, study_name))

    def delete_study(self, study_id: int) -> None:
        with self._turn:
            self._tables.delete_study(study_id)
        self._let_go()

    def get_study_id_from_name(self, study_name: str) -> int:
        if study_name not in self._names:
            with self._reading() as connection:
                found = studyrows.find_study(connection, study_name)
            if found is None:
                raise KeyError(study_name)
            self._names[study_name] = found
        return self._names[study_name]

    def get_study_name_from_id(self, study_id: int) -> str:
        return self._study(study_id).rows.name

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        return self._study(study_id).rows.directions

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        return self._study(study_id).rows.user

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        return self._study(study_id).rows.system

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        rows = self._study(study_id).rows
        rows.user = {**rows.user, key: value}
        self._journal.study_user[study_id, key] = value
        self._store()

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        rows = self._study(study_id).rows
        rows.system = {**rows.system, key: value}
        self._journal.study_system[study_id, key] = value
        self._store()

    def get_all_studies(self) -> list[FrozenStudy]:
        studies: list[FrozenStudy] = self._tables.get_all_studies()
        return studies

    # -- trials -------------------------------------------------------------------------------------

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        held = self._study(study_id)
        trial_id, place = self._next_trial_id(), len(held.rows.trials)
        if template_trial is None:
            trial = FrozenTrial(
                number=place,
                state=TrialState.RUNNING,
                value=None,
                datetime_start=datetime.now(),  # noqa: DTZ005 - as Optuna tells times
                datetime_complete=None,
                params={},
                distributions={},
                user_attrs={},
                system_attrs={},
                intermediate_values={},
                trial_id=trial_id,
            )
        else:
            trial = copy.deepcopy(template_trial)
            trial.number, trial._trial_id = place, trial_id
            self._note_template(trial)
            held.distributions |= trial.distributions
        held.rows.trials.append(trial)
        self._places[trial_id] = (study_id, place)
        self._journal.made[trial_id] = study_id
        self._store()
        return trial_id

    def _note_template(self, trial: FrozenTrial) -> None:
        key, journal = trial._trial_id, self._journal
        for name, distribution in trial.distributions.items():
            value = distribution.to_internal_repr(trial.params[name])
            journal.params.append((key, name, value, distribution))
        journal.user |= {(key, name): value for name, value in trial.user_attrs.items()}
        journal.system |= {(key, name): value for name, value in trial.system_attrs.items()}
        journal.steps |= {(key, step): value for step, value in trial.intermediate_values.items()}

    def get_trial(self, trial_id: int) -> FrozenTrial:
        study_id, place = self._places[trial_id]
        return self._studies[study_id].rows.trials[place]

    def _change(self, trial_id: int, change: Callable[[FrozenTrial], None]) -> FrozenTrial:
        """Put a changed copy of a trial that is not over in its place. Gives the one before."""
        before = self.get_trial(trial_id)
        self.check_trial_is_updatable(trial_id, before.state)
        after = copy.copy(before)
        change(after)
        study_id, place = self._places[trial_id]
        self._studies[study_id].rows.trials[place] = after
        return before

    def set_trial_param(
        self,
        trial_id: int,
        param_name: str,
        param_value_internal: float,
        distribution: BaseDistribution,
    ) -> None:
        self.check_trial_is_updatable(trial_id, self.get_trial(trial_id).state)
        known = self._studies[self._places[trial_id][0]].distributions
        if param_name in known:
            check_distribution_compatibility(known[param_name], distribution)
        known[param_name] = distribution

        def change(trial: FrozenTrial) -> None:
            value = distribution.to_external_repr(param_value_internal)
            trial.params = {**trial.params, param_name: value}
            trial.distributions = {**trial.distributions, param_name: distribution}

        self._change(trial_id, change)
        self._journal.params.append((trial_id, param_name, param_value_internal, distribution))
        self._store()

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        if state == TrialState.RUNNING and self.get_trial(trial_id).state != TrialState.WAITING:
            self.check_trial_is_updatable(trial_id, self.get_trial(trial_id).state)
            return False

        def change(trial: FrozenTrial) -> None:
            now = datetime.now()  # noqa: DTZ005 - as Optuna tells times
            trial.state = state
            if values is not None:
                trial.values = list(values)
            if state == TrialState.RUNNING:
                trial.datetime_start = now
            if state.is_finished():
                trial.datetime_complete = now

        self._change(trial_id, change)
        self._journal.moved.add(trial_id)
        self._store()
        return True

    def set_trial_intermediate_value(
        self, trial_id: int, step: int, intermediate_value: float
    ) -> None:
        def change(trial: FrozenTrial) -> None:
            trial.intermediate_values = {**trial.intermediate_values, step: intermediate_value}

        self._change(trial_id, change)
        self._journal.steps[trial_id, step] = intermediate_value
        self._store()

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        def change(trial: FrozenTrial) -> None:
            trial.user_attrs = {**trial.user_attrs, key: value}

        self._change(trial_id, change)
        self._journal.user[trial_id, key] = value
        self._store()

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        def change(trial: FrozenTrial) -> None:
            trial.system_attrs = {**trial.system_attrs, key: value}

        self._change(trial_id, change)
        self._journal.system[trial_id, key] = value
        self._store()

    def get_all_trials(
        self,
        study_id: int,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        held = self._study(study_id)
        trials = held.rows.trials
        if states == (TrialState.WAITING,):  # each ask wants to know, and of many none waits
            found = [t for t in trials[held.waiting :] if t.state == TrialState.WAITING]
            held.waiting = self._places[found[0]._trial_id][1] if found else len(trials)
        else:
            found = [t for t in trials if states is None or t.state in states]
        return copy.deepcopy(found) if deepcopy else found


def open_storage(url: str, turn: threading.Lock) -> StudyStorage:
    """Optuna's storage at an SQLAlchemy URL; its tables are made when they are not there. `turn` is
    held while something is written."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if make_url(url).get_backend_name() != "sqlite":
        return StudyStorage(RDBStorage(url, engine_kwargs={"pool_pre_ping": True}), turn)
    tables = RDBStorage(
        url,
        engine_kwargs={
            "connect_args": {"timeout": 60, "check_same_thread": False},
            "poolclass": StaticPool,  # one thread, one connection
            "pool_reset_on_return": None,
        },
    )
    with tables.engine.connect() as borrowed:
        connection: Any = borrowed.connection.dbapi_connection
    connection.isolation_level = None
    # Our own commit, which follows, syncs the log up to there.
    connection.execute("PRAGMA synchronous=NORMAL")

    @event.listens_for(tables.engine, "begin")
    def _begin(borrowed: Connection) -> None:
        # As in our own connections: a transaction that reads first and then writes must not find
        # that the controller's writer came between.
        reads = borrowed.get_execution_options().get(_READ_ONLY)
        borrowed.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")

    return StudyStorage(tables, turn)
