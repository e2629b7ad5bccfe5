"""Batch prediction: right rows, bad rows aside, and any kill leaves nothing lost and nothing twice."""

from __future__ import annotations

import csv
import http.client
import importlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from agents.node.staging.environment import WORKER_FOLDER
from agents.node.worker.quarterdeck_serve.batch import units
from agents.node.worker.quarterdeck_serve.batch.ledger import Ledger
from agents.node.worker.quarterdeck_serve.batch.run import Batch, Options
from agents.node.worker.quarterdeck_serve.oip import Array, TensorSpec
from tests.fronting import answers, free_port, until
from tests.models import classifier

WIDTH = 8
SMALL = {"QD_BATCH_UNIT": "30000"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("model") / "model.onnx"
    file.write_bytes(classifier(WIDTH))
    return file


def environ(rank: int = 0, ranks: int = 1, run: str = "j1.1") -> dict[str, str]:
    return os.environ | {
        "PYTHONPATH": str(WORKER_FOLDER),
        "QD_RANK": str(rank),
        "QD_WORLD_SIZE": str(ranks),
        "QD_RUN": run,
    }


def start(model: Path, out: Path, *words: str | Path, env: dict[str, str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "quarterdeck_serve.batch", "--name", "m:1", "--out", out]
    return subprocess.Popen(
        [*map(str, [*command, "--rows", "64", model, *words])],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


Run = Callable[..., str]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """A run by one rank in this process: what it prints, with the words that it ends with."""
    monkeypatch.syspath_prepend(str(WORKER_FOLDER))
    main = importlib.import_module("agents.node.worker.quarterdeck_serve.batch.__main__").main

    def run(model: Path, out: Path, *words: str | Path, code: int = 0, **more: str) -> str:
        for name, value in {**environ(), **more}.items():
            monkeypatch.setenv(name, value)
        try:
            ended = main(
                [*map(str, ["--name", "m:1", "--out", out, "--rows", "64", model, *words])]
            )
            said = ""
        except SystemExit as error:
            ended, said = 1, str(error.code)
        told = capfd.readouterr()
        said += told.out + told.err
        assert ended == code, said
        return said

    return run


def rows_of(count: int, seed: int = 1) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).normal(size=(count, WIDTH))


def write_csv(path: Path, rows: np.ndarray[Any, Any]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", *(f"x_{n}" for n in range(WIDTH)), "note"])
        for number, row in enumerate(rows.tolist()):
            note = 'two\nlines, "quoted"' if number % 7 == 0 else f"n{number}"
            writer.writerow([number, *row, note])
    return path


def read_csv(out: Path) -> list[dict[str, str]]:
    found: list[dict[str, str]] = []
    for part in sorted(out.glob("part-*.csv")):
        with part.open(newline="") as file:
            found += list(csv.DictReader(file))
    return found


def bad_of(out: Path) -> list[dict[str, Any]]:
    files = sorted((out / "bad").glob("*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def expected(model: Path, rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    found: np.ndarray[Any, Any] = session.run(["score"], {"x": rows.astype(np.float32)})[0]
    return found


def test_each_row_has_its_result_in_its_place(model: Path, tmp_path: Path, run: Run) -> None:
    rows = rows_of(300)
    told = run(model, tmp_path / "out", write_csv(tmp_path / "in.csv", rows))
    assert "300 rows, 0 bad" in told
    found = read_csv(tmp_path / "out")
    assert [int(row["id"]) for row in found] == list(range(300))
    assert found[7]["note"] == 'two\nlines, "quoted"'
    score = np.array([[float(row[f"score_{n}"]) for n in range(3)] for row in found])
    np.testing.assert_allclose(score, expected(model, rows), rtol=1e-5)
    assert [int(row["label"]) for row in found] == score.argmax(axis=1).tolist()
    assert not [name for name in found[0] if name.startswith("x_")]
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary == {"model": "m:1", "rows": 300, "bad": 0, "parts": 1}
    # The same command again has nothing to do; another one may not write here.
    assert "300 rows" in run(model, tmp_path / "out", tmp_path / "in.csv", QD_RUN="j2.1")
    refused = run(model, tmp_path / "out", tmp_path / "in.csv", "--features", "id", code=1)
    assert "has the results of another run (features differs)" in refused


def test_batch_and_online_give_the_same_numbers_to_the_bit(
    model: Path, tmp_path: Path, run: Run
) -> None:
    """The model server is asked for the same 64 rows at a time, and for single ones."""
    rows = rows_of(256, seed=3)
    run(model, tmp_path / "out", write_csv(tmp_path / "in.csv", rows))
    batch = np.array(
        [[float(r[f"score_{n}"]) for n in range(3)] for r in read_csv(tmp_path / "out")]
    )
    port = free_port()
    server = subprocess.Popen(
        [sys.executable, "-m", "quarterdeck_serve", "--name", "m", "--port", str(port), str(model)],
        env=environ() | {"HOST": "127.0.0.1"},
        stdout=subprocess.DEVNULL,
    )
    try:
        until(lambda: answers(port, "/v2/health/ready"))
        online = [_infer(port, rows[at : at + 64]) for at in range(0, len(rows), 64)]
        assert [value for part in online for value in part] == batch.tolist()
        assert [_infer(port, rows[n : n + 1])[0] for n in range(5)] == batch[:5].tolist()
    finally:
        server.terminate()
        assert server.wait(20) == 0


def _infer(port: int, rows: np.ndarray[Any, Any]) -> list[list[float]]:
    tensor = {
        "name": "x",
        "datatype": "FP32",
        "shape": list(rows.shape),
        "data": rows.ravel().tolist(),
    }
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("POST", "/v2/models/m/infer", json.dumps({"inputs": [tensor]}))
    answer = json.loads(connection.getresponse().read())
    connection.close()
    (score,) = [output for output in answer["outputs"] if output["name"] == "score"]
    found: list[list[float]] = np.array(score["data"]).reshape(score["shape"]).tolist()
    return found


def test_bad_rows_are_kept_aside_with_their_reason(model: Path, tmp_path: Path, run: Run) -> None:
    file = write_csv(tmp_path / "in.csv", rows_of(200))
    lines = file.read_bytes().split(b"\r\n")
    lines[3] = b"2,1,2,3,4,5,6,7,many,n"
    lines[4] = b"3,1,2"
    lines[5] = b"4,1,2,3,4,5,6,7,nan,n"
    lines[6] = b"5,1,2,3,4,5,6,7,1e300,n"
    lines[9] = b"8,1,2,3,4,5,6,7,8,\xff\xfe"  # in a column that nobody reads as a number
    file.write_bytes(b"\r\n".join(lines))
    assert "196 rows, 4 bad" in run(model, tmp_path / "out", file)
    found = read_csv_bytes(tmp_path / "out")
    assert b"\xff\xfe" in found
    told = {one["row"]: one["reason"] for one in bad_of(tmp_path / "out")}
    assert told.keys() == {2, 3, 4, 5}
    assert "could not convert string to float" in told[2]
    assert told[3] == "it has 3 fields, the header has 10"
    assert told[4] == told[5] == "input 'x' has values that are not finite"


def read_csv_bytes(out: Path) -> bytes:
    return b"".join(part.read_bytes() for part in sorted(out.glob("part-*.csv")))


def test_json_lines_whose_values_are_lists(model: Path, tmp_path: Path, run: Run) -> None:
    rows = rows_of(100)
    lines = [json.dumps({"id": f"r{n}", "x": row}) for n, row in enumerate(rows.tolist())]
    lines[10] = "{not json"
    lines[11] = json.dumps({"id": "r11", "x": [1, 2]})
    lines[12] = json.dumps({"id": "r12", "x": [True] * WIDTH})
    lines[13] = json.dumps({"id": "r13"})
    lines[14] = "[1]"
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    run(model, tmp_path / "out", tmp_path / "in.jsonl")
    text = (tmp_path / "out" / "part-000000.jsonl").read_text()
    found = [json.loads(line) for line in text.splitlines()]
    bad = [10, 11, 12, 13, 14]
    assert [row["id"] for row in found] == [f"r{n}" for n in range(100) if n not in bad]
    good = np.delete(rows, bad, axis=0)
    np.testing.assert_allclose([row["score"] for row in found], expected(model, good), rtol=1e-5)
    assert [one["row"] for one in bad_of(tmp_path / "out")] == bad


@pytest.mark.parametrize(
    ("text", "words", "says"),
    [
        ("a,b\n1,2\n", [], "no column is named 'x', the model's input, or name its 8 columns"),
        ("a,b\n1,2\n", ["--features", "a,c"], "there is no column 'c'; there are a, b"),
        ("a,b\n1,2\n", ["--features", "a,b"], "2 columns do not make up 'x'"),
        ("", [], "has no header"),
    ],
)
def test_what_cannot_be_meant_is_said(
    model: Path, tmp_path: Path, run: Run, text: str, words: list[str], says: str
) -> None:
    (tmp_path / "in.csv").write_text(text)
    assert says in run(model, tmp_path / "out", tmp_path / "in.csv", *words, code=1)


def test_a_folder_with_something_else_and_files_that_are_not_there(
    model: Path, tmp_path: Path, run: Run
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious").write_text("x")
    file = write_csv(tmp_path / "in.csv", rows_of(3))
    assert "is not empty" in run(model, tmp_path / "out", file, code=1)
    assert "there is no file" in run(model, tmp_path / "new", tmp_path / "no.csv", code=1)
    assert "a file ends in .csv" in run(model, tmp_path / "new", tmp_path / "no.txt", code=1)


def test_ranks_share_the_work_and_a_kill_at_any_moment_loses_and_repeats_nothing(
    model: Path, tmp_path: Path, run: Run
) -> None:
    """Two ranks over three files, killed with SIGKILL again and again, end where one without a kill does."""
    files = [write_csv(tmp_path / f"in{n}.csv", rows_of(4000, seed=n)) for n in range(3)]
    run(model, tmp_path / "calm", *files, **SMALL)
    dice, out, attempt = random.Random(5), tmp_path / "out", 0
    done = out / ".quarterdeck" / "done"
    codes: list[int] = []
    while codes != [0, 0]:
        attempt += 1
        assert attempt < 9, codes
        codes = _attempt(model, out, files, attempt, done, dice, kill=attempt < 4)
    assert attempt == 4
    calm = {path.name: path.read_bytes() for path in (tmp_path / "calm").glob("part-*")}
    assert len(calm) > 60
    assert {path.name: path.read_bytes() for path in out.glob("part-*")} == calm
    assert (out / "summary.json").read_bytes() == (tmp_path / "calm" / "summary.json").read_bytes()
    assert len(read_csv(out)) == 12_000
    assert not list(out.rglob("*.new"))


def _attempt(
    model: Path,
    out: Path,
    files: list[Path],
    attempt: int,
    done: Path,
    dice: random.Random,
    *,
    kill: bool,
) -> list[int]:
    """The codes of two ranks. They are killed after some units, in the middle of the next."""
    ranks = [
        start(model, out, *files, env=environ(rank, 2, f"j1.{attempt}") | SMALL)
        for rank in range(2)
    ]
    if kill:
        had = len(list(done.iterdir())) if done.is_dir() else 0
        more = dice.choice([0, 2, 5, 9])
        until(lambda: done.is_dir() and len(list(done.iterdir())) >= had + more)
        time.sleep(dice.random() * 0.02)
        for rank in ranks:
            rank.send_signal(signal.SIGKILL)
    for rank in ranks:
        rank.communicate(timeout=60)
    return [rank.returncode for rank in ranks]


def test_the_progress_is_logged(model: Path, tmp_path: Path, run: Run) -> None:
    file = write_csv(tmp_path / "in.csv", rows_of(100))
    run(model, tmp_path / "out", file, QD_METRICS_FILE=str(tmp_path / "metrics"))
    points = [json.loads(line) for line in (tmp_path / "metrics").read_text().splitlines()]
    last = {point["n"]: point["v"] for point in points}
    assert (last["batch_percent"], last["batch_rows"], last["batch_bad"]) == (100, 100, 0)
    assert last["batch_rows_per_s"] > 0


def test_units_end_between_records_wherever_they_are_cut(tmp_path: Path) -> None:
    file = tmp_path / "in.csv"
    records = ["id,text"] + [f'{n},"a ""b""\n{"c" * (n % 90)}\n"' for n in range(300)]
    file.write_text("".join(f"{record}\n" for record in records))
    (source,) = units.look_at([str(file)])
    for size in (64, 100, 333, 5000, 1 << 20):
        data, found = file.read_bytes(), list(units.cut([source], size))
        assert found[0].start == len("id,text\n")
        assert found[-1].end == len(data)
        texts = [data[unit.start : unit.end].decode() for unit in found]
        ids = [int(row[0]) for text in texts for row in csv.reader(text.splitlines(keepends=True))]
        assert ids == list(range(300))


def test_a_quote_that_is_left_open_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(units, "MAX_RECORD", 1000)
    (tmp_path / "in.csv").write_text('a\n1\n"open\n' + "2\n" * 5000)
    (source,) = units.look_at([str(tmp_path / "in.csv")])
    with pytest.raises(SystemExit, match="the record at byte 4 does not end"):
        list(units.cut([source], 100))


class Touchy:
    """A model that fails on negative numbers, and says the sum of others."""

    platform = "test"
    inputs = [TensorSpec("x", "FP32", (-1, 2))]  # noqa: RUF012
    outputs = [TensorSpec("y", "FP32", (-1, 1))]  # noqa: RUF012

    def run(self, inputs: dict[str, Array], outputs: list[str]) -> list[Array]:
        if (inputs["x"] < 0).any():
            raise RuntimeError("below zero")
        return [inputs["x"].sum(axis=1, keepdims=True)]


def test_a_row_on_which_the_model_fails_takes_no_other_with_it(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("a,b\n1,2\n-1,2\n3,4\n5,-6\n")
    sources = units.look_at([str(tmp_path / "in.csv")])
    ledger = Ledger(tmp_path / "out", "j1.1")
    found = ledger.open({}, sources, units.UNIT, first=True)
    assert Batch(Touchy(), ledger, sources, found, Options(), lambda told: None, bool).work()
    assert (tmp_path / "out" / "part-000000.csv").read_text() == "y\n3.0\n7.0\n"
    assert [(one["row"], one["reason"], one["record"]) for one in bad_of(tmp_path / "out")] == [
        (1, "the model failed: below zero", "-1,2"),
        (3, "the model failed: below zero", "5,-6"),
    ]


def test_rows_that_are_all_bad_from_the_start_end_the_run(
    model: Path, tmp_path: Path, run: Run
) -> None:
    header = ",".join(f"x_{n}" for n in range(WIDTH))
    (tmp_path / "in.csv").write_text(f"{header}\n" + "a,b,c,d,e,f,g,h\n" * 1100)
    said = run(model, tmp_path / "out", tmp_path / "in.csv", code=1)
    assert "the first 1000 rows are all bad: input 'x': could not convert" in said
    (tmp_path / "few.csv").write_text(f"{header}\n" + "a,b,c,d,e,f,g,h\n" * 3)
    assert "not one row was good" in run(model, tmp_path / "few", tmp_path / "few.csv", code=1)
