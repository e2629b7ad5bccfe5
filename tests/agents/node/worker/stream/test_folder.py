"""A folder of files as a source: what is new, what is whole, what is no record."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agents.node.worker.quarterdeck_stream import folder as module
from agents.node.worker.quarterdeck_stream.folder import Folder


def records(source: Folder) -> list[Any]:
    """All that is there now: records, or why they are none."""
    found: list[Any] = []
    while (read := source.read()) is not None:
        found.append(read.record if read.record is not None else read.reason)
    return found


def test_new_files_and_appended_lines(tmp_path: Path) -> None:
    source = Folder(str(tmp_path), {})
    assert source.read() is None
    (tmp_path / "b.jsonl").write_text('{"n": 1}\n{"n": 2}\n')
    (tmp_path / "a.ndjson").write_text('{"n": 3}\n\n')
    (tmp_path / ".hidden.jsonl").write_text('{"n": 9}\n')
    (tmp_path / "notes.txt").write_text('{"n": 9}\n')
    (tmp_path / "folder.jsonl").mkdir()
    assert source.behind() == 28
    assert records(source) == [{"n": 3}, {"n": 1}, {"n": 2}]
    with (tmp_path / "b.jsonl").open("a") as file:
        file.write('{"n": 4}\n{"n": ')
        file.flush()
        assert records(source) == [{"n": 4}]  # the rest is being written
        assert source.behind() == 6
        file.write("5}\n")
    assert records(source) == [{"n": 5}]
    assert source.behind() == 0


def test_another_process_continues_at_the_position(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"n": 1}\n{"n": 2}\n{"n": 3}\n')
    first = Folder(str(tmp_path), {})
    assert first.read() is not None
    position = json.loads(json.dumps(first.position()))  # in the middle of a file
    second = Folder(str(tmp_path), {})
    second.restore(position)
    (tmp_path / "a.jsonl").rename(tmp_path / "b.jsonl.old")
    (tmp_path / "b.jsonl.old").rename(tmp_path / "a.jsonl")
    assert records(second) == [{"n": 2}, {"n": 3}]


@pytest.mark.parametrize("new", ['{"n": 7}\n', '{"n": 7}\n{"n": 8}\n{"n": 9}\n'])
def test_a_file_that_was_replaced_is_read_from_its_beginning(
    tmp_path: Path, new: str, capfd: pytest.CaptureFixture[str]
) -> None:
    source = Folder(str(tmp_path), {})
    (tmp_path / "a.jsonl").write_text('{"n": 1}\n{"n": 2}\n')
    records(source)
    (tmp_path / "new").write_text(new)
    (tmp_path / "new").rename(tmp_path / "a.jsonl")
    assert records(source) == [json.loads(line) for line in new.splitlines()]
    assert "a.jsonl was replaced" in capfd.readouterr().err


def test_what_is_no_record_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LONGEST", 60)
    lines = [
        b'{"n": 1}',
        b"[1]",
        b'{"n": ',
        b'{"n": NaN}',
        b'{"n": "\xff"}',
        b'{"n": "' + b"x" * 200 + b'"}',
        b"[" * 50,
        b'{"n": 2}',
    ]
    (tmp_path / "a.jsonl").write_bytes(b"\r\n".join(lines) + b"\r\n")
    found = records(Folder(str(tmp_path), {}))
    assert found[0] == {"n": 1}
    assert found[-1] == {"n": 2}
    says = [
        "no JSON object",
        "Expecting value",
        "NaN is no JSON",
        "not UTF-8",
        "longer than",
        "Exp",
    ]
    for reason, wanted in zip(found[1:-1], says, strict=True):
        assert wanted in reason


def test_nesting_without_end_is_no_record(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("[" * 100_000 + '\n{"n": 1}\n')
    assert records(Folder(str(tmp_path), {})) == ["it is nested too deeply", {"n": 1}]


def test_csv(tmp_path: Path) -> None:
    types = {"n": "integer", "x": "number", "on": "boolean"}
    text = '\ufeffn,x,on,name\n1,0.5,true,"a, ""b""\nc"\n2,,FALSE,\n007,x,true,d\n3,1,true\n'
    (tmp_path / "a.csv").write_text(text)
    source = Folder(str(tmp_path), types)
    assert records(source) == [
        {"n": 1, "x": 0.5, "on": True, "name": 'a, "b"\nc'},
        {"n": 2, "x": None, "on": False, "name": None},
        "x is 'x', not number",
        "it has 3 fields, and the header 4",
    ]
    with (tmp_path / "a.csv").open("a") as file:
        file.write('4,1,true,"two\n')
        file.flush()
        assert records(source) == []  # a quoted field is not complete
        file.write('lines"\n')
    other = Folder(str(tmp_path), types)
    other.restore(source.position())
    assert records(other) == [{"n": 4, "x": 1.0, "on": True, "name": "two\nlines"}]


def test_a_quote_that_nobody_closes_costs_one_record(tmp_path: Path) -> None:
    rows = ['0,"open', *(f"{n},x" for n in range(1, 300))]
    (tmp_path / "a.csv").write_text("n,name\n" + "\n".join(rows) + "\n")
    found = records(Folder(str(tmp_path), {}))
    assert "unexpected end" in found[0]
    assert [record["n"] for record in found[1:]] == [str(n) for n in range(1, 300)]


@pytest.mark.parametrize(("header", "says"), [("n,n", "n is there twice"), ("n,", "no name")])
def test_a_header_that_cannot_be_sets_the_file_aside(
    tmp_path: Path, header: str, says: str
) -> None:
    (tmp_path / "a.csv").write_text(f"{header}\n1,2\n")
    (tmp_path / "b.csv").write_text("n\n1\n")
    reason, record = records(Folder(str(tmp_path), {}))
    assert says in reason
    assert record == {"n": "1"}


def test_no_file_waits_for_another_one_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TURN", 3)
    for name in "ab":
        (tmp_path / f"{name}.jsonl").write_text(
            "".join(json.dumps({name: n}) + "\n" for n in range(5))
        )
    found = records(Folder(str(tmp_path), {}))
    assert "".join(key for record in found for key in record) == "aaabbbaabb"


def test_a_folder_that_is_not_there_yet(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source = Folder(str(tmp_path / "later"), {})
    assert source.read() is source.read() is None
    assert capfd.readouterr().err.count("is not there yet") == 1
    (tmp_path / "later").mkdir()
    (tmp_path / "later" / "a.jsonl").write_text("{}\n")
    assert records(source) == [{}]
