"""Studies alone: every sampler and pruner works, and what a crash leaves half done is taken up."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest

from agents.controller.database import Database
from agents.controller.studies import Studies, Study
from jobs import searchspace
from jobs.sweepspec import SweepSpec

SPACE = {
    "kind": {"choices": ["sgd", "adam"]},
    "momentum": {"low": 0.0, "high": 0.9, "when": {"kind": "sgd"}},
    "lr": {"low": 1e-4, "high": 0.1, "log": True},
    "layers": {"low": 1, "high": 4},
}


def spec(**fields: Any) -> SweepSpec:
    base = {
        "job": {"command": "true"},
        "space": SPACE,
        "objective": {"metric": "loss", "goal": "minimize"},
        "trials": 50,
        "seed": 3,
    }
    return SweepSpec.from_json(base | fields)


@pytest.fixture
def url(tmp_path: Path) -> str:
    url = f"sqlite:///{tmp_path / 'registry.db'}"
    Database.open(url).close()
    return url


@pytest.fixture
def studies(url: str) -> Iterator[Studies]:
    made = Studies(url, threading.Lock())
    yield made
    made.close()


async def test_conditional_points_lie_in_the_space(studies: Studies) -> None:
    asked_for = spec()
    study = await studies.open("s1-x", asked_for)
    for number in range(20):
        asked = await studies.run(study.ask)
        assert asked is not None
        assert asked.number == number
        assert ("momentum" in asked.params) == (asked.params["kind"] == "sgd")
        for name, value in asked.params.items():
            assert asked_for.space[name].problem_with(value) == ""
        await studies.run(study.tell, number, "COMPLETE", [asked.params["lr"]])


@pytest.mark.parametrize(
    "sampler",
    ["random", "tpe", {"tpe": {"multivariate": True, "startup": 2}}, "qmc", "nsga2", "nsga3", "gp"],
)
async def test_every_sampler_asks(studies: Studies, sampler: Any) -> None:
    name = sampler if isinstance(sampler, str) else "tpe"
    space = {key: value for key, value in SPACE.items() if key != "momentum"}
    options = {"gp": {"startup": 2}} if name == "gp" else sampler
    study = await studies.open("s1-x", spec(space=space, sampler=options))
    for _ in range(4):
        asked = await studies.run(study.ask)
        assert asked is not None
        await studies.run(study.tell, asked.number, "COMPLETE", [asked.params["lr"]])


@pytest.mark.parametrize(
    "pruner",
    [
        {"median": {"startup": 1}},
        {"percentile": {"percentile": 50, "startup": 1}},
        {"asha": {"reduction": 2}},
        {"hyperband": {"min_steps": 1, "max_steps": 9}},
        {"patient": {"patience": 1, "then": {"median": {"startup": 1}}}},
        {"threshold": {"upper": 5}},
        "wilcoxon",
    ],
)
async def test_every_pruner_stops_what_lags(studies: Studies, pruner: Any) -> None:
    study = await studies.open("s1-x", spec(pruner=pruner, sampler="random"))
    for _ in range(6):
        asked = await studies.run(study.ask)
        assert asked is not None
        good = [(step, 1.0 - step / 100) for step in range(9)]
        assert not await studies.run(study.report, asked.number, good)
        await studies.run(study.tell, asked.number, "COMPLETE", [0.9])
    bad = await studies.run(study.ask)
    assert bad is not None
    assert await studies.run(study.report, bad.number, [(step, 10.0 + step) for step in range(9)])
    await studies.run(study.tell, bad.number, "PRUNED", None)


async def test_what_is_known_twice_is_told_once(studies: Studies) -> None:
    study = await studies.open("s1-x", spec())
    asked = await studies.run(study.ask)
    assert asked is not None
    await studies.run(study.report, asked.number, [(0, 1.0), (1, None), (0, 5.0), (-1, 3.0)])
    await studies.run(study.tell, asked.number, "COMPLETE", [0.5])
    await studies.run(study.tell, asked.number, "FAILED", None)
    frozen = study._study.trials[0]
    assert (frozen.state.name, frozen.values) == ("COMPLETE", [0.5])
    assert sorted(frozen.intermediate_values) == [0, 1]
    assert frozen.intermediate_values[0] == 1.0


async def test_a_half_drawn_point_is_drawn_to_its_end(studies: Studies, url: str) -> None:
    study = await studies.open("s1-x", spec())
    await studies.run(study.ask)

    def half() -> str:
        trial = study._study.ask()
        kind: str = trial.suggest_categorical("kind", ["sgd", "adam"])
        return kind

    kind = await studies.run(half)
    again = await studies.open("s1-x", spec())
    [adopted] = await studies.run(again.adopt, {0})
    assert adopted.number == 1
    assert adopted.params["kind"] == kind
    assert set(adopted.params) >= {"kind", "lr", "layers"}
    plain = optuna.load_study(study_name="s1-x", storage=url)
    assert plain.trials[1].params == adopted.params
    plain._storage.remove_session()


async def test_enqueued_points_and_grids_go_on_where_they_were(studies: Studies) -> None:
    space = {"a": {"choices": [1, 2, 3]}, "b": {"low": 0, "high": 1}}
    one = spec(space=space, sampler="grid", enqueue=[{"a": 9 // 3}], trials=None)
    seen = []
    for _ in range(4):  # each time as after a restart
        study: Study = await studies.open("s1-x", one)
        await studies.run(study.enqueue, one.enqueue)
        for _ in range(2):
            asked = await studies.run(study.ask)
            if asked is not None:
                seen.append(asked.params)
    assert len(seen) == 7
    assert seen[0]["a"] == 3
    assert [tuple(p.items()) for p in seen[1:]] == [
        tuple(p.items()) for p in searchspace.grid(one.space)
    ]
    assert await studies.run(study.ask) is None


async def test_together_is_all_or_nothing(studies: Studies) -> None:
    study = await studies.open("s1-x", spec())

    def broken() -> None:
        with study.together():
            study.ask()
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        await studies.run(broken)
    again = await studies.open("s1-x", spec())
    assert await studies.run(again.adopt, set()) == []
    asked = await studies.run(again.ask)
    assert asked is not None
    assert asked.number == 0


async def test_several_objectives(studies: Studies) -> None:
    both = [{"metric": "acc", "goal": "maximize"}, {"metric": "size", "goal": "minimize"}]
    study = await studies.open("s1-x", spec(objective=both))
    for value in range(12):
        asked = await studies.run(study.ask)
        assert asked is not None
        assert not await studies.run(study.report, asked.number, [(0, 1.0)])
        values = [asked.params["lr"], float(value)]
        await studies.run(study.tell, asked.number, "COMPLETE", values)
    importance = await studies.run(study.importance)
    assert sum(importance.values()) == pytest.approx(1.0)
