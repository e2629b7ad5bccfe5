"""Infinite values keep their meaning through JSON, and people's texts are left alone."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter
from sqlalchemy.dialects import sqlite

from jobs.base.numbers import dumps, finite, heard, loads, told
from jobs.store.columns import WithNumbers
from jobs.wire.runviews import RunView
from jobs.wire.sweepviews import BestTrial
from jobs.wire.views import MetricValue

VALUES: list[tuple[float | None, object]] = [
    (1.5, 1.5), (math.inf, "inf"), (-math.inf, "-inf"), (math.nan, None), (None, None),
]  # fmt: skip


@pytest.mark.parametrize(("value", "written"), VALUES)
def test_a_value_is_written_as_documented(value: float | None, written: object) -> None:
    assert told(value) == written
    assert finite(value) == (value if value == 1.5 else None)
    assert json.loads(dumps({"a": [value, (value,)], "b": "inf"})) == {
        "a": [written, [written]], "b": "inf",
    }  # fmt: skip
    document = {"value": value, "step": 3, "at": "2026-01-01T10:00:00.000Z"}
    adapter = TypeAdapter(MetricValue)
    assert json.loads(adapter.dump_json(document))["value"] == written  # type: ignore[arg-type]
    if value is None or not math.isnan(value):
        assert loads(dumps(document).encode()) == document
        assert heard(told(value)) == value


def test_the_schema_says_so() -> None:
    schema = TypeAdapter(MetricValue).json_schema(mode="serialization")
    assert {"enum": ["inf", "-inf", None]} in schema["properties"]["value"]["anyOf"]


@given(st.recursive(st.none() | st.floats() | st.text() | st.just("inf"), st.lists))
def test_any_document_is_json(document: object) -> None:
    json.loads(dumps(document), parse_constant=pytest.fail)


def test_values_are_known_by_what_is_beside_them() -> None:
    documents: list[dict[str, Any]] = [
        {"value": "inf", "tag": "inf"},
        {"line": "inf", "step": 1},
        {
            "params": {"value": "inf"},
            "metrics": {"loss": "inf", "acc": {"value": "-inf", "step": 1}},
        },
        {"number": 1, "values": ["-inf", 2.0], "last": "inf", "params": {"a": "inf"}},
        {"number": 1, "values": None},
        {"values": ["inf"]},
        {"params": {"a": "inf"}, "metrics": [{"loss": "inf"}]},  # of a job's file
        {"number": 3, "values": "inf"},
    ]
    found = loads(dumps(documents).encode())
    assert found == [
        documents[0], documents[1],
        {"params": {"value": "inf"}, "metrics": {"loss": math.inf, "acc": {"value": -math.inf, "step": 1}}},
        {"number": 1, "values": [-math.inf, 2.0], "last": math.inf, "params": {"a": "inf"}},
        *documents[4:],
    ]  # fmt: skip
    assert {"params", "metrics"} <= RunView.__annotations__.keys(), "by which a run is known"
    assert {"number", "values"} <= BestTrial.__annotations__.keys(), "and a trial"


def test_a_column_holds_them() -> None:
    column, dialect = WithNumbers(), sqlite.dialect()
    for value in ({"value": math.inf, "step": 3}, [-math.inf, 1.0], None):
        stored = column.process_bind_param(value, dialect)
        json.dumps(stored, allow_nan=False)
        assert column.process_result_value(stored, dialect) == value
