"""`qd features` as people and scripts see it."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from jobs.features.declaration import Declaration
from jobs.snapshots.manifest import Manifest
from jobs.snapshots.pack import read_pack
from tests.console.fake_controller import FakeController, Reply
from tests.features import HARD, RIDES

AT = "2026-11-29T08:00:00.000Z"


def view(**over: Any) -> dict[str, Any]:
    """A FeatureVersionView."""
    return {
        "id": "rides@2", "name": "rides", "version": 2, "digest": "sha256:" + "ab" * 32, "files": 2,
        "bytes": 900, "inputs": 5, "outputs": 2, "source": "host:/f/features.yaml", "note": "",
        "user": "ann", "created_at": AT,
    } | over  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "features.yaml").write_text(json.dumps(RIDES))  # JSON is YAML
    (tmp_path / "features.py").write_text(HARD)
    (tmp_path / "notes.txt").write_text("not declared")
    return tmp_path


def test_they_are_listed(qd: Any, controller: FakeController) -> None:
    controller.on("GET /v1/features", [view(versions=2, note="wider")], [])
    listed = qd("features").out.splitlines()[1].split()
    assert listed[:5] == ["rides@2", "2", "5", "2", "ann"]
    assert "no features" in qd("features").err


def test_add_sends_what_is_declared(qd: Any, controller: FakeController, folder: Path) -> None:
    controller.on("POST /v1/blobs/missing", lambda r: Reply.of({"missing": r.json["digests"]}))
    controller.on("POST /v1/blobs", {"stored": 3})
    controller.on("POST /v1/features", view(created=True), view(created=False))
    result = qd("features", "add", "rides", str(folder), "--note", "wider")
    assert (result.code, result.out) == (0, "rides@2\n")
    body = controller.requests[-1].json
    assert (body["name"], body["note"]) == ("rides", "wider")
    sent: dict[str, bytes] = {}
    for request in controller.asked("POST /v1/blobs"):
        sent |= dict(read_pack(io.BytesIO(request.body)))
    manifest = Manifest.from_bytes(sent[body["digest"].removeprefix("sha256:")])
    files = {entry.path: sent[entry.sha256] for entry in manifest.files}
    assert files == {
        "features.json": Declaration.from_json(RIDES).to_bytes(),
        "features.py": HARD.encode(),
    }
    assert "there already" in qd("features", "add", "rides", str(folder / "features.yaml")).err


@pytest.mark.parametrize(
    ("file", "text", "words"),
    [
        ("features.py", "x = 1\ndef transform(rows:\n", "features.py:2"),
        ("features.py", "def other(rows): ...\n", "has no function transform"),
        (
            "features.yaml",
            "inputs: {a: number}\noutputs: {x: floot}\n",
            "features.yaml:2: outputs.x",
        ),
        (
            "features.yaml",
            "inputs: {a: number}\noutputs: {x: text}\nfiles: [no.txt]\n",
            "no.txt: No",
        ),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_sent(
    qd: Any, controller: FakeController, folder: Path, file: str, text: str, words: str
) -> None:
    (folder / file).write_text(text)
    result = qd("features", "add", "rides", str(folder))
    assert (result.code, words in result.err, controller.requests) == (2, True, []), result.err


def test_show(qd: Any, controller: FakeController) -> None:
    declaration = Declaration.from_json(RIDES).to_json()
    controller.on("GET /v1/features/rides", view(declaration=declaration))
    controller.on("GET /v1/features/rides/versions", [view(), view(id="rides@1")])
    controller.on("GET /v1/features/rides@2/code", {"features.py": HARD, "features.json": "{}"})
    out = qd("features", "show", "rides").out
    assert "output  x        float64 × 4" in out
    assert "joins fuel: price of its newest row of the same city with known not after at" in out
    assert "rides@1" in out
    assert qd("features", "show", "rides", "--code").out.strip() == HARD.strip()


def test_build_asks_for_rows_and_tables(qd: Any, controller: FakeController) -> None:
    controller.on("POST /v1/features/rides@2/builds", {"id": "j7", "state": "QUEUED"})
    words = ("features", "build", "rides@2", "--into", "made", "--no-wait")
    result = qd(*words, "--data", "rides@1", "--data", "fuel=prices", "--memory", "1GiB")
    assert (result.code, result.out) == (0, "j7\n")
    body = controller.requests[-1].json
    body.pop("key")
    assert body == {
        "data": "rides@1", "into": "made", "tables": {"fuel": "prices"}, "memory": 1 << 30,
    }  # fmt: skip
    none = qd(*words, "--data", "fuel=prices")
    assert (none.code, "found 0 data sets of rows" in none.err) == (2, True)
