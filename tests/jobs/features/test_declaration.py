"""What a transform may say of itself, and what is said of a declaration that is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jobs.base.errors import InvalidInput
from jobs.features.declaration import Declaration, from_bytes, load_declaration
from jobs.features.names import check_name, parse_ref
from tests.features import RIDES

PLAIN: dict[str, Any] = {"inputs": {"a": "number"}, "outputs": {"x": "float64"}}


def test_it_has_one_form(tmp_path: Path) -> None:
    file = tmp_path / "features.yaml"
    file.write_text("# a comment\noutputs: {x: float64}\ninputs:\n  a: number\n")
    found = load_declaration(file)
    assert found == Declaration.from_json(PLAIN)
    assert found.to_bytes() == Declaration.from_json(PLAIN).to_bytes()
    assert from_bytes(found.to_bytes()) == found
    with pytest.raises(InvalidInput, match="one form"):
        from_bytes(found.to_bytes() + b"\n")
    with pytest.raises(InvalidInput, match="not JSON"):
        from_bytes(b"{")


def test_the_order_of_columns_is_part_of_it() -> None:
    """Several outputs make up one input of a model in their order."""
    one = {"inputs": {"a": "number"}, "outputs": {"x": "float64", "y": "float64"}}
    other = {"inputs": {"a": "number"}, "outputs": {"y": "float64", "x": "float64"}}
    assert Declaration.from_json(one).to_bytes() != Declaration.from_json(other).to_bytes()


def test_columns_of_rows_are_those_that_no_table_gives() -> None:
    assert Declaration.from_json(RIDES).row_columns == ["at", "city", "km", "minutes"]


def joined(**over: Any) -> dict[str, Any]:
    return {**RIDES, "joins": [{**RIDES["joins"][0], **over}]}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({**PLAIN, "inputs": {}}, "inputs"),
        ({**PLAIN, "inputs": {"a": "float"}}, "inputs.a"),
        ({**PLAIN, "inputs": {"a": {"type": "integer", "missing": True}}}, "allowed: type: number"),
        ({**PLAIN, "inputs": {"a": {"type": "number", "zone": "UTC"}}}, "zone"),
        ({**PLAIN, "inputs": {"a": {"type": "time", "zone": "Mars/One"}}}, "allowed: a zone"),
        ({**PLAIN, "requires": ["numpy>=2"]}, "an exact version"),
        ({**PLAIN, "code": "../x.py"}, "code"),
        ({**PLAIN, "files": ["features.json"]}, "the declaration's own"),
        ({**PLAIN, "keep": ["x"]}, "is an output too"),
        (joined(on="km"), "is no time"),
        (joined(by=["km"]), "joins.0.by"),
        (joined(by=["town"]), "is no input"),
        (joined(columns=["city"]), "comes twice"),
        (joined(table="rows"), "allowed: another name"),
        ({**RIDES, "joins": RIDES["joins"] * 2}, "is joined twice"),
    ],
)
def test_what_is_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        Declaration.from_json(given)
    assert words in caught.value.message


def test_names() -> None:
    assert (parse_ref("rides@3").name, parse_ref("rides@3").number) == ("rides", 3)
    with pytest.raises(InvalidInput, match="not a version of features"):
        parse_ref("rides:3")
    with pytest.raises(InvalidInput, match="name of features"):
        check_name("a b")
