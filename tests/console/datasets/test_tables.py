"""Profiles and checks of tables, on real files and the real DuckDB."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from console.datasets.changes import file_changes, profile_changes
from console.datasets.checks import run_checks
from console.datasets.profile import profile
from console.datasets.report import draw, drawn_changes, drawn_checks
from console.datasets.tables import database, open_table, tables
from jobs.base.errors import InvalidInput
from jobs.data.expectations import Expectations

ROWS = 1000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "set"
    root.mkdir()
    lines = ["id,age,city,when"]
    for number in range(ROWS):
        age = "" if number % 10 == 0 else str(20 + number % 50)
        lines.append(f"{number},{age},{('Rome', 'Oslo')[number % 2]},2026-01-{number % 28 + 1:02}")
    (root / "people.csv").write_text("\n".join(lines) + "\n")
    (root / "cities.jsonl").write_text('{"name": "Rome"}\n{"name": "Oslo"}\n')
    (root / "notes.txt").write_text("no table")
    return root


def _profile(folder: Path) -> dict[str, dict[str, Any]]:
    found = profile(tables(folder))
    return {
        f"{table['file']}:{column['name']}": column | {"rows": table["rows"]}
        for table in found["tables"]
        for column in table["columns"]
    }


def test_a_profile(folder: Path) -> None:
    found = _profile(folder)
    age = found["people.csv:age"]
    assert (age["type"], age["rows"], age["missing"]) == ("integer", ROWS, 100)
    assert (age["min"], age["max"]) == (21, 69)
    assert sum(age["histogram"]) == ROWS - 100
    assert age["quantiles"][2] == pytest.approx(45, abs=3)
    assert found["people.csv:city"]["top"] == ["Rome", "Oslo"] or set(
        found["people.csv:city"]["top"]
    ) == {"Rome", "Oslo"}
    assert found["people.csv:when"]["last"] == "2026-01-28"
    assert found["cities.jsonl:name"]["distinct"] == 2
    assert any("people.csv" in line for line in draw(profile(tables(folder))))


def test_names_are_never_sql(tmp_path: Path) -> None:
    evil = 'x"); DROP TABLE t;--'
    (tmp_path / "a'b.csv").write_text('"x""); DROP TABLE t;--",b\n1,2\n3,4\n')
    (found,) = profile(tables(tmp_path))["tables"]
    assert [column["name"] for column in found["columns"]] == [evil, "b"]
    rule = Expectations.model_validate({"table": {"columns": {evil: {"max": 2, "unique": True}}}})
    broken = [found for found in run_checks(rule, tmp_path) if not found["passed"]]
    assert [(found["broken"], found["examples"]) for found in broken] == [(1, ["3"])]


@pytest.mark.parametrize(
    ("rule", "broken", "example"),
    [
        ({"age": {"required": True}}, 100, "(missing)"),
        ({"age": {"missing": 0.05}}, 100, None),
        ({"age": {"min": 25}}, 80, "21"),
        ({"age": {"type": "text"}}, 1, None),
        ({"city": {"allowed": ["Rome"]}}, 500, "Oslo"),
        ({"city": {"pattern": "R.*"}}, 500, "Oslo"),
        ({"city": {"unique": True}}, 998, None),
        ({"when": {"max": "2026-01-27"}}, 35, "2026-01-28"),
        ({"nothing": {}}, 1, None),
    ],
)
def test_what_does_not_hold(
    folder: Path, rule: dict[str, Any], broken: int, example: str | None
) -> None:
    wanted = Expectations.model_validate({"tables": {"people.csv": {"columns": rule}}})
    (found,) = [found for found in run_checks(wanted, folder) if not found["passed"]]
    assert found["broken"] == broken
    assert example is None or example in found["examples"]
    assert "0 of" in list(drawn_checks([found]))[-1]


def test_what_holds(folder: Path) -> None:
    columns = {
        "id": {"unique": True, "required": True, "type": "number"},
        "age": {"missing": 0.1, "min": 0, "max": 100},
        "city": {"references": "cities.jsonl.name", "allowed": ["Rome", "Oslo"]},
        "when": {"type": "time"},
    }
    table = {"min_rows": 10, "max_rows": ROWS, "columns": columns, "closed": True}
    table["unique"] = ["city", "id"]
    found = run_checks(Expectations.model_validate({"tables": {"people.csv": table}}), folder)
    assert [check for check in found if not check["passed"]] == []
    assert len(found) == 13


def test_references_to_what_is_not_there(folder: Path) -> None:
    (folder / "cities.jsonl").write_text('{"name": "Rome"}\n')
    rules = {"city": {"references": "cities.jsonl.name"}}
    wanted = Expectations.model_validate({"tables": {"people.csv": {"columns": rules}}})
    (found,) = run_checks(wanted, folder)
    assert (found["broken"], found["examples"]) == (500, ["Oslo"])
    for target in ("nowhere.csv.id", "cities.jsonl.nothing"):
        rules["city"]["references"] = target
        with pytest.raises(InvalidInput, match="references"):
            run_checks(
                Expectations.model_validate({"tables": {"people.csv": {"columns": rules}}}), folder
            )


@pytest.mark.parametrize(
    ("name", "data", "told"),
    [
        ("a.csv", b"a,b\n1,2\n3\n4,5\n" * 50, "a.csv"),
        ("a.csv", b"a,b\n1,\xff\xfe\n", "a.csv"),
        ("a.parquet", b"PAR1" + b"\0" * 50, "a.parquet"),
        ("a.jsonl", b'{"a": 1}\n{"a": \n', "a.jsonl"),
    ],
)
def test_a_file_that_cannot_be_read(tmp_path: Path, name: str, data: bytes, told: str) -> None:
    (tmp_path / name).write_bytes(data)
    with database() as db, pytest.raises(InvalidInput) as caught:
        open_table(db, tables(tmp_path)[0], "t")
        db.execute("SELECT * FROM t").fetchall()
        raise AssertionError("it was read")
    assert told in caught.value.message and str(tmp_path) not in caught.value.message
    (table,) = profile(tables(tmp_path))["tables"]
    assert table["error"]


def test_differences(folder: Path) -> None:
    before = profile(tables(folder))
    text = (folder / "people.csv").read_text().replace(",Rome,", ",,").replace("id,age", "id,years")
    (folder / "people.csv").write_text(text)
    changes = profile_changes(before, profile(tables(folder)))
    said = {(change["column"], change["old"], change["new"]) for change in changes}
    assert ("age", "integer", "not there") in said
    assert ("years", "not there", "integer") in said
    assert ("city", "0.0% missing", "50.0% missing") in said
    files = file_changes(
        [{"path": "a", "bytes": 1, "sha256": "1", "link": None}],
        [{"path": "b", "bytes": 1, "sha256": "1", "link": None}],
    )
    assert list(drawn_changes(files, []))[:2] == ["+ b", "- a"]
