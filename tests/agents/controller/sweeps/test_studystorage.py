"""Our storage for Optuna keeps Optuna's contract, and what it has in memory is what is stored."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import RDBStorage
from optuna.testing.pytest_storages import StorageTestCase
from optuna.trial import FrozenTrial, TrialState

from agents.controller.sweeps.studystorage import StudyStorage, open_storage

MINIMIZE = optuna.study.StudyDirection.MINIMIZE


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'optuna.db'}"
    server: str = request.getfixturevalue("postgres")
    plain = RDBStorage(server)  # whose tables take long to make
    for study in plain.get_all_studies():
        plain.delete_study(study._study_id)
    plain.engine.dispose()
    return server


def words(value: Any) -> Any:
    """To compare by: a NaN equals itself here, and the order of attributes does not matter."""
    if isinstance(value, FrozenTrial):
        return words(vars(value))
    if isinstance(value, dict):
        return {key: words(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [words(item) for item in value]
    return repr(float(value) if isinstance(value, int) else value)


def same(storage: StudyStorage, url: str) -> None:
    """Assert that Optuna's own storage reads what ours has."""
    plain = RDBStorage(url)
    for study in plain.get_all_studies():
        key = study._study_id
        for read in ("get_all_trials", "get_study_user_attrs", "get_study_system_attrs"):
            assert words(getattr(plain, read)(key)) == words(getattr(storage, read)(key))
        assert plain.get_study_directions(key) == storage.get_study_directions(key)
    plain.remove_session()
    plain.engine.dispose()


@pytest.fixture
def storage(url: str) -> Iterator[StudyStorage]:
    made = open_storage(url, threading.Lock())
    yield made
    same(made, url)
    again = open_storage(url, threading.Lock())
    for study in made.get_all_studies():
        key = study._study_id
        assert words(again.get_all_trials(key)) == words(made.get_all_trials(key))
    again.close()
    made.close()


class TestContract(StorageTestCase):
    def test_pickle_storage(self, storage: Any) -> None:
        """Ours stays in its process."""


def test_what_is_written_together_is_stored_at_the_end(storage: StudyStorage, url: str) -> None:
    study = storage.create_new_study([MINIMIZE], "s1-x")
    with storage.together():
        first = storage.create_new_trial(study)
        storage.set_trial_intermediate_value(first, 0, float("nan"))
        storage.set_trial_system_attr(first, "kind", {"a": [1]})
        storage.set_trial_state_values(first, TrialState.COMPLETE, [float("inf")])
        plain = RDBStorage(url)
        assert plain.get_all_trials(study) == []
    same(storage, url)
    assert plain.get_all_trials(study)[0].values == [float("inf")]
    plain.remove_session()
    plain.engine.dispose()


def test_nothing_is_stored_of_what_breaks_off(storage: StudyStorage) -> None:
    study = storage.create_new_study([MINIMIZE], "s1-x")
    kept = storage.create_new_trial(study)
    with pytest.raises(RuntimeError), storage.together():
        storage.set_trial_user_attr(kept, "seen", True)
        storage.create_new_trial(study)
        raise RuntimeError
    (trial,) = storage.get_all_trials(study)
    assert (trial._trial_id, trial.user_attrs) == (kept, {})


def test_what_another_program_has_stored_is_read_after_the_clash(tmp_path: Path) -> None:
    """Nobody else should write; whoever does costs one try."""
    url = f"sqlite:///{tmp_path / 'optuna.db'}"
    storage = open_storage(url, threading.Lock())
    study = storage.create_new_study([MINIMIZE], "s1-x")
    storage.create_new_trial(study)
    plain = RDBStorage(url)
    plain.create_new_trial(study)
    plain.engine.dispose()
    with pytest.raises(Exception, match="UNIQUE"):
        storage.create_new_trial(study)
    storage.create_new_trial(study)
    assert [trial.number for trial in storage.get_all_trials(study)] == [0, 1, 2]
    storage.close()
