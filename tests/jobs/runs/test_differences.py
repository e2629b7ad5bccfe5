from __future__ import annotations

from typing import Any

from jobs.runs.differences import file_differences, metric_differences, spec_differences


def test_parameters_come_first_and_nested_fields_by_name() -> None:
    old = {"params": {"lr": 0.1, "n": 1}, "command": "a", "resources": {"gpu": 1, "cpu": 2}}
    new = {"params": {"lr": 0.2, "n": 1}, "command": "a", "resources": {"gpu": 2, "cpu": 2}}
    new |= {"data": {"train": "d@2"}, "tags": {"a": "b"}}
    assert [(one.what, one.values) for one in spec_differences([old, new])] == [
        ("param.lr", (0.1, 0.2)),
        ("data.train", (None, "d@2")),
        ("resources.gpu", (1, 2)),
        ("tag.a", (None, "b")),
    ]


def test_one_and_true_are_not_the_same() -> None:
    assert len(spec_differences([{"params": {"x": 1}}, {"params": {"x": True}}])) == 1


def test_metrics_are_the_same_to_the_bit_or_differ() -> None:
    one: dict[str, dict[str, Any]] = {
        "a": {"value": 0.1 + 0.2},
        "b": {"value": 1.0},
        "nan": {"value": None},
    }
    other: dict[str, dict[str, Any]] = {
        "a": {"value": 0.3},
        "b": {"value": 1.0},
        "nan": {"value": None},
    }
    found, same = metric_differences([one, other])
    assert ([one.what for one in found], same) == (["a"], 2)
    assert metric_differences([one, one]) == ([], 3)


def test_files() -> None:
    assert file_differences([{"a": "1", "b": "2"}, {"a": "1", "c": "3"}]) == [
        ("b", ("2", None)),
        ("c", (None, "3")),
    ]
