"""Sweep files: what is read, and what is said about a bad one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]  # comes with ray

from jobs.base.errors import InvalidInput
from jobs.sweeps.schema import sweep_schema
from jobs.sweeps.space import Parameter, grid, ordered
from jobs.sweeps.spec import SweepSpec, load_sweep

PUBLISHED = Path(__file__).parents[3] / "docs" / "sweep.schema.json"

GOOD = """
name: digits-lr
job: {command: "python train.py --lr {lr}"}
space:
  lr: {low: 1.0e-4, high: 1.0e-1, log: true}
  width: {choices: [32, 64, 128]}
  optimizer: {choices: [sgd, adam]}
  momentum: {low: 0.0, high: 0.9, when: {optimizer: sgd}}
objective: {metric: val_acc, goal: maximize}
pruner: {asha: {min_steps: 1, reduction: 3}}
trials: 40
parallel: 8
budget: {time: 2h, gpu_hours: 1.5}
enqueue: [{lr: 0.01, width: 64}]
"""


def sweep(**changes: Any) -> dict[str, Any]:
    data: dict[str, Any] = yaml.safe_load(GOOD) | changes
    return {name: value for name, value in data.items() if value is not None}


def test_a_stream_is_no_trial_unless_it_ends(tmp_path: Path) -> None:
    job = "{command: 'x {lr}', stream: {source: {folder: /in}}}"
    text = f"job: {job}\nspace: {{lr: {{low: 0.0, high: 1.0}}}}\ntrials: 3\n"
    text += "objective: {metric: loss, goal: minimize}\n"
    assert "job.stream: a stream has no end" in refused(tmp_path, text)
    (tmp_path / "sweep.yaml").write_text(text.replace("/in}", "/in}, end: true"))
    load_sweep(tmp_path / "sweep.yaml")


def refused(tmp_path: Path, text: str) -> str:
    path = tmp_path / "sweep.yaml"
    path.write_text(text)
    with pytest.raises(InvalidInput) as caught:
        load_sweep(path)
    return f"{caught.value.message}\n{caught.value.hint}".replace(str(tmp_path), "")


def test_a_file_is_read_with_its_job(tmp_path: Path) -> None:
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "job.yaml").write_text(
        "command: python train.py\nobjective: {metric: loss, goal: minimize}\n"
    )
    (tmp_path / "sweep.yaml").write_text(
        "job: jobs/job.yaml\nspace: {lr: {low: 0.1, high: 1.0}}\ntrials: 3\n"
    )
    spec, folder = load_sweep(tmp_path / "sweep.yaml")
    assert folder == tmp_path / "jobs"
    assert spec.name == "train"
    assert [(item.metric, item.goal) for item in spec.objective] == [("loss", "minimize")]
    assert spec.sampler.name == "tpe"


def test_json_reads_back_as_an_equal(tmp_path: Path) -> None:
    (tmp_path / "sweep.yaml").write_text(GOOD)
    spec, _ = load_sweep(tmp_path / "sweep.yaml")
    stored = json.loads(json.dumps(spec.to_json()))
    assert SweepSpec.from_json(stored) == spec
    assert SweepSpec.from_json(json.loads(json.dumps(spec.asked()))) == spec
    assert SweepSpec.from_json(stored).to_json() == stored
    assert stored["pruner"] == {"asha": {"min_steps": 1, "reduction": 3}}


def test_the_job_of_a_trial() -> None:
    job = SweepSpec.from_json(sweep()).job_of("s1", 7, {"lr": 0.01, "width": 64})
    assert job.name == "digits-lr-7"
    assert job.argv() == ["/bin/sh", "-c", "exec python train.py --lr 0.01"]
    assert job.params == {"lr": 0.01, "width": 64}
    assert job.tags == {"sweep": "s1", "trial": "7"}
    assert job.objective is not None


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("high: 1.0e-1", "high: 1.0e-5", "/sweep.yaml:5: space.lr.high: found 1e-05; allowed: at least"),
        ("low: 1.0e-4", "low: 0.0", "space.lr.log: needs a positive low"),
        ("log: true", "log: true, step: 0.1", "space.lr.step: given together with log"),
        ("high: 1.0e-1", "hihg: 1.0e-1", "space.lr.hihg: unknown field; did you mean high?"),
        (", high: 1.0e-1", "", "space.lr: needs choices, or low and high"),
        ("[32, 64, 128]", "[32, 64, 32]", "space.width.choices: 32 is listed twice"),
        ("[32, 64, 128]", "[]", "space.width.choices: 0 choices"),
        ("[32, 64, 128]", "[32], low: 1", "space.width.low: given together with choices"),
        ("{optimizer: sgd}", "{optimiser: sgd}", "space.momentum.when.optimiser: no other parameter"),
        ("{optimizer: sgd}", "{optimizer: rms}", "found 'rms'; allowed: 'sgd', 'adam'"),
        ("goal: maximize", "goal: max", "objective.goal: found 'max'; allowed: 'maximize'"),
        ("{asha: {min_steps: 1, reduction: 3}}", "ahsa", "pruner.ahsa: there is no pruner 'ahsa'"),
        ("{asha: {min_steps: 1, reduction: 3}}", "ahsa", "did you mean asha?"),
        ("reduction: 3", "reduction: 1", "pruner.asha.reduction: found 1; allowed: a whole number, at"),
        ("trials: 40", "sampler: {tpe: {n_start: 3}}\ntrials: 40", "has no such option; allowed: startup"),
        ("trials: 40", "sampler: grid", "space.lr: a grid needs a step or choices"),
        ("trials: 40", "trials: 0", "trials: found 0; allowed: at least 1"),
        ("trials: 40", "trails: 40", "trails: unknown field; did you mean trials?"),
        ("lr: 0.01, w", "lr: 1.5, w", "enqueue[0].lr: found 1.5; allowed: 0.0001 to 0.1"),
        ("lr: 0.01, w", "rl: 1.5, w", "enqueue[0].rl: no parameter of the space"),
        ("job: {", "job: nothing.yaml #", "job: there is no file nothing.yaml"),
        ("metric: val_acc, goal: maximize}", "metric: val_acc}", "objective.goal: missing"),
        (
            "{asha: {min_steps: 1, reduction: 3}}",
            "{patient: {patience: 2, then: {median: {warm: 1}}}}",
            "pruner.patient.then.median.warm: median has no such option",
        ),
        (
            "objective: {metric: val_acc, goal: maximize}",
            "objective: [{metric: a, goal: maximize}, {metric: b, goal: minimize}]",
            "pruner: asha compares trials by one objective, and there are 2; allowed: none",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_at_its_place(tmp_path: Path, old: str, new: str, told: str) -> None:
    assert old in GOOD
    assert told in refused(tmp_path, GOOD.replace(old, new))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"trials": None, "budget": None}, "the sweep would never end"),
        ({"objective": None}, "sweep.objective: missing; the job has none either"),
        ({"sampler": "cmaes", "pruner": "none",
          "objective": [{"metric": m, "goal": "maximize"} for m in "ab"]}, "cmaes takes one objective"),
        ({"space": {"a": {"choices": [1], "when": {"b": 1}}, "b": {"choices": [1], "when": {"a": 1}}},
          "enqueue": None}, "it depends on itself"),
        ({"sampler": "grid", "space": {n: {"low": 1, "high": 1000} for n in "abc"}, "enqueue": None},
         "more than 100000 points"),
        ({"pruner": "percentile"}, "needs percentile"),
        ({"pruner": "threshold"}, "needs lower, upper or both"),
    ],
)  # fmt: skip
def test_what_cannot_be_together(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        SweepSpec.from_json(sweep(**changes))
    assert told in f"{caught.value.message} {caught.value.hint}"


def test_several_objectives_take_a_sampler_for_several() -> None:
    both = [{"metric": "a", "goal": "maximize"}, {"metric": "b", "goal": "minimize"}]
    assert SweepSpec.from_json(sweep(objective=both, pruner=None)).sampler.name == "nsga2"


def test_a_grid_has_every_point_once_and_conditions_hold() -> None:
    space = {
        "momentum": Parameter(low=0.1, high=0.3, step=0.1, when={"opt": "sgd"}),
        "opt": Parameter(choices=("sgd", "adam")),
        "layers": Parameter(low=1, high=3, step=2),
    }
    points = list(grid(space))
    assert len(points) == (3 + 1) * 2
    assert {"opt": "sgd", "layers": 3, "momentum": 0.3} in points
    assert {"opt": "adam", "layers": 1} in points
    assert ordered(space).index("opt") < ordered(space).index("momentum")
    spec = SweepSpec.from_json(sweep(sampler="grid", enqueue=None, trials=None, space={
        name: item.model_dump(exclude_defaults=True) for name, item in space.items()
    }))  # fmt: skip
    assert spec.limit == 8


def test_a_grid_leaves_out_the_points_that_its_file_enqueues() -> None:
    """And none of those that were enqueued later: to run one again is what somebody asked for."""
    space = {"x": {"low": 0.0, "high": 0.4, "step": 0.1}, "flag": {"choices": [True, 1]}}
    first = [{"x": 0.1 + 0.2, "flag": True}, {"x": 0.1}]  # of the second, flag will be drawn
    spec = SweepSpec.from_json(sweep(sampler="grid", enqueue=first, trials=None, space=space))
    assert spec.limit == 10 - 1 + 2
    points = list(spec.points())
    assert {"x": 0.3, "flag": 1} in points
    assert not any(point["x"] == 0.3 and point["flag"] is True for point in points)
    more = [*first, {"x": 0.0, "flag": True}]
    data = sweep(sampler="grid", enqueue=more, trials=None, space=space)
    later = SweepSpec.from_json(data).with_cells(spec.cells)
    assert (later.limit, list(later.points())) == (12, points)


@example(low=1, span=12, step=12, pick=0.0)  # as floats, 1.3 - 0.1 is another number than 1.2
@given(
    low=st.integers(-50, 50), span=st.integers(0, 50), step=st.integers(1, 60), pick=st.floats(0, 1)
)
def test_values_of_a_range_are_its_own(low: int, span: int, step: int, pick: float) -> None:
    if step > max(span, 1):
        return
    for parameter in (
        Parameter(low=low, high=low + span, step=step),
        Parameter(low=low / 10, high=(low + span) / 10, step=step / 10)
        if step / 10 <= max(span / 10, 1)
        else Parameter(low=low, high=low + span),
    ):
        values = parameter.values()
        assert values is not None
        assert all(parameter.problem_with(value) == "" for value in values)
        assert values[0] == parameter.low
        value = values[int(pick * (len(values) - 1))]
        assert isinstance(value, int if parameter.is_int else float)


def test_the_published_schema_is_up_to_date() -> None:
    assert json.loads(PUBLISHED.read_text()) == sweep_schema(), (
        "run: python -m jobs.sweeps.schema sweep > docs/sweep.schema.json"
    )


@pytest.mark.parametrize(
    ("changes", "valid"),
    [
        ({}, True),
        ({"job": "job.yaml", "sampler": "random", "pruner": "none"}, True),
        ({"sampler": {"tpe": {"startup": 3}}}, True),
        ({"sampler": "best"}, False),
        ({"space": {"lr": {"lo": 1}}}, False),
        ({"trials": 0}, False),
        ({"job": None}, False),
    ],
)
def test_editors_see_what_is_allowed(changes: dict[str, Any], valid: bool) -> None:
    Draft202012Validator.check_schema(sweep_schema())
    assert Draft202012Validator(sweep_schema()).is_valid(sweep(**changes)) == valid
