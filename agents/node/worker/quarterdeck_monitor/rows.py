"""Rows of features: from lines of the inference log, and from tables (pure, but for the files it reads).

A feature is a place in the last axis of a tensor (`x[3]`), or a tensor of one value for each row (`x`). A
request of several rows counts as that many. Of tensors that are wider than `WIDEST`, and of those that the
log keeps only numbers about, four features stand for all: `x.mean`, `x.std`, `x.min`, `x.max`.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

WIDEST = 512
ABOUT = ("mean", "std", "min", "max")
MOST = 100_000
"""Rows of a table that are kept, evenly spread: beyond it every other one goes, and again of what is left."""
FEW = 20
"""Different whole numbers up to which a feature counts as a category."""


@dataclass(slots=True)
class Rows:
    """Values by feature, None where there is none. `outputs` names the features that a model gave."""

    count: int = 0
    features: dict[str, list[Any]] = field(default_factory=dict)
    outputs: set[str] = field(default_factory=set)
    seen: int = 0
    stride: int = 1

    def thin(self) -> None:
        """Drop every other row."""
        self.features = {name: values[1::2] for name, values in self.features.items()}
        self.count, self.stride = self.count // 2, 2 * self.stride


def of_log(lines: Iterable[str], names: Sequence[str] = ()) -> Rows:
    """Read lines of an inference log; those that are no such lines are passed over.

    Args:
        names: what the places of the one input are called, in order; without, `x[0]` and so on.
    """
    rows = Rows()
    for line in lines:
        try:
            told = json.loads(line)
            inputs, outputs = told["i"], told["o"]
            count = _count({**inputs, **outputs})
            found = _features(inputs, count, names) if len(inputs) == 1 else None
            given = _features(inputs, count) if found is None else found
            answers = _features(outputs, count)
        except (ValueError, KeyError, TypeError, AttributeError, IndexError):
            continue
        for features in (given, answers):
            for name, values in features.items():
                known = rows.features.get(name)
                if known is None:
                    known = rows.features[name] = [None] * rows.count
                known += values
        rows.outputs.update(answers)
        rows.count += count
        for values in rows.features.values():
            if len(values) < rows.count:
                values += [None] * (rows.count - len(values))
    return rows


def _count(tensors: Mapping[str, Any]) -> int:
    """Rows of a request: the first axis, where all tensors agree on it; else one."""
    if any("d" not in tensor for tensor in tensors.values()):
        return 1
    sizes = {tensor["s"][0] if len(tensor["s"]) else 1 for tensor in tensors.values()}
    return int(sizes.pop()) if len(sizes) == 1 else 1


def _features(
    tensors: Mapping[str, Any], count: int, names: Sequence[str] = ()
) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for tensor, item in tensors.items():
        if "m" in item or "d" not in item:
            about = item.get("m") or []
            found |= {
                f"{tensor}.{word}": [value] for word, value in zip(ABOUT, about, strict=False)
            }
            continue
        data = item["d"]
        if data is None or count == 0:
            continue  # redacted
        width = len(data) // count
        if width > WIDEST:
            found |= _about(tensor, data, count, width)
        elif width == 1:
            found[names[0] if len(names) == 1 else tensor] = list(data)
        else:
            called = names if len(names) == width else [f"{tensor}[{n}]" for n in range(width)]
            found |= {name: data[place::width] for place, name in enumerate(called)}
    return found


def _about(tensor: str, data: list[Any], count: int, width: int) -> dict[str, list[Any]]:
    try:
        table = np.array(data, float).reshape(count, width)
    except (ValueError, TypeError):
        return {}
    values = (table.mean(1), table.std(1), table.min(1), table.max(1))
    return {f"{tensor}.{word}": list(v) for word, v in zip(ABOUT, values, strict=True)}


def of_table(path: Path) -> Rows:
    """The tables of a data version: CSV and JSON lines; Parquet where DuckDB is installed.

    Raises ValueError in words when there is nothing that can be read.
    """
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    rows = Rows()
    for file in files:
        name = file.name.lower()
        if name.endswith(".csv"):
            with file.open(newline="") as text:
                _append(rows, csv.DictReader(text))
        elif name.endswith((".jsonl", ".ndjson")):
            with file.open() as text:
                _append(rows, (json.loads(line) for line in text if line.strip()))
        elif name.endswith(".parquet"):
            _append(rows, _parquet(file))
    if not rows.count:
        raise ValueError("the reference has no table: CSV, JSON lines or Parquet")
    return rows


def _append(rows: Rows, records: Iterable[Mapping[str, Any]]) -> None:
    for record in records:
        rows.seen += 1
        if rows.seen % rows.stride:
            continue
        for name, value in record.items():
            rows.features.setdefault(str(name), [None] * rows.count).append(_parsed(value))
        rows.count += 1
        for values in rows.features.values():
            if len(values) < rows.count:
                values.append(None)
        if rows.count >= MOST:
            rows.thin()


def _parsed(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if not value:
        return None
    try:
        return float(value)
    except ValueError:
        return value


def _parquet(file: Path) -> Iterable[Mapping[str, Any]]:
    try:
        import duckdb
    except ImportError:
        raise ValueError(
            "reading Parquet needs DuckDB: pip install 'quarterdeck[data]' on the nodes"
        ) from None
    relation = duckdb.read_parquet(str(file))
    names = relation.columns
    while chunk := relation.fetchmany(10_000):
        for values in chunk:
            yield dict(zip(names, values, strict=True))


def missing(value: Any) -> bool:
    """What counts as no value: null, NaN, and the empty text."""
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))


def is_category(values: Sequence[Any]) -> bool:
    """Whether a feature is one of categories, by the values of its reference that are not missing: text,
    booleans, and a few whole numbers."""
    different = set(values[:20_000])
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in different):
        return len(different) <= FEW and all(float(value).is_integer() for value in different)
    return True
