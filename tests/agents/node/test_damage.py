"""What a rank may do to the records beside its folder: its own attempt alone fails of it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from agents.node import attempts
from agents.node.guard import records
from tests.agents.node.conftest import Node, eventually

OTHER = "c-j2.1"


def _link(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to("/dev/zero")


def _folder(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.mkdir()


def _pipe(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


WAYS: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "truncated": lambda path: path.write_bytes(b'{"phase": "run'),
    "no text": lambda path: path.write_bytes(b"\xff\xfe{}"),
    "a list": lambda path: path.write_bytes(b"[]"),
    "nothing in it": lambda path: path.write_bytes(b"{}"),
    "wrong types": lambda path: path.write_bytes(
        b'{"pid": "x", "boot_id": 3, "start_time": [], "phase": {}, "ranks": [1], "grace": null}'
    ),
    "nested": lambda path: path.write_bytes(b"[" * 100_000),
    "huge": lambda path: path.write_bytes(b" " * (20 << 20)),
    "a link": _link,
    "a folder": _folder,
    "a pipe": _pipe,
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", [records.STATE, records.HANDLE, records.EXIT, records.STOP])
async def test_a_damaged_record_hurts_its_own_attempt_alone(
    node: Node, name: str, way: str
) -> None:
    await node.run("sh", "-c", "echo up; exec sleep 300")
    await node.log("up")
    await node.stage_ready("sh", "-c", "echo up; exec sleep 300", key=OTHER)
    await node.agent.launch(node.request(OTHER))
    path = node.folder() / name
    WAYS[way](path)
    await node.restart()
    reports = {report["key"]: report for report in (await node.sync())["attempts"]}
    assert reports[OTHER]["state"] == "running"
    assert "c-j1.1" in reports
    if path.is_dir():
        shutil.rmtree(path)


@pytest.mark.parametrize(
    "script",
    [
        'echo up; cd /; rm -rf "$FOLDER"; exec sleep 300',
        'echo up; cd "$FOLDER"; rm -rf .[!.]* *; exec sleep 300',
        'cd /; rm -rf "$FOLDER"',
    ],
    ids=["the folder", "all that is in it", "and ends"],
)
async def test_a_job_that_removes_its_own_folder_ends_in_words(node: Node, script: str) -> None:
    await node.stage_ready("sh", "-c", "echo up; exec sleep 300", key=OTHER)
    await node.agent.launch(node.request(OTHER))
    await node.stage_ready("sh", "-c", f'sleep 0.3; FOLDER="{node.folder()}"; {script}')
    report = await node.agent.launch(node.request())
    assert report["state"] == "running"
    report = await node.end()
    assert (report["outcome"], report["reason"]) == ("failed", attempts.REMOVED)
    await eventually(lambda: not list(records.tagged(node.tag())))
    assert (await node.report(OTHER))["state"] == "running"
    await node.restart()
    assert (await node.report())["reason"] == attempts.REMOVED
    assert (await node.report(OTHER))["state"] == "running"
