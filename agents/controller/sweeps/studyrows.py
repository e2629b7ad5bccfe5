"""Optuna's tables, read and written a study or a batch at a time.

The layout is Optuna's own, which its RDB storage makes and `optuna-dashboard` and `optuna.load_study` read.
Its storage reads and writes them object by object, 2 ms each; a trial is a dozen of them.
"""

from __future__ import annotations

import functools
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from optuna import distributions
from optuna.distributions import BaseDistribution
from optuna.storages._rdb import models
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial
from sqlalchemy import (
    Column,
    Connection,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    and_,
    bindparam,
    select,
)

_STUDIES: Table = models.StudyModel.__table__
_DIRECTIONS: Table = models.StudyDirectionModel.__table__
_STUDY_USER: Table = models.StudyUserAttributeModel.__table__
_STUDY_SYSTEM: Table = models.StudySystemAttributeModel.__table__
_TRIALS: Table = models.TrialModel.__table__
_PARAMS: Table = models.TrialParamModel.__table__
_VALUES: Table = models.TrialValueModel.__table__
_STEPS: Table = models.TrialIntermediateValueModel.__table__
_USER: Table = models.TrialUserAttributeModel.__table__
_SYSTEM: Table = models.TrialSystemAttributeModel.__table__


def tables() -> MetaData:
    """All tables that Optuna's storage makes, with the one in which Alembic keeps their revision."""
    found = MetaData()
    for table in models.BaseModel.metadata.sorted_tables:
        table.to_metadata(found)
    version = Column("version_num", String(32), nullable=False)
    key = PrimaryKeyConstraint("version_num", name="alembic_version_pkc")
    Table("alembic_version", found, version, key)
    return found


@dataclass(slots=True)
class StudyRows:
    """A study as it is stored; its trials in the order of their numbers."""

    name: str
    directions: list[StudyDirection]
    user: dict[str, Any]
    system: dict[str, Any]
    trials: list[FrozenTrial]


def load(connection: Connection, study: int) -> StudyRows:
    """Read a study. Raises KeyError."""
    name = connection.scalar(select(_STUDIES.c.study_name).where(_STUDIES.c.study_id == study))
    if name is None:
        raise KeyError(f"there is no study {study}")
    directions = connection.scalars(
        select(_DIRECTIONS.c.direction)
        .where(_DIRECTIONS.c.study_id == study)
        .order_by(_DIRECTIONS.c.objective)
    )
    return StudyRows(
        name,
        list(directions),
        _study_attributes(connection, _STUDY_USER, study),
        _study_attributes(connection, _STUDY_SYSTEM, study),
        _load_trials(connection, study),
    )


def _study_attributes(connection: Connection, table: Table, study: int) -> dict[str, Any]:
    rows = connection.execute(
        select(table.c.key, table.c.value_json).where(table.c.study_id == study)
    )
    return {key: json.loads(text) for key, text in rows}


def _load_trials(connection: Connection, study: int) -> list[FrozenTrial]:
    def of_trials(table: Table, *columns: str) -> dict[int, list[Any]]:
        """Rows of a table that belongs to trials, by trial, in the order in which they came."""
        (key,) = table.primary_key
        found = defaultdict(list)
        for trial, *rest in connection.execute(
            select(table.c.trial_id, *(table.c[column] for column in columns))
            .join(_TRIALS, _TRIALS.c.trial_id == table.c.trial_id)
            .where(_TRIALS.c.study_id == study)
            .order_by(key)
        ):
            found[trial].append(rest)
        return found

    params = of_trials(_PARAMS, "param_name", "param_value", "distribution_json")
    values = of_trials(_VALUES, "objective", "value", "value_type")
    steps = of_trials(_STEPS, "step", "intermediate_value", "intermediate_value_type")
    user = of_trials(_USER, "key", "value_json")
    system = of_trials(_SYSTEM, "key", "value_json")
    value_of = models.TrialValueModel.stored_repr_to_value
    step_of = models.TrialIntermediateValueModel.stored_repr_to_intermediate_value
    trials = []
    for row in connection.execute(
        select(_TRIALS).where(_TRIALS.c.study_id == study).order_by(_TRIALS.c.trial_id)
    ):
        key = row.trial_id
        known = {name: (_distribution(text), value) for name, value, text in params.get(key, ())}
        trials.append(
            FrozenTrial(
                number=row.number,
                state=row.state,
                value=None,
                values=[value_of(v, kind) for _, v, kind in sorted(values[key], key=_first)]
                if key in values
                else None,
                datetime_start=_local(row.datetime_start),
                datetime_complete=_local(row.datetime_complete),
                params={
                    name: kind.to_external_repr(value) for name, (kind, value) in known.items()
                },
                distributions={name: kind for name, (kind, _) in known.items()},
                user_attrs={name: json.loads(text) for name, text in user.get(key, ())},
                system_attrs={name: json.loads(text) for name, text in system.get(key, ())},
                intermediate_values={
                    step: step_of(value, kind) for step, value, kind in steps.get(key, ())
                },
                trial_id=key,
            )
        )
    return sorted(trials, key=lambda trial: trial.number)


def _first(row: list[Any]) -> Any:
    return row[0]


@functools.lru_cache(1024)
def _distribution(text: str) -> BaseDistribution:
    return distributions.json_to_distribution(text)


@functools.lru_cache(1024)
def _distribution_text(distribution: BaseDistribution) -> str:
    return distributions.distribution_to_json(distribution)


def _local(stored: datetime | None) -> datetime | None:
    """Times are stored without a zone, in UTC, and told without one, in local time."""
    return stored and stored.replace(tzinfo=UTC).astimezone().replace(tzinfo=None)


def _utc(told: datetime | None) -> datetime | None:
    return told and told.astimezone(UTC).replace(tzinfo=None)


@dataclass(slots=True)
class Journal:
    """What was changed and is not stored yet."""

    made: dict[int, int] = field(default_factory=dict)  # trial -> its study
    moved: set[int] = field(default_factory=set)  # trials whose state has changed
    params: list[tuple[int, str, float, BaseDistribution]] = field(default_factory=list)
    steps: dict[tuple[int, int], float] = field(default_factory=dict)
    user: dict[tuple[int, str], Any] = field(default_factory=dict)
    system: dict[tuple[int, str], Any] = field(default_factory=dict)
    study_user: dict[tuple[int, str], Any] = field(default_factory=dict)
    study_system: dict[tuple[int, str], Any] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return any(getattr(self, name) for name in self.__slots__)

    def write(self, connection: Connection, trial_of: Callable[[int], FrozenTrial]) -> None:
        """Store it, in the caller's transaction.

        Args:
            trial_of: a trial as it is by now.
        """
        made = [(study, trial_of(trial)) for trial, study in self.made.items()]
        moved = [trial_of(trial) for trial in sorted(self.moved - self.made.keys())]
        _insert(
            connection,
            _TRIALS,
            [
                {"trial_id": trial._trial_id, "number": trial.number, "study_id": study}
                | _standing(trial)
                for study, trial in made
            ],
        )
        for trial in moved:
            connection.execute(
                _TRIALS.update().where(_TRIALS.c.trial_id == trial._trial_id), _standing(trial)
            )
        _insert(
            connection,
            _VALUES,
            [
                {"trial_id": trial._trial_id, "objective": number} | _value(value)
                for trial in [*(trial for _, trial in made), *moved]
                for number, value in enumerate(trial.values or ())
            ],
        )
        _insert(
            connection,
            _PARAMS,
            [
                {
                    "trial_id": trial,
                    "param_name": name,
                    "param_value": value,
                    "distribution_json": _distribution_text(distribution),
                }
                for trial, name, value, distribution in self.params
            ],
        )
        self._put(connection, _STEPS, ("trial_id", "step"), self.steps, _step)
        self._put(connection, _USER, ("trial_id", "key"), self.user, _json)
        self._put(connection, _SYSTEM, ("trial_id", "key"), self.system, _json)
        self._put(connection, _STUDY_USER, ("study_id", "key"), self.study_user, _json)
        self._put(connection, _STUDY_SYSTEM, ("study_id", "key"), self.study_system, _json)

    def _put(
        self,
        connection: Connection,
        table: Table,
        keys: tuple[str, str],
        items: Mapping[tuple[int, Any], Any],
        columns: Callable[[Any], dict[str, Any]],
    ) -> None:
        """Insert what may be there already, except of a trial that is new itself."""
        old = [key for key in items if keys[0] == "study_id" or key[0] not in self.made]
        if old:
            match = and_(table.c[keys[0]] == bindparam("a"), table.c[keys[1]] == bindparam("b"))
            connection.execute(table.delete().where(match), [{"a": a, "b": b} for a, b in old])
        _insert(
            connection,
            table,
            [{keys[0]: a, keys[1]: b} | columns(value) for (a, b), value in items.items()],
        )


def _insert(connection: Connection, table: Table, rows: Iterable[dict[str, Any]]) -> None:
    if rows := list(rows):
        connection.execute(table.insert(), rows)


def _standing(trial: FrozenTrial) -> dict[str, Any]:
    return {
        "state": trial.state,
        "datetime_start": _utc(trial.datetime_start),
        "datetime_complete": _utc(trial.datetime_complete),
    }


def _value(value: float) -> dict[str, Any]:
    stored, kind = models.TrialValueModel.value_to_stored_repr(value)
    return {"value": stored, "value_type": kind}


def _step(value: float) -> dict[str, Any]:
    model = models.TrialIntermediateValueModel
    stored, kind = model.intermediate_value_to_stored_repr(value)
    return {"intermediate_value": stored, "intermediate_value_type": kind}


def _json(value: Any) -> dict[str, Any]:
    return {"value_json": json.dumps(value)}


def find_study(connection: Connection, name: str) -> int | None:
    """The id of the study of this name."""
    found: int | None = connection.scalar(
        select(_STUDIES.c.study_id).where(_STUDIES.c.study_name == name)
    )
    return found


def newest_trial(connection: Connection) -> int:
    """The largest id of any trial, -1 without one."""
    found: int | None = connection.scalar(
        select(_TRIALS.c.trial_id).order_by(_TRIALS.c.trial_id.desc()).limit(1)
    )
    return -1 if found is None else found


def all_studies(connection: Connection) -> list[int]:
    return list(connection.scalars(select(_STUDIES.c.study_id).order_by(_STUDIES.c.study_id)))
