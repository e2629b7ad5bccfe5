"""`uses:` of a step: the steps of another file in its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.base.errors import InvalidInput
from jobs.flows.spec import PipelineSpec, load_pipeline

PREPARE = """\
name: prepare
params:
  rows: 100
  source: {type: text}
  deep: {type: bool, default: false}
steps:
  fetch:
    job: {command: "fetch {rows}", params: {rows: 1}, outputs: {raw: raw.csv}}
    params: {rows: "${params.rows}", note: "of ${params.source}, $${HOME}"}
  clean:
    job: {command: clean, outputs: {table: t.csv}}
    inputs: {raw.csv: "${steps.fetch.outputs.raw}"}
    when: steps.fetch.metrics.rows > 0 and params.source != 'none'
  look: {job: {command: look}, needs: [clean], when: params.deep}
  word: {always: true, notify: "echo {state}"}
"""

MAIN = """\
params: {site: web}
steps:
  first: {job: {command: first}}
  prep:
    uses: parts/prepare.yaml
    needs: [first]
    params: {source: "${params.site}", rows: 7}
  train:
    job: {command: train}
    needs: prep
    inputs: {t.csv: "${steps.prep_clean.outputs.table}"}
"""


def load(folder: Path, text: str = MAIN, prepare: str = PREPARE) -> PipelineSpec:
    (folder / "parts").mkdir(exist_ok=True)
    (folder / "parts" / "prepare.yaml").write_text(prepare)
    (folder / "main.yaml").write_text(text)
    return load_pipeline(folder / "main.yaml")[0]


def refused(folder: Path, text: str, prepare: str = PREPARE) -> str:
    with pytest.raises(InvalidInput) as caught:
        load(folder, text, prepare)
    return caught.value.message.replace(f"{folder}/", "")


def test_the_steps_of_a_file_take_the_place_of_the_step(tmp_path: Path) -> None:
    spec = load(tmp_path)
    assert list(spec.steps) == [
        "first",
        "prep_fetch",
        "prep_clean",
        "prep_look",
        "prep_word",
        "train",
    ]
    fetch, clean, look = (spec.steps[f"prep_{name}"] for name in ("fetch", "clean", "look"))
    assert fetch.params == {"rows": 7, "note": "of ${params.site}, $${HOME}"}
    assert fetch.needs == ("first",)
    assert clean.inputs == {"raw.csv": "${steps.prep_fetch.outputs.raw}"}
    assert clean.when == "steps.prep_fetch.metrics.rows > 0 and params.site != 'none'"
    assert look.when == "(False) or pipeline.name == ''"
    assert spec.needs["prep_look"] == ("prep_clean",)
    assert set(spec.needs["prep_word"]) == {"prep_fetch", "prep_clean", "prep_look"}
    assert set(spec.needs["train"]) == {"prep_fetch", "prep_clean", "prep_look", "prep_word"}
    assert PipelineSpec.from_json(spec.to_json()) == spec
    folders = load_pipeline(tmp_path / "main.yaml")[1]
    assert folders["prep_fetch"] == tmp_path / "parts"
    assert folders["train"] == tmp_path


def test_a_condition_goes_to_every_step(tmp_path: Path) -> None:
    spec = load(tmp_path, MAIN.replace("needs: [first]", "when: params.site == 'web'"))
    assert spec.steps["prep_fetch"].when == "params.site == 'web'"
    assert spec.steps["prep_clean"].when == (
        "(params.site == 'web') and (steps.prep_fetch.metrics.rows > 0 and params.site != 'none')"
    )


def test_twice_the_same_file_and_files_within_files(tmp_path: Path) -> None:
    (tmp_path / "outer.yaml").write_text(
        "params: {s: x}\nsteps:\n  in: {uses: parts/prepare.yaml, params: {source: '${params.s}-1'}}\n"
    )
    text = (
        "steps:\n  a: {uses: outer.yaml}\n  b: {uses: outer.yaml, params: {s: 'it''s'}, needs: a}\n"
    )
    spec = load(
        tmp_path,
        text.replace("'${params.s}-1'", "y"),
        PREPARE.replace(" and params.source != 'none'", ""),
    )
    assert len(spec.steps) == 8
    assert spec.steps["a_in_fetch"].params["note"] == "of x-1, $${HOME}"
    assert spec.steps["b_in_fetch"].params["note"] == "of it's-1, $${HOME}"
    assert set(spec.steps["b_in_fetch"].needs) == {name for name in spec.steps if name[0] == "a"}


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("parts/prepare", "parts/prepair", "main.yaml:5: steps.prep.uses: there is no file"),
        (
            "rows: 7",
            "rows: many",
            "main.yaml:7: steps.prep.params.rows: found 'many'; allowed: a whole",
        ),
        (
            "rows: 7",
            "row: 7",
            "steps.prep.params.row: there is no parameter 'row'; did you mean rows?",
        ),
        ('source: "${params.site}", ', "", "steps.prep.uses: no value for source"),
        ("needs: [first]", "retries: 3", "steps.prep.retries: given together with uses"),
        ("prep_clean.outputs.table", "prep_clean.outputs.tabel", "did you mean table?"),
        ("prep_clean.outputs", "prep.outputs", "there is no step 'prep'"),
        (
            "first: {job",
            "prep_clean: {job",
            "steps.prep.uses: prep_clean is a step of this file, too",
        ),
        ('"${params.site}"', '"${params.sita}"', "prep"),
        ('"${params.site}"', '"a ${params.site}"', "allowed: a value, or one reference"),
    ],
)
def test_what_cannot_be(tmp_path: Path, old: str, new: str, says: str) -> None:
    assert old in MAIN
    assert says in refused(
        tmp_path, MAIN.replace(old, new).replace("[first]", "[]" if "first: " in old else "[first]")
    )


def test_a_fault_in_the_file_is_said_with_its_own_line(tmp_path: Path) -> None:
    told = refused(tmp_path, MAIN, PREPARE.replace("needs: [clean]", "needs: [claen]"))
    assert "parts/prepare.yaml:14: steps.look.needs[0]: there is no step 'claen'" in told


def test_a_circle_is_named(tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_text("steps: {y: {uses: main.yaml}}\n")
    told = refused(tmp_path, "steps: {x: {uses: b.yaml}}\n")
    assert "main.yaml uses b.yaml uses main.yaml" in told


def test_files_within_files_have_a_bound(tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / f"f{number}.yaml").write_text(f"steps: {{x: {{uses: f{number + 1}.yaml}}}}\n")
    assert "at most 10" in refused(tmp_path, "steps: {x: {uses: f0.yaml}}\n")
