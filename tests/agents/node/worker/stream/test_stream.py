"""The stream as a script sees it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import quarterdeck

from agents.node.worker.quarterdeck_stream import Stream, StreamError, open

Make = Callable[..., Stream]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """A stream over `incoming`, with `more` settings; `save` writes how much was trained."""
    monkeypatch.setenv("QD_CHECKPOINT_DIR", str(tmp_path / "checkpoints"))
    monkeypatch.setenv("QD_METRICS_FILE", str(tmp_path / "metrics.jsonl"))
    monkeypatch.setenv("QD_STOP_FILE", str(tmp_path / "stop"))
    monkeypatch.setattr(quarterdeck, "STAT_INTERVAL", 0.0)
    monkeypatch.setattr(quarterdeck, "_stopping", False)
    (tmp_path / "incoming").mkdir()
    made: list[Stream] = []

    def build(save: Any = None, **more: Any) -> Stream:
        settings = {"source": {"folder": str(tmp_path / "incoming")}, "end": True, **more}
        made.append(open(save, settings))
        return made[-1]

    yield build
    for one in made:
        one.close()


def put(folder: Path, name: str, records: list[Any]) -> None:
    text = "".join(json.dumps(record) + "\n" for record in records)
    (folder / "incoming" / f"{name}.jsonl").write_text(text)


def points(folder: Path, name: str) -> list[Any]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [(p["s"], p["v"]) for p in map(json.loads, lines) if p["n"] == name]


def steps(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "checkpoints").iterdir() if path.name[0] != ".")


def test_commits_metrics_and_the_next_start(make: Make, tmp_path: Path) -> None:
    put(tmp_path, "a", [{"n": n, "y": n % 2} for n in range(5)])
    one = make(lambda folder: (folder / "m").write_text("1"), commit={"records": 2})
    for record in one:
        one.score(0, record["y"])
    assert (one.read, one.rejected, one.trained) == (5, 0, 5)
    assert steps(tmp_path) == ["step-2", "step-4", "step-5"]
    assert points(tmp_path, "stream/records") == [(2, 2.0), (4, 4.0), (5, 5.0)]
    assert points(tmp_path, "accuracy") == [(2, 0.5), (4, 0.5), (5, 0.6)]
    one.close()

    two = make()
    assert two.checkpoint == tmp_path / "checkpoints" / "step-5" / "model"
    assert (two.checkpoint / "m").read_text() == "1"
    assert list(two) == []
    put(tmp_path, "b", [{"n": 6}])
    assert list(two) == [{"n": 6}]
    assert two.read == 6


def test_a_loop_that_ends_in_an_error_commits_nothing(make: Make, tmp_path: Path) -> None:
    put(tmp_path, "a", [{"n": n} for n in range(5)])
    one = make(commit={"records": 2})
    with pytest.raises(RuntimeError):
        for record in one:
            if record["n"] == 3:
                raise RuntimeError
    one.close()
    assert [record["n"] for record in make()] == [2, 3, 4]


def test_it_ends_with_a_commit_when_the_job_is_to_stop(make: Make, tmp_path: Path) -> None:
    put(tmp_path, "a", [{"n": n} for n in range(5)])
    one = make(end=False)
    for record in one:
        if record["n"] == 2:
            (tmp_path / "stop").touch()
    assert steps(tmp_path) == ["step-3"]


def test_bad_records_are_set_aside_within_their_bound(make: Make, tmp_path: Path) -> None:
    expect = {"columns": {"n": {"type": "integer"}}}
    for turn in range(6):
        put(tmp_path, f"f{turn}", [{"n": "x" * 400}, {"n": turn}])
        one = make(expect=expect, rejects=1200)
        assert [record["n"] for record in one] == [turn]
        one.close()
    assert one.rejected == 6
    last = tmp_path / "checkpoints" / "step-12" / "rejects"
    entries = [
        json.loads(line)
        for file in sorted(last.iterdir())
        for line in file.read_text().splitlines()
    ]
    assert entries[-1]["where"] == "f5.jsonl:0"
    assert entries[-1]["reason"].startswith("n is 'xxx")
    assert sum(file.stat().st_size for file in last.iterdir()) < 4000


def test_drift_is_found_and_released(
    make: Make, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    put(tmp_path, "a", [{"ok": True}] * 500 + [{"ok": False}] * 100)
    one = make(on_drift="release")
    found = [one.score(True, record["ok"]) for record in one]
    assert found.count(True) == one.drifts == 1
    facts = json.loads((tmp_path / "checkpoints" / "release-1" / "release.json").read_text())
    assert facts["why"] == "drift"
    assert facts["read"] == found.index(True) + 1
    assert "drift after" in capfd.readouterr().err
    assert points(tmp_path, "stream/drifts")[-1][1] == 1.0


def test_a_script_may_release(make: Make, tmp_path: Path) -> None:
    put(tmp_path, "a", [{"n": n} for n in range(5)])
    one = make(lambda folder: (folder / "m").write_text("x"))
    for record in one:
        if record["n"] == 3:
            one.release("because")
    assert steps(tmp_path) == ["release-1", "step-4", "step-5"]
    assert sorted(p.name for p in (tmp_path / "checkpoints" / "release-1").iterdir()) == [
        "m",
        "release.json",
    ]


def test_two_processes_never_share_a_folder(make: Make) -> None:
    make()
    with pytest.raises(StreamError, match="another process has a stream"):
        make()


def test_a_step_that_cannot_be_read_gives_way_to_the_one_before(
    make: Make, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    put(tmp_path, "a", [{"n": n} for n in range(4)])
    one = make(commit={"records": 2})
    assert len(list(one)) == 4
    one.close()
    (tmp_path / "checkpoints" / "step-4" / "stream.json").write_text("{")
    two = make(commit={"records": 2})
    assert [record["n"] for record in two] == [2, 3]
    assert "step 4 cannot be read" in capfd.readouterr().err
    assert steps(tmp_path) == ["step-2", "step-4"]


def test_there_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("QD_STREAM", raising=False)
    with pytest.raises(StreamError, match="QD_STREAM is not set"):
        open()
    monkeypatch.setenv("QD_STREAM", "[")
    with pytest.raises(StreamError, match="no JSON"):
        open()
    monkeypatch.setenv("QD_STREAM", '{"source": {"folder": "x"}}')
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(StreamError, match="one rank"):
        open()
