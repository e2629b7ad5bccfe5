"""No room, or no answer, where things are recorded: nothing is acknowledged that is not kept, training
goes on, and everything arrives when there is room again."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from agents.node.staging import room
from jobs.base.errors import StorageFull, Unreachable
from tests.agents.controller.conftest import Plane, guards_of, until
from tests.chaos.cluster import STEADY

SmallDisk = Callable[[Path, int], None]

LEASE = 5.0
"""Seconds; the least there is. Trouble that lasts longer must not stop ranks that can be reached."""


async def start_steady(plane: Plane, **fields: Any) -> tuple[str, Path, int]:
    """A steady job of one rank: its id, its gate and its pid."""
    gate = plane.root / "gate"
    job = await plane.submit(f"{sys.executable} -u {STEADY} {gate}", **fields)

    async def pid() -> int | None:
        view = await plane.get(f"/v1/jobs/{job}")
        ranks = view["attempts"][-1]["ranks"] if view["attempts"] else []
        return ranks[0]["pid"] if ranks and view["metrics"] else None

    return job, gate, await until(pid)


async def finish(plane: Plane, job: str, gate: Path) -> None:
    """Let it end; all it told must be here, once."""
    gate.touch()  # noqa: ASYNC240
    view = await plane.wait(job)
    assert (view["state"], len(view["attempts"])) == ("SUCCEEDED", 1)
    lines = [line["line"] for line in await plane.lines(f"/v1/jobs/{job}/logs")]
    ticks = [int(line.split()[1]) for line in lines if line.startswith("tick")]
    assert ticks == list(range(1, len(ticks) + 1))
    assert lines[-1] == f"end {len(ticks)}"
    points = await plane.lines(f"/v1/jobs/{job}/metrics")
    assert [point["step"] for point in points] == ticks


async def problems(plane: Plane) -> str:
    status = await plane.get("/v1/status")
    return "\n".join(problem["what"] for problem in status["problems"])


async def until_well(plane: Plane) -> None:
    async def well() -> bool:
        return not await problems(plane)

    await until(well)


async def test_the_database_is_locked_for_longer_than_a_lease(plane: Plane) -> None:
    job, gate, pid = await start_steady(plane, lease=LEASE)
    with contextlib.closing(sqlite3.connect(plane.root / "state" / "state.db")) as other:
        other.isolation_level = None
        other.execute("BEGIN IMMEDIATE")
        waiting = asyncio.create_task(plane.submit("true", key="k"))

        async def told() -> bool:
            return "lock" in await problems(plane)

        await until(told)
        await asyncio.sleep(LEASE + 3)
        assert psutil.pid_exists(pid), "its lease was renewed all the while"
        assert not waiting.done() or waiting.exception(), "not acknowledged while nothing is kept"
        other.execute("ROLLBACK")
    with contextlib.suppress(Unreachable):  # the client's patience may have ended first
        await waiting
    second = await plane.submit("true", key="k")
    await finish(plane, job, gate)
    assert (await plane.wait(second))["state"] == "SUCCEEDED"
    assert (await plane.get("/v1/jobs"))["total"] == 2
    await until_well(plane)


async def test_the_disk_is_full_under_the_database(
    make_plane: Callable[..., Any], tmp_path: Path, small_disk: SmallDisk
) -> None:
    disk = tmp_path / "disk"
    small_disk(disk, 2048)
    plane: Plane = await make_plane(database_url=f"sqlite:///{disk / 'state.db'}")
    lease = 2 * LEASE  # it must last while the controller is restarted
    job, gate, pid = await start_steady(plane, lease=lease)
    ballast = disk / "ballast"
    fill(ballast)
    kept = []
    with pytest.raises(StorageFull):
        for _ in range(1000):
            kept.append(await plane.submit("true", resources={"cpu": 2.0}))

    async def told() -> bool:
        return "registry" in await problems(plane)

    await until(told)
    await plane.restart()  # on the full disk
    assert {view["id"] for view in (await plane.get("/v1/jobs", limit=1000))["jobs"]} == {
        job,
        *kept,
    }
    await asyncio.sleep(lease + 3)
    assert psutil.pid_exists(pid), "both have renewed its lease"
    ballast.unlink()
    await finish(plane, job, gate)
    for other in kept:
        assert (await plane.wait(other))["state"] == "SUCCEEDED"
    await until_well(plane)


def fill(ballast: Path) -> None:
    """Use up the file system to the last byte."""
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))


async def test_the_disk_is_full_under_the_logs(plane: Plane, small_disk: SmallDisk) -> None:
    logs = plane.root / "state" / "logs"
    small_disk(logs, 256)
    code = "for n in range(40000): print('line', n)"
    job = await plane.submit(f'{sys.executable} -c "{code}"')

    async def told() -> bool:
        return "storage" in await problems(plane)

    await until(told)
    view = await plane.get(f"/v1/jobs/{job}")
    assert view["state"] == "RUNNING", "not said to have succeeded while its log is not here"
    small_disk(logs, 4096)
    assert (await plane.wait(job))["state"] == "SUCCEEDED"
    data, _ = await asyncio.to_thread(plane.client.raw, f"/v1/jobs/{job}/logs/0/raw")
    assert data == b"".join(b"line %d\n" % n for n in range(40000))
    await until_well(plane)


async def test_the_disk_of_a_node_is_full(
    make_plane: Callable[..., Any],
    tmp_path: Path,
    small_disk: SmallDisk,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(room, "RESERVE", 0)  # else nothing would start on a disk this small
    small_disk(tmp_path / "n1", 1024)
    plane: Plane = await make_plane()
    gate = tmp_path / "gate"
    job = await plane.submit(f"while ! test -e {gate}; do sleep 0.1; done", lease=LEASE)
    await plane.wait(job, "RUNNING")
    rank = await until(lambda: ranks_of(plane))
    ballast = tmp_path / "n1" / "ballast"
    fill(ballast)
    await asyncio.sleep(LEASE + 3)
    assert ranks_of(plane) == rank, "a lease is renewed without any room"
    gate.touch()
    await until(lambda: not ranks_of(plane))
    assert (await plane.get(f"/v1/jobs/{job}"))["state"] == "RUNNING", "its end is not recorded yet"
    ballast.unlink()
    view = await plane.wait(job)
    assert (view["state"], len(view["attempts"])) == ("SUCCEEDED", 1)


def ranks_of(plane: Plane) -> list[int]:
    found = []
    for process in guards_of(plane.root):
        with contextlib.suppress(psutil.Error):
            if process.name() == "sh":
                found.append(process.pid)
    return found
