"""kill -9 before each change of the disk: no record is lost, none is trained twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import agents.node.worker

WORKER = str(Path(agents.node.worker.__file__).parent)
SCRIPT = str(Path(__file__).with_name("learner.py"))
SETTINGS = {
    "source": {"folder": "incoming"},
    "expect": {"columns": {"id": {"type": "integer", "required": True}}},
    "commit": {"records": 4},
    "release": {"records": 5},
    "end": True,
}


Run = Callable[..., int]


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    """Runs the script in a folder, and gives its exit code."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("QD_", "PYTHON"))}
    env = {
        **clean,
        "PYTHONPATH": WORKER,
        "QD_STREAM": json.dumps(SETTINGS),
        "QD_CHECKPOINT_DIR": "checkpoints",
        "QD_METRICS_FILE": "metrics.jsonl",
    }
    with subprocess.Popen(
        [sys.executable, SCRIPT], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as learner:
        assert learner.stdin is not None and learner.stdout is not None

        stdin, stdout = learner.stdin, learner.stdout

        def once(folder: Path, kill_at: int = 0) -> int:
            stdin.write(f"{folder} {kill_at}\n")
            stdin.flush()
            return int(stdout.readline())

        yield once
        stdin.close()


def filled(folder: Path) -> Path:
    incoming = folder / "incoming"
    incoming.mkdir(parents=True)
    for file in range(2):
        lines = []
        for number in range(8):
            key = file * 8 + number
            record: dict[str, Any] = {"id": key, "guess": key % 3 != 0, "truth": True}
            if number in (4, 5):
                record["id"] = f"bad {key}"
            lines.append(json.dumps(record))
        (incoming / f"{file}.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def outcome(folder: Path) -> dict[str, Any]:
    """All that the stream has left, but for when."""
    checkpoints = folder / "checkpoints"
    newest = max(checkpoints.glob("step-*"), key=lambda path: int(path.name[5:]))
    state = json.loads((newest / "stream.json").read_text())
    releases = {}
    for release in checkpoints.glob("release-*"):
        facts = json.loads((release / "release.json").read_text())
        releases[release.name] = (
            facts["trained"],
            facts["scores"],
            json.loads((release / "model.json").read_text()),
        )
    rejects = [
        json.loads(line)
        for file in sorted((newest / "rejects").iterdir())
        for line in file.read_text().splitlines()
    ]
    state["release"].pop("at")
    return {
        "state": state,
        "model": json.loads((newest / "model" / "model.json").read_text()),
        "releases": releases,
        "rejects": rejects,
        "left": sorted(p.name for p in checkpoints.iterdir() if p.name.startswith(".")),
    }


@pytest.fixture(scope="module")
def whole(run: Run, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], int]:
    """What an undisturbed run leaves, and how often it changes the disk."""
    folder = filled(tmp_path_factory.mktemp("whole"))
    assert run(folder) == 0
    return outcome(folder), int((folder / "changes").read_text())


def test_undisturbed(whole: tuple[dict[str, Any], int]) -> None:
    found, changes = whole
    good = [n for n in range(16) if n % 8 not in (4, 5)]
    assert found["model"] == good
    bad = [f"bad {n}" for n in range(16) if n % 8 in (4, 5)]
    assert [json.loads(reject["record"])["id"] for reject in found["rejects"]] == bad
    assert found["rejects"][0]["reason"] == "id is 'bad 4', not an integer"
    assert sorted(trained for trained, _, _ in found["releases"].values()) == [5, 10]
    assert all(model == good[:trained] for trained, _, model in found["releases"].values())
    assert found["left"] == [".stream.tmp"]
    assert changes > 50


def test_killed_before_each_change_of_the_disk(
    run: Run, whole: tuple[dict[str, Any], int], tmp_path: Path
) -> None:
    expected, changes = whole
    for at in range(1, changes + 1):
        folder = filled(tmp_path / str(at))
        assert run(folder, at) == -signal.SIGKILL
        assert run(folder) == 0
        assert outcome(folder) == expected, f"killed before change {at}"


def test_killed_again_and_again(
    run: Run, whole: tuple[dict[str, Any], int], tmp_path: Path
) -> None:
    """Each attempt gets a little further, and is killed as it clears away what the last one left."""
    expected, changes = whole
    for step in range(6, 30, 2):
        folder = filled(tmp_path / str(step))
        for number in range(changes):
            if run(folder, step + number % 3) == 0:
                break
        assert run(folder) == 0
        assert outcome(folder) == expected
