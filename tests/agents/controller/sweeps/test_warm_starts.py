"""Genetic samplers that start from an earlier sweep: its trials are part of their first generation."""

from __future__ import annotations

import statistics
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agents.controller.stores.database import Database
from agents.controller.sweeps.studies import Asked, Studies, Study
from jobs.base.errors import InvalidInput
from jobs.sweeps.spec import SweepSpec

SPACE = {"a": {"low": 0.0, "high": 1.0}, "b": {"low": 0.0, "high": 1.0}}
OBJECTIVES = [{"metric": "near", "goal": "minimize"}, {"metric": "far", "goal": "minimize"}]


def spec(sampler: Any, **fields: Any) -> SweepSpec:
    base = {
        "job": {"command": "true"},
        "space": SPACE,
        "objective": OBJECTIVES,
        "trials": 50,
        "seed": 3,
    }
    return SweepSpec.from_json(base | {"sampler": sampler} | fields)


@pytest.fixture
def studies(tmp_path: Path) -> Iterator[Studies]:
    url = f"sqlite:///{tmp_path / 'state.db'}"
    Database.open(url).close()
    made = Studies(url, threading.Lock())
    yield made
    made.close()


def values(asked: Asked) -> list[float]:
    """Best for every `a` where `b` is 0.3."""
    a, b = float(asked.params["a"] or 0), float(asked.params["b"] or 0)
    return [a + (b - 0.3) ** 2, 1 - a + (b - 0.3) ** 2]


async def run(studies: Studies, study: Study, count: int) -> list[Asked]:
    found = []
    for _ in range(count):
        asked = await studies.run(study.ask)
        assert asked is not None
        await studies.run(study.tell, asked.number, "COMPLETE", values(asked))
        found.append(asked)
    return found


def generations(study: Study, sampler: str, trials: list[Asked]) -> list[int]:
    key = {"nsga2": "NSGAIISampler:generation", "nsga3": "NSGAIIISampler:generation"}[sampler]
    rows = study._study.trials
    return [rows[trial.number].system_attrs[key] for trial in trials]


@pytest.mark.parametrize("name", ["nsga2", "nsga3"])
async def test_the_best_of_what_others_know_are_parents_at_once(
    studies: Studies, name: str
) -> None:
    await run(studies, await studies.open("s1-x", spec("random")), 40)
    options = {"population": 10, "mutation_prob": 0.0, "crossover": "uniform"}
    study = await studies.open("s2-x", spec({name: options}))
    assert await studies.run(study.warm, ["s1-x"]) == 40
    again = await studies.open("s2-x", spec({name: options}))  # as after a restart
    bred = await run(studies, again, 10)
    assert generations(again, name, bred) == [1] * 10
    assert [trial.number for trial in bred] == list(range(40, 50))
    genes = {t.params["b"] for t in again._study.trials[:40]}
    assert {trial.params["b"] for trial in bred} <= genes
    off = statistics.mean(abs(float(trial.params["b"] or 0) - 0.3) for trial in bred)
    assert off < 0.15  # at random, 0.29
    assert generations(again, name, await run(studies, again, 1)) == [2]


async def test_a_first_generation_that_was_lent_too_little_is_filled_up(studies: Studies) -> None:
    await run(studies, await studies.open("s1-x", spec("random")), 4)
    study = await studies.open("s2-x", spec({"nsga2": {"population": 6}}))
    assert await studies.run(study.warm, ["s1-x"]) == 4
    assert generations(study, "nsga2", await run(studies, study, 4)) == [0, 0, 1, 1]


async def test_one_that_was_lent_nothing_that_fits_begins_by_itself(studies: Studies) -> None:
    await run(studies, await studies.open("s1-x", spec("random")), 4)
    elsewhere = {"a": {"low": 5.0, "high": 6.0}, "b": {"low": 0.0, "high": 1.0}}
    study = await studies.open("s2-x", spec({"nsga2": {"population": 6}}, space=elsewhere))
    assert await studies.run(study.warm, ["s1-x"]) == 0
    assert generations(study, "nsga2", await run(studies, study, 2)) == [0, 0]


@pytest.mark.parametrize("name", ["random", "grid", "qmc"])
def test_those_that_learn_nothing_say_so(name: str) -> None:
    with pytest.raises(InvalidInput, match=r"learns nothing from other trials; .*nsga2, nsga3"):
        spec(
            name,
            warm_start="s1",
            objective=OBJECTIVES[0],
            space={"a": {"low": 0, "high": 3, "step": 1}},
        )
