"""Building a data set with features: every row, in order, from what was known then; or the row that is
at fault."""

from __future__ import annotations

import csv
import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from agents.node.worker.quarterdeck_serve.features.build import Failed, build
from agents.node.worker.quarterdeck_serve.features.transform import Features
from tests.features import RIDES, tables, write

ECHO = """
import numpy as np
def transform(rows):
    return {"x": np.stack([rows["km"], rows["minutes"], rows["price"], rows["km"]], axis=1)
            , "hour": rows["price"]}
"""


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_row_in_order_with_what_was_known_then(tmp_path: Path) -> None:
    rides, fuel = tables(tmp_path / "data")
    features = Features(write(tmp_path / "f", ECHO))
    assert build(features, rides, {"fuel": fuel}, tmp_path / "out") == 300
    before, prices = read(rides), read(fuel)
    after = read(tmp_path / "out/rides.csv")
    assert list(after[0]) == ["ride", "x_0", "x_1", "x_2", "x_3", "hour"]
    assert [row["ride"] for row in after] == [row["ride"] for row in before]
    for row, made in zip(before, after, strict=True):
        at = datetime.fromisoformat(row["at"])
        known = [
            p
            for p in prices
            if p["city"] == row["city"] and datetime.fromisoformat(p["known"]) <= at
        ]
        assert made["hour"] == max(known, key=lambda p: p["known"])["price"]


def test_json_lines_have_the_same_features(tmp_path: Path) -> None:
    rides, fuel = tables(tmp_path / "data")
    features = Features(write(tmp_path / "f"))
    lines = [
        row | {"km": float(row["km"]), "minutes": float(row["minutes"])} for row in read(rides)
    ]
    other = tmp_path / "rides.jsonl"
    other.write_text("".join(json.dumps(line) + "\n" for line in lines))
    build(features, rides, {"fuel": fuel}, tmp_path / "out")
    build(features, other, {"fuel": fuel}, tmp_path / "out")
    texts = (tmp_path / "out/rides.jsonl").read_text().splitlines()
    for row, line in zip(read(tmp_path / "out/rides.csv"), texts, strict=True):
        made = json.loads(line)
        assert [float(row[f"x_{n}"]) for n in range(4)] == made["x"]
        assert float(row["hour"]) == made["hour"]


@pytest.mark.parametrize(
    ("file", "old", "new", "words"),
    [
        ("rides.csv", "km,minutes", "kms,minutes", "rides.csv has no column 'km'"),
        ("rides.csv", "ride,at", "ryde,at", "rides.csv has no column 'ride'"),
        ("rides.csv", "\n3,", "\n3,x,", "rides.csv, row 4: it has 6 fields"),
        ("rides.csv", "2026-06-04T02", "June", "rides.csv, row 3: 'at': 'June"),
        ("rides.csv", "\n1,2026-06-03", "\n1,2026-05-03", "row 2: no row of fuel was known then"),
        ("fuel.csv", "known,city", "seen,city", "fuel.csv has no column 'known'"),
        ("fuel.csv", "2026-06-02,a", ",a", "fuel.csv, row 3: 'known': it is missing"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, file: str, old: str, new: str, words: str) -> None:
    rides, fuel = tables(tmp_path)
    changed = (tmp_path / file).read_text()
    assert old in changed
    (tmp_path / file).write_text(changed.replace(old, new, 1))
    with pytest.raises(Failed) as caught:
        build(Features(write(tmp_path / "f")), rides, {"fuel": fuel}, tmp_path / "out")
    assert words in str(caught.value)


def broken(tmp_path: Path, code: str, **over: Any) -> str:
    rides, fuel = tables(tmp_path)
    features = Features(write(tmp_path / "f", code, {**RIDES, **over}))
    with pytest.raises(Failed) as caught:
        build(features, rides, {"fuel": fuel}, tmp_path / "out")
    return str(caught.value)


def test_the_row_on_which_the_code_fails(tmp_path: Path) -> None:
    code = "def transform(rows):\n    assert not (rows['km'] == 0.1 ** 1.7).any()\n    return {}\n"
    assert "gives no" in broken(tmp_path, code)
    code = code.replace(
        "return {}",
        ECHO.strip().splitlines()[2].strip() + " " + ECHO.strip().splitlines()[3].strip(),
    )
    assert "rides.csv, row 2: the code raised AssertionError()" in broken(
        tmp_path / "again", "import numpy as np\n" + code
    )


def test_what_looks_at_other_rows_is_not_built_as_rowwise(tmp_path: Path) -> None:
    code = ECHO.replace('rows["minutes"]', 'rows["minutes"] - rows["minutes"].mean()')
    assert "row 1: alone it has another 'x'" in broken(tmp_path, code)
    rides, fuel = tables(tmp_path)
    features = Features(write(tmp_path / "f", code, {**RIDES, "rowwise": False}))
    assert build(features, rides, {"fuel": fuel}, tmp_path / "out") == 300
    made = [float(row["x_1"]) for row in read(tmp_path / "out/rides.csv")]
    assert abs(sum(made)) < 1e-3  # of the whole file, not of pieces


def test_a_table_that_is_not_given(tmp_path: Path) -> None:
    rides, _ = tables(tmp_path)
    with pytest.raises(Failed, match="a table fuel"):
        build(Features(write(tmp_path / "f")), rides, {}, tmp_path / "out")
