"""A registry that was restored from a backup, or lost, while nodes and logs know more than it does."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from agents.node.agent import NodeAgent
from jobs.base.errors import NotFound, Unreachable
from jobs.base.names import parse_key
from tests.agents.controller.conftest import Plane, until

SHORT: Any = {"resources": {"cpu": 0.25}}


def copy(source: Path, target: Path) -> None:
    before, after = sqlite3.connect(source), sqlite3.connect(target)
    before.backup(after)
    before.close()
    after.close()


def put_back(plane: Plane, backup: Path | None) -> None:
    """In the registry's place; None: the file is lost."""
    registry = plane.root / "state" / "state.db"
    for suffix in ("", "-wal", "-shm"):
        registry.with_name(registry.name + suffix).unlink(missing_ok=True)
    if backup is not None:
        copy(backup, registry)


@asynccontextmanager
async def rounds(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[list[float]]:
    """The waits that the controller allows an agent, one for each sync."""
    sync, waits = NodeAgent.sync, []

    async def counted(self: NodeAgent, request: Any) -> Any:
        waits.append(request["wait"])
        return await sync(self, request)

    with monkeypatch.context() as patch:
        patch.setattr(NodeAgent, "sync", counted)
        yield waits


async def test_no_job_after_a_restore_is_taken_for_an_older_one(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    backup = plane.root / "backup.db"
    await plane.wait(await plane.submit("echo one", **SHORT))
    copy(plane.root / "state" / "state.db", backup)
    lost = await plane.submit("echo old two", **SHORT)
    await plane.wait(lost)
    running = await plane.submit("echo old three; exec sleep 60", lease=5.0, grace=1.0, **SHORT)
    await plane.wait(running, "RUNNING")
    assert (lost, running) == ("j2", "j3")
    await until(lambda: plane.controller.logs.newest_job() == 3)
    await plane.stop()
    put_back(plane, backup)
    await plane.start()

    status = await plane.get("/v1/status")
    told = "\n".join(problem["what"] for problem in status["problems"])
    assert "It does not know j2 to j3" in told
    job = await plane.submit("echo new", **SHORT)
    assert job == "j4", "numbers that have logs are not given again"
    assert (await plane.wait(job))["state"] == "SUCCEEDED"
    lines = await plane.lines(f"/v1/jobs/{job}/logs")
    assert [line["line"] for line in lines] == ["new"]

    strays = await until(lambda: plane.controller.strays.found())
    assert [stray.key.run for stray in strays] == ["j3.1"]
    status = await plane.get("/v1/status")
    assert "j3.1" in "\n".join(problem["what"] for problem in status["problems"])
    async with rounds(plane, monkeypatch) as waits:
        await until(lambda: not plane.controller.strays.found()[0].live, what=lambda: "fenced")
        await until(lambda: len(waits) > 2, what=lambda: "three rounds")
    assert all(waits), "a stray that has ended is not asked about again and again"
    (view,) = await plane.get("/v1/strays")
    assert (view["outcome"], view["ours"]) == ("fenced", True)
    with pytest.raises(NotFound):
        await plane.post("/v1/strays/forget", {"keys": ["c-j1.1"]})
    (gone,) = await plane.post("/v1/strays/forget", {})
    assert gone["key"] == view["key"]
    await until(lambda: not plane.controller.strays.found())
    await until(lambda: not list((plane.root / "n1" / "attempts").glob("*")))
    events = await plane.lines("/v1/events")
    assert [e["kind"] for e in events].count("node.stray") == 1


async def test_a_job_waits_for_its_copy_that_the_registry_does_not_know(plane: Plane) -> None:
    backup = plane.root / "backup.db"
    await plane.post("/v1/nodes/n1/drain")
    job = await plane.submit("echo here; exec sleep 60", lease=5.0, grace=0.5)
    copy(plane.root / "state" / "state.db", backup)
    await plane.post("/v1/nodes/n1/undrain")
    await plane.wait(job, "RUNNING")
    (before,) = plane.nodes["n1"]._holdings
    await until(lambda: plane.controller.logs.newest(1) == 1)
    await plane.stop()
    put_back(plane, backup)
    await plane.start()
    await plane.post("/v1/nodes/n1/undrain")
    reasons = plane.controller.reconciler.reasons
    await until(lambda: "a copy of it that began after the backup" in reasons.get(1, ""))
    assert before.live
    await until(lambda: not before.live, what=lambda: "the copy's lease is over")
    view = await plane.wait(job, "RUNNING")
    (attempt,) = view["attempts"]
    assert attempt["number"] == 2, "logs know of attempt 1"
    (now,) = await until(lambda: [held for held in plane.nodes["n1"]._holdings if held.live])
    assert parse_key(now.key).token == parse_key(before.key).token, "it is the same job"
    assert parse_key(now.key).identity != parse_key(before.key).identity
    await plane.post(f"/v1/jobs/{job}/cancel")
    await plane.wait(job)


async def test_a_lost_registry_leaves_strangers_alone(plane: Plane) -> None:
    running = await plane.submit("exec sleep 60", lease=5.0, grace=0.5, **SHORT)
    await plane.wait(running, "RUNNING")
    await plane.stop()
    put_back(plane, None)
    await plane.start()
    job = await plane.submit("echo new", **SHORT)
    assert (await plane.wait(job))["state"] == "SUCCEEDED"
    (view,) = await plane.get("/v1/strays")
    assert not view["ours"]
    await plane.post("/v1/strays/forget", {"stop": True})
    await until(lambda: not plane.controller.strays.found()[0].live)
    await plane.post("/v1/strays/forget", {})
    await until(lambda: not plane.controller.strays.found())


async def test_an_ordinary_restart_is_no_restore(plane: Plane) -> None:
    await plane.wait(await plane.submit("true"))
    await plane.restart()

    async def all_is_well() -> bool:  # once the node has been heard
        return not (await plane.get("/v1/status"))["problems"]

    await until(all_is_well)


@pytest.mark.parametrize("backup", [True, False])
async def test_a_file_that_is_replaced_under_the_controller_is_noticed(
    plane: Plane, backup: bool
) -> None:
    job = await plane.submit("true", **SHORT)
    await plane.wait(job)
    saved = plane.root / "backup.db"
    copy(plane.root / "state" / "state.db", saved)
    registry, away = plane.root / "state" / "state.db", plane.root / "away.db"
    registry.rename(away)
    if backup:
        copy(saved, registry)
    with pytest.raises(Unreachable, match="replaced" if backup else "removed"):
        await plane.submit("true", **SHORT)
    await plane.controller._look_at_registry()
    status = await plane.get("/v1/status")
    assert any(p["what"].startswith("registry file: its file ") for p in status["problems"])
    assert (await plane.get(f"/v1/jobs/{job}"))["state"] == "SUCCEEDED", "what was read is shown"
    away.rename(registry)
    assert await plane.submit("true", **SHORT) == "j2", "the very file is back"


async def test_a_backup_that_is_put_in_place_in_the_same_file_is_noticed(plane: Plane) -> None:
    """As PostgreSQL's is: the file, or the server, is the same."""
    saved = plane.root / "backup.db"
    copy(plane.root / "state" / "state.db", saved)
    await plane.restart()
    copy(saved, plane.root / "state" / "state.db")
    await plane.controller._look_at_registry()
    with pytest.raises(Unreachable, match="a backup was put in its place"):
        await plane.submit("true", **SHORT)


async def test_an_orderly_end_leaves_all_in_one_file(plane: Plane) -> None:
    job = await plane.submit("true", **SHORT)
    await plane.wait(job)
    await plane.stop()
    file = plane.root / "alone.db"
    file.write_bytes((plane.root / "state" / "state.db").read_bytes())
    with contextlib.closing(sqlite3.connect(file)) as found:
        assert found.execute("SELECT state FROM jobs").fetchall() == [("SUCCEEDED",)]
    await plane.start()
