"""What one record can show of a data set's expectations."""

from __future__ import annotations

from typing import Any

import pytest

from agents.node.worker.quarterdeck_stream.rules import Rules
from agents.node.worker.quarterdeck_stream.settings import Settings, StreamError


@pytest.mark.parametrize(
    ("rule", "value", "says"),
    [
        ({"type": "integer"}, 3, ""),
        ({"type": "integer"}, 3.0, "is 3.0, not an integer"),
        ({"type": "integer"}, True, "is True, not an integer"),
        ({"type": "integer"}, None, ""),
        ({"type": "integer", "required": True}, None, "is missing"),
        ({"required": True}, "", "is missing"),
        ({"required": True}, float("nan"), "is missing"),
        ({"type": "number"}, 3, ""),
        ({"type": "number"}, float("inf"), "is inf, not a finite number"),
        ({"type": "number"}, "3", "is '3', not a number"),
        ({"type": "text"}, 3, "is 3, not text"),
        ({"type": "boolean"}, 1, "is 1, not true or false"),
        ({"type": "boolean"}, False, ""),
        ({"type": "time"}, "2026-02-28T10:00:00Z", ""),
        ({"type": "time"}, "2026-02-30", "is '2026-02-30', not a time"),
        ({"min": 0, "max": 1.5}, -1, "is -1, below 0"),
        ({"min": 0, "max": 1.5}, 1.6, "is 1.6, above 1.5"),
        ({"min": 0}, "5", "is '5', not a number"),
        ({"min": "2026-01-01"}, "2025-12-31T23:00:00-01:00", ""),
        ({"min": "2026-01-01"}, "2025-12-31", "is '2025-12-31', below 2026-01-01"),
        ({"allowed": ["a", 1]}, "a", ""),
        ({"allowed": ["a", 1]}, True, "is True, which is not allowed"),
        ({"allowed": ["a", 1]}, [], "is [], which is not allowed"),
        ({"pattern": "[A-Z]{3}"}, "ABC", ""),
        ({"pattern": "[A-Z]{3}"}, "ABCD", "is 'ABCD', which does not match"),
        ({"pattern": "[A-Z]{3}"}, 5, "is 5, which does not match"),
    ],
)
def test_rules(rule: dict[str, Any], value: Any, says: str) -> None:
    found = Rules({"columns": {"x": rule}}).problem({"x": value})
    assert found == "" if not says else found.startswith(f"x {says}")


def test_columns_that_are_absent_or_not_expected() -> None:
    rules = Rules({"columns": {"x": {"required": True}, "y": {}}, "closed": True})
    assert rules.problem({"y": 1}) == "x is missing"
    assert rules.problem({"x": 1}) == ""
    assert rules.problem({"x": 1, "z": 1}) == "z is not expected"


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({"min_rows": 3}, "expect.min_rows: it takes a whole table"),
        ({"columns": {"x": {"unique": True}}}, "expect.columns.x.unique: it takes a whole table"),
        ({"columns": {"x": {"typ": "text"}}}, "expect.columns.x.typ: no such field"),
        ({"columns": {"x": {"type": "str"}}}, "expect.columns.x.type: found 'str'"),
        ({"columns": {"x": {"min": "soon"}}}, "expect.columns.x.min: found 'soon'"),
        ({"columns": {"x": {"pattern": "["}}}, "expect.columns.x.pattern"),
        ({"columns": {"x": 3}}, "expect.columns.x: found 3"),
    ],
)
def test_rules_that_cannot_be(table: dict[str, Any], says: str) -> None:
    with pytest.raises(StreamError, match=says):
        Rules(table)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"source": {}}, "source: allowed: {folder: PATH}"),
        ({"sauce": {}}, "sauce: no such field"),
        ({"commit": {"records": 0}}, "commit.records: found 0"),
        ({"commit": {"records": True}}, "commit.records: found True"),
        ({"commit": {"often": 1}}, "commit.often: no such field"),
        ({"release": 5}, "release: found 5; allowed: fields with values"),
        ({"on_drift": "panic"}, "on_drift: found 'panic'; allowed: note or release"),
        ({"score": "f1"}, "score: found 'f1'"),
        ({"end": 1}, "end: found 1; allowed: true or false"),
        ({"window": True}, "window: found True"),
    ],
)
def test_settings_that_cannot_be(change: dict[str, Any], says: str) -> None:
    with pytest.raises(StreamError, match=says):
        Settings({"source": {"folder": "in"}, **change})
