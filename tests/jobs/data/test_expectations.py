"""Files of expectations: what is wrong with one is said with its line."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from jobs.base.errors import InvalidInput
from jobs.data.expectations import Expectations, load_expectations, propose

PROFILE = {
    "tables": [
        {
            "file": "a.csv",
            "rows": 100,
            "columns": [
                {"name": "x", "type": "integer", "missing": 0, "min": 1, "max": 9},
                {"name": "y", "type": "text", "missing": 10},
            ],
        }
    ]
}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "the file is empty"),
        ("{}", "it expects nothing"),
        ("table: {min_rows: -1}", "min_rows"),
        ("table: {colums: {}}", "columns"),
        ("table: {columns: {a: {pattern: '('}}}", "allowed: a pattern"),
        ("table: {columns: {a: {references: users}}}", "allowed: FILE.COLUMN"),
        ("table: {columns: {a: {type: float}}}", "type"),
    ],
)
def test_a_bad_file(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "expect.yaml"
    path.write_text(text)
    with pytest.raises(InvalidInput) as caught:
        load_expectations(path)
    assert told in caught.value.message


def test_what_is_proposed_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "expect.yaml"
    path.write_text(yaml.safe_dump(propose(PROFILE)))
    rules = load_expectations(path).tables["a.csv"]
    assert rules.min_rows == 50
    assert (rules.columns["x"].required, rules.columns["x"].max) == (True, 9)
    assert rules.columns["y"].missing == 0.16
    with pytest.raises(InvalidInput):
        propose({})


def test_nothing_is_expected_of_what_is_not_named() -> None:
    assert Expectations.model_validate({"table": {}}).table is not None
