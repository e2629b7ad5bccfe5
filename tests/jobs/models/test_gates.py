"""Gates: what is asked, what is measured, and what that comes to."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.base.errors import InvalidInput
from jobs.models.conditions import Condition, parse_condition
from jobs.models.digests import digest_of
from jobs.models.gates import Gate, Measured, evaluate, failures, load_gate

NEW = Measured("digits:2", "sha256:b", "j2.1", {"val_acc": 0.96, "loss": 0.2, "nan": None})
LIVE = {"production": Measured("digits:1", "sha256:a", "j1.1", {"val_acc": 0.97, "loss": 0.1})}


def held(*conditions: str, others: dict[str, Measured] | None = None, **fields: Any) -> list[bool]:
    gate = Gate(name="g", conditions=list(conditions), **fields)
    document = evaluate(gate, NEW, LIVE if others is None else others, at="t", by="ann")
    results = [one["passed"] for one in document["conditions"]]
    assert document["passed"] is all(results)
    assert len(failures(document)) == results.count(False)
    return results


@pytest.mark.parametrize(
    ("text", "passed"),
    [
        ("val_acc >= 0.96", True),
        ("val_acc > 0.96", False),
        ("val_acc >= 96%", True),
        ("loss <= 0.2", True),
        ("loss < 0.2", False),
        ("val_acc >= production", False),
        ("val_acc >= production - 0.02", True),
        ("val_acc >= production - 0.005", False),
        ("val_acc >= production - 2%", True),
        ("val_acc >= production - 1%", False),
        ("loss <= production + 0.1", True),
        ("loss <= production * 2", True),
        ("loss <= production * 1.5", False),
        ("loss <= production * 200%", True),
        ('"val_acc" >= .5', True),
        ("nowhere >= 0", False),
        ("nan >= 0", False),
        ("nan <= 0", False),
    ],
)
def test_conditions(text: str, passed: bool) -> None:
    assert held(text) == [passed]


def test_a_version_that_is_not_there_yet() -> None:
    assert held("val_acc >= production - 0.005", others={}) == [True]
    assert held("val_acc >= production - 0.005", others={}, first="fail") == [False]
    missing = {"production": Measured("digits:1", "sha256:a", None, {"val_acc": None})}
    assert held("val_acc >= production", others=missing) == [False], "it is there, and says nothing"


def test_the_worse_end_of_an_interval_counts() -> None:
    metrics = {"acc": 0.96, "acc/low": 0.94, "acc/high": 0.98}
    ranged = Measured("digits:2", "sha256:b", "j2.1", metrics)
    gate = Gate(name="g", conditions=["acc >= 0.95", "acc >= 0.94", "acc <= 0.97", "acc <= 0.98"])
    document = evaluate(gate, ranged, {}, at="t", by="ann")
    assert [one["passed"] for one in document["conditions"]] == [False, True, False, True]
    assert [one["metric"] for one in document["conditions"]][::2] == ["acc/low", "acc/high"]


@pytest.mark.parametrize(
    "text",
    ["", "val_acc", "val_acc = 1", "val_acc >= ", ">= 1", "a b >= 1", "val_acc >= production / 2",
     "val_acc >= 1; DROP TABLE models", "val_acc >= production - 0.1 - 0.1", "loss <= production * -1"],
)  # fmt: skip
def test_what_is_no_condition_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="allowed"):
        parse_condition(text)


@given(st.floats(allow_nan=False, allow_infinity=False), st.floats(0, 1e6), st.sampled_from("+-"))
def test_a_limit_against_another_is_what_is_written(value: float, by: float, sign: str) -> None:
    condition = parse_condition(f"m >= production {sign} {by!r}")
    assert condition == Condition(condition.text, "m", ">=", None, "production", sign, by)
    limit = value + by if sign == "+" else value - by
    others = {"production": Measured("x:1", "d", None, {"m": value})}
    gate = Gate(name="g", conditions=[condition.text])
    (at,) = evaluate(gate, Measured("x:2", "e", None, {"m": limit}), others, at="t", by="a")[
        "conditions"
    ]
    assert at["passed"] is math.isfinite(limit)


def test_the_result_says_what_was_asked_measured_and_on_what() -> None:
    gate = Gate(name="g", conditions=["val_acc >= production - 0.005"])
    document = evaluate(gate, NEW, LIVE, at="2026-11-29T08:00:00Z", by="ann")
    (one,) = document["conditions"]
    assert (one["asked"], one["measured"], one["limit"]) == (gate.conditions[0], 0.96, 0.965)
    assert one["against"] == {
        "alias": "production", "version": "digits:1", "run": "j1.1", "value": 0.97,
    }  # fmt: skip
    assert one["why"] == "val_acc is 0.96, < 0.965 (digits:1 has 0.97)"
    assert (document["version"], document["digest"], document["run"]) == (
        "digits:2",
        "sha256:b",
        "j2.1",
    )


def test_a_gate_is_named_by_what_it_asks() -> None:
    one = Gate(name="g", conditions=["a >= 1"])
    assert one.digest == Gate(name="g", conditions=["a >= 1"]).digest
    assert one.digest != Gate(name="g", conditions=["a >= 0"]).digest
    assert one.digest != Gate(name="g", conditions=["a >= 1"], first="fail").digest
    assert digest_of({"b": 1, "a": 0.1}) == digest_of({"a": 0.1, "b": 1})


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "name: g\nconditions:\n  - a >= 1\n  - a = 1\n",
            "gate.yaml:4: conditions[1]: found 'a = 1'",
        ),
        ("name: g\nconditons: [a >= 1]\n", "did you mean conditions?"),
        ("name: g\nconditions: []\n", "conditions"),
        ("- a\n", "found no fields"),
    ],
)
def test_a_bad_gate_file_is_told_with_its_line(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "gate.yaml"
    path.write_text(text)
    with pytest.raises(InvalidInput) as error:
        load_gate(path)
    assert told in f"{error.value.message} {error.value.hint}"


def test_a_gate_file(tmp_path: Path) -> None:
    path = tmp_path / "gate.yaml"
    path.write_text("name: g\nconditions:\n  - val_acc >= production - 0.5%\nfirst: fail\n")
    gate = load_gate(path)
    assert gate == Gate(name="g", conditions=["val_acc >= production - 0.5%"], first="fail")
    assert Gate.from_json(gate.model_dump(mode="json")) == gate
