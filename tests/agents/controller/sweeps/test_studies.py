"""Studies alone: every sampler and pruner works, and what a crash leaves half done is taken up."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest

from agents.controller.stores.database import Database
from agents.controller.sweeps.studies import Asked, Studies, Study
from jobs.sweeps import space as searchspace
from jobs.sweeps.spec import SweepSpec
from jobs.sweeps.strategies import PRUNERS, SAMPLERS

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


def place(asked: Asked) -> tuple[float, float]:
    """The point of a trial in the plane of `a` and `b`."""
    a, b = asked.params["a"], asked.params["b"]
    assert isinstance(a, float)
    assert isinstance(b, float)
    return a, b


def distance(asked: Asked) -> float:
    """How far from the best point, squared."""
    a, b = place(asked)
    return (a - 0.2) ** 2 + (b - 0.3) ** 2


@pytest.fixture
def url(tmp_path: Path) -> str:
    url = f"sqlite:///{tmp_path / 'state.db'}"
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


_LATER = {"warmup": 1, "interval": 2}
EVERY_PRUNER: list[Any] = [
    {"median": {"startup": 1, "min_trials": 2, **_LATER}},
    {"percentile": {"percentile": 50, "startup": 1, "min_trials": 2, **_LATER}},
    {"asha": {"reduction": 2, "min_steps": 2, "grace_rungs": 1}},
    {"asha": {"bootstrap": 2}},
    {"hyperband": {"min_steps": 1, "max_steps": 9, "reduction": 3, "bootstrap": 1}},
    {"patient": {"patience": 1, "min_delta": 0.0, "then": {"median": {"startup": 1}}}},
    {"threshold": {"upper": 5, "lower": -1, **_LATER}},
    {"wilcoxon": {"p_threshold": 0.2, "startup": 2}},
]
EVERY_SAMPLER: list[Any] = [
    "random",
    {"tpe": {"startup": 2, "candidates": 8, "constant_liar": False}},
    {"tpe": {"multivariate": True, "group": True, "startup": 2}},
    {"gp": {"startup": 2, "deterministic": True}},
    {"cmaes": {"startup": 2, "sigma": 0.1, "population": 4, "margin": True, "use_pruned": True}},
    {"cmaes": {"separable": True}},
    {"cmaes": {"adapt": True}},
    {"qmc": {"sequence": "halton", "scramble": True}},
    "qmc",
    {"nsga2": {"population": 4, "crossover": "blx-alpha", "mutation_prob": 0.1}},
    {"nsga2": {"population": 4, "crossover": "sbx", "crossover_prob": 0.8, "swapping_prob": 0.4}},
    {"nsga2": {"population": 4, "crossover": "uniform"}},
    {"nsga2": {"population": 4, "crossover": "vsbx"}},
    {"nsga2": {"population": 4, "crossover": "spx"}},
    {"nsga2": {"population": 4, "crossover": "undx"}},
    {"nsga3": {"population": 4, "dividing": 2, "crossover": "uniform", "crossover_prob": 0.8}},
    {"nsga3": {"population": 4, "mutation_prob": 0.1, "swapping_prob": 0.4}},
]


@pytest.mark.parametrize("sampler", EVERY_SAMPLER, ids=str)
async def test_every_sampler_asks(studies: Studies, sampler: Any) -> None:
    """With every option; for long enough to have learnt something, and after a restart."""
    space = {key: value for key, value in SPACE.items() if key != "momentum"}
    asked_for = spec(space=space, sampler=sampler)
    for _ in range(2):
        study = await studies.open("s1-x", asked_for)
        for _ in range(8):
            asked = await studies.run(study.ask)
            assert asked is not None
            assert asked_for.admits(asked.params)
            for name, value in asked.params.items():
                assert asked_for.space[name].problem_with(value) == ""
            await studies.run(study.tell, asked.number, "COMPLETE", [asked.params["lr"]])


def test_every_sampler_and_pruner_is_tried_with_every_option() -> None:
    given = [{item: {}} if isinstance(item, str) else item for item in EVERY_SAMPLER]
    given += [{item: {}} if isinstance(item, str) else item for item in EVERY_PRUNER]
    tried: dict[str, set[str]] = {}
    for name, options in (next(iter(item.items())) for item in given):
        tried.setdefault(name, set()).update(options)
    for table in (SAMPLERS, PRUNERS):
        for name, entry in table.items():
            if name not in ("grid", "pbt", "none"):  # see below, and test_populations
                assert tried[name] == set(entry.options), name


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "cmaes", "qmc", "random"])
async def test_no_point_breaks_a_constraint(studies: Studies, sampler: str) -> None:
    space = {"a": {"low": 0.0, "high": 1.0}, "b": {"low": 0.0, "high": 1.0}}
    asked_for = spec(
        space=space, sampler=sampler, constraints=["a + b <= 0.5"], enqueue=[{"a": 0.45}]
    )
    study = await studies.open("s1-x", asked_for)
    await studies.run(study.enqueue, asked_for.enqueue)
    points = []
    for number in range(14):
        asked = await studies.run(study.ask)
        assert asked is not None
        assert sum(place(asked)) <= 0.5
        points.append(asked)
        if number % 5 == 4:  # as after a restart
            study = await studies.open("s1-x", asked_for)
            await studies.run(study.adopt, {item.number for item in points})
        values = [-sum(place(asked))]  # the best lie where none may be
        await studies.run(study.tell, asked.number, "COMPLETE", values)
    assert (points[0].params["a"], points[0].point) == (0.45, 0)
    assert [item.point for item in points[1:]] == [None] * 13


async def test_constraints_that_no_point_meets_are_given_up(studies: Studies) -> None:
    study = await studies.open("s1-x", spec(constraints=["lr >= 1"]))
    assert await studies.run(study.ask) is None
    assert study.exhausted == "of 500 points that were drawn, each breaks a constraint"


@pytest.mark.parametrize("sampler", ["tpe", {"gp": {"startup": 3}}, {"cmaes": {"population": 4}}])
async def test_a_study_starts_from_what_others_know(studies: Studies, sampler: Any) -> None:
    space = {"a": {"low": 0.0, "high": 1.0}, "b": {"low": 0.0, "high": 1.0}}
    first = await studies.open("s1-x", spec(space=space, sampler="random"))
    for number in range(20):
        asked = await studies.run(first.ask)
        assert asked is not None
        if number == 19:
            break  # one is still open
        value = distance(asked)
        await studies.run(first.report, asked.number, [(0, value)])
        await studies.run(
            first.tell, asked.number, "PRUNED" if number == 3 else "COMPLETE", [value]
        )
    narrower = spec(space=space | {"a": {"low": 0.0, "high": 0.8}}, sampler=sampler)
    study = await studies.open("s2-x", narrower)
    lent = await studies.run(study.warm, ["s1-x"])
    fits = [t for t in first._study.trials[:19] if t.params["a"] <= 0.8]
    assert lent == len(fits) < 19
    assert await studies.run(study.warm, ["s1-x"]) is None
    again = await studies.open("s2-x", narrower)
    assert await studies.run(again.warm, ["s1-x"]) is None
    assert await studies.run(again.adopt, set()) == []
    near = 0
    for number in range(8):
        asked = await studies.run(again.ask)
        assert asked is not None
        assert asked.number == lent + number
        value = distance(asked)
        near += value < 0.1
        await studies.run(again.tell, asked.number, "COMPLETE", [value])
    assert near >= 4  # at random, a third of them would be
    plain = optuna.load_study(study_name="s2-x", storage=studies._url)
    assert {t.user_attrs.get("quarterdeck:from", "")[:4] for t in plain.trials} == {"s1-x", ""}
    plain._storage.remove_session()


async def test_cmaes_begins_by_itself_when_it_is_lent_too_little(studies: Studies) -> None:
    space = {"a": {"low": 0.0, "high": 1.0}, "b": {"low": 0.0, "high": 1.0}}
    for name, sampler, count in (("s1-x", "random", 3), ("s2-x", "cmaes", 4)):
        study = await studies.open(name, spec(space=space, sampler=sampler))
        assert await studies.run(study.warm, ["s1-x"] if name == "s2-x" else []) == (
            3 if name == "s2-x" else 0
        )
        for _ in range(count):
            asked = await studies.run(study.ask)
            assert asked is not None
            await studies.run(study.tell, asked.number, "COMPLETE", [asked.params["a"]])


async def test_results_that_break_a_constraint_are_told_so(studies: Studies) -> None:
    study = await studies.open("s1-x", spec(constraints=["latency <= 5"]))
    for excess in (2.0, -1.0):
        asked = await studies.run(study.ask)
        assert asked is not None
        told = {"latency <= 5": excess}
        for _ in range(2):  # the second time changes nothing
            await studies.run(study.tell, asked.number, "COMPLETE", [-excess], told)
    assert [t.constraints for t in study._study.trials] == [
        {"latency <= 5": 2.0},
        {"latency <= 5": -1.0},
    ]
    assert study._study.best_trial.number == 1  # although the other has the lower value


@pytest.mark.parametrize("pruner", EVERY_PRUNER, ids=str)
async def test_every_pruner_stops_what_lags(studies: Studies, pruner: Any) -> None:
    study = await studies.open("s1-x", spec(pruner=pruner, sampler="random"))
    for _ in range(6):
        asked = await studies.run(study.ask)
        assert asked is not None
        good = [(step, 1.0 - step / 100) for step in range(9)]
        early = await studies.run(study.report, asked.number, good)
        assert not early or "bootstrap" in str(pruner)  # which lets none of the first ones pass
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
