"""Pipeline files: what is wrong is said with its line, and the nearest right name."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.base.errors import InvalidInput
from jobs.flows import graph
from jobs.flows.params import from_words, settings
from jobs.flows.references import filled, template
from jobs.flows.spec import PipelineSpec, load_pipeline

GOOD = """\
name: digits
params:
  epochs: 3
  lr: {type: float, default: 0.1, choices: [0.1, 0.2]}
  tag: {type: text}
steps:
  features:
    job: {command: make, outputs: {data: f.csv}}
  train:
    job: {command: "train {epochs}", params: {epochs: 1}, outputs: {model: m.bin}}
    inputs: {data/f.csv: "${steps.features.outputs.data}"}
    params: {epochs: "${params.epochs}", note: "$${HOME} ${params.tag}-${matrix.seed}"}
    matrix: {seed: [1, 2]}
    when: params.epochs > 2 and not steps.features.metrics.rows < 1 and params.tag != 'x'
  search:
    sweep:
      job: {command: "try {x}"}
      space: {x: {low: 0.0, high: 1.0}}
      objective: {metric: loss, goal: minimize}
      trials: 3
  last:
    job: {command: "use {x}", params: {x: 0.5}}
    params: {x: "${steps.search.best.params.x}"}
  mail: {notify: "mail {failed}", on_failure: true}
"""


def pipeline(tmp_path: Path, text: str = GOOD) -> PipelineSpec:
    (tmp_path / "p.yaml").write_text(text)
    return load_pipeline(tmp_path / "p.yaml")[0]


def test_a_stream_is_no_step_unless_it_ends(tmp_path: Path) -> None:
    text = "steps: {one: {job: {command: x, stream: {source: {folder: /in}}}}}\n"
    with pytest.raises(InvalidInput, match="a stream has no end"):
        pipeline(tmp_path, text)
    pipeline(tmp_path, text.replace("/in}", "/in}, end: true"))


def test_a_pipeline_is_read(tmp_path: Path) -> None:
    spec = pipeline(tmp_path)
    assert PipelineSpec.from_json(spec.to_json()) == spec
    assert spec.needs == {
        "features": (),
        "train": ("features",),
        "search": (),
        "last": ("search",),
        "mail": ("features", "train", "search", "last"),
    }
    assert spec.steps["train"].instances() == [{"seed": 1}, {"seed": 2}]
    assert spec.steps["mail"].kind == "notify"
    assert graph.order(spec.needs)[-1] == "mail"


def test_jobs_and_sweeps_from_files_beside_it(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "job.yaml").write_text("command: echo hi\nworkdir: code\n")
    (tmp_path / "p.yaml").write_text("steps: {a: {job: in/job.yaml}, b: {job: {command: x}}}\n")
    spec, folders = load_pipeline(tmp_path / "p.yaml")
    assert spec.name == "p"
    assert folders == {"a": tmp_path / "in", "b": tmp_path}
    (tmp_path / "p.yaml").write_text("steps:\n  a: {job: in/jobs.yaml}\n")
    with pytest.raises(InvalidInput, match=r"p.yaml:2: steps.a.job: there is no file in/jobs.yaml"):
        load_pipeline(tmp_path / "p.yaml")


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("  mail: {", "  a: {job: {command: x}, needs: [b]}\n  b: {job: {command: x}, needs: [a]}\n"
         "  mail: {", r"p.yaml:24: steps.a.needs: it needs itself: a → b → a"),
        ("on_failure: true", "needs: [trian]", r"steps.mail.needs\[0\]: there is no step 'trian'; "
         "did you mean train"),
        ("features.outputs.data", "feature.outputs.data",
         "p.yaml:11: steps.train.inputs.data/f.csv: there is no step 'feature'; did you mean features"),
        ("outputs.data}", "outputs.date}",
         "there is no output of features 'date'; did you mean data"),
        ("${params.epochs}", "${params.epoch}", "no parameter 'epoch'; did you mean epochs"),
        ("${matrix.seed}", "${matrix.sed}", "no matrix value 'sed'; did you mean seed"),
        ("${params.epochs}", "${params.tag}",
         "steps.train.params.epochs: text, where the job's own value is a number"),
        ("${params.epochs}", "${parms.epochs}", "found 'parms.epochs' in a reference; allowed: params"),
        ("${params.epochs}", "${params.epochs", "does not end"),
        ("params.epochs > 2", "params.epochs > 'x'", "steps.train.when: ''x'' is text; allowed here"),
        ("params.epochs > 2", "params.tag", "steps.train.when: 'params.tag' is text; allowed here"),
        ("params.epochs > 2", "__import__('os')", "found '__import__"),
        ("params.epochs > 2", "params.epochs >", "allowed: a condition such as"),
        ("best.params.x", "best.params.y", "no parameter of search 'y'"),
        ("best.params.x", "metrics.loss", "search is a sweep, which logs no metrics"),
        ("steps.search.best.params.x", "steps.train.metrics.acc", "train has a matrix"),
        ("x: \"${steps.search", "x: \"${steps.features.outputs.data} ${steps.search",
         "an output is a file; allowed: in inputs"),
        ("\"${steps.features.outputs.data}\"", "\"${params.tag}\"",
         r"allowed: \$\{steps.STEP.outputs.NAME\}"),
        ("lr: {type: float, default: 0.1,", "lr: {type: int, default: 0.1,",
         "p.yaml:4: params.lr.default: found 0.1; allowed: a whole number"),
        ("lr: {type: float", "lr: {type: flaot", "did you mean float"),
        ("{seed: [1, 2]}", "{seed: []}", "steps.train.matrix.seed"),
        ("{seed: [1, 2]}", "{seed: [1, 1]}", "1 is listed twice"),
        ("notify: \"mail {failed}\", on_failure: true", "on_failure: true",
         "steps.mail: found none of them; allowed: one of job, sweep, data-check"),
        ("on_failure: true", "always: true, on_failure: true", "given together with always"),
        ("on_failure: true", "gates: x", "unknown field.*gate"),
        ("inputs: {data", "retires: 2\n    inputs: {data", "did you mean steps.*retries|retries"),
        ("trials: 3\n", "trials: 3\n    timeout: 3h\n", "given for a sweep; allowed: budget"),
    ],
)  # fmt: skip
def test_one_clear_error(tmp_path: Path, old: str, new: str, told: str) -> None:
    assert old in GOOD
    with pytest.raises(InvalidInput, match=told) as error:
        pipeline(tmp_path, GOOD.replace(old, new, 1))
    assert error.value.message.startswith(str(tmp_path / "p.yaml:"))


def test_what_is_no_pipeline(tmp_path: Path) -> None:
    for text, told in (("", "the file is empty"), ("- a", "found a list"), ("steps: {}", "steps")):
        with pytest.raises(InvalidInput, match=told):
            pipeline(tmp_path, text)
    many = ", ".join(map(str, range(200)))
    text = f"steps: {{a: {{job: {{command: x}}, matrix: {{x: [{many}], y: [{many}]}}}}}}"
    with pytest.raises(InvalidInput, match="40000 runs of steps so far; allowed: 10000"):
        pipeline(tmp_path, text)


def test_parameters_have_types(tmp_path: Path) -> None:
    params = pipeline(tmp_path).params
    given = from_words(params, ["epochs=7", "lr=0.2", "tag=${params.epochs}"])
    assert settings(params, given) == {"epochs": 7, "lr": 0.2, "tag": "${params.epochs}"}
    for word, told in (
        ("epochs=many", "--set epochs: found 'many'; allowed: a whole number"),
        ("lr=0.3", "--set lr: found 0.3; allowed: 0.1, 0.2"),
        ("lr=nan", "allowed: a number"),
        ("epoch=3", "no parameter 'epoch'; did you mean epochs"),
        ("epochs", "allowed: NAME=VALUE"),
    ):
        with pytest.raises(InvalidInput, match=told):
            from_words(params, [word])
    with pytest.raises(InvalidInput, match="no value for tag"):
        settings(params, {})
    with pytest.raises(InvalidInput, match="--set epochs: found true"):
        settings(params, {"epochs": True, "tag": "x"})


def test_what_a_reference_yields_is_data() -> None:
    assert filled("${params.a}", {"params.a": "${params.b}"}) == "${params.b}"
    assert filled("x ${params.a}", {"params.a": 0.5}) == "x 0.5"
    assert filled("${params.a}", {"params.a": 3}) == 3
    assert filled("$${params.a}", {}) == "${params.a}"
    assert template(3).references == ()
