"""A request whose sender has gone before its write began leaves nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3

import pytest

from agents.controller.stores.database import ASKING, Asking
from jobs.base.errors import Unreachable
from jobs.spec.job import JobSpec
from tests.agents.controller.conftest import Plane


async def test_what_nobody_waits_for_is_not_begun(plane: Plane) -> None:
    """The registry is locked for longer than the one client waits, and not for the other."""
    spec = JobSpec.from_json({"command": "true"}).to_json()
    patient = plane.client.with_timeout(30.0)
    with contextlib.closing(sqlite3.connect(plane.root / "state" / "state.db")) as other:
        other.isolation_level = None
        other.execute("BEGIN IMMEDIATE")
        hasty = plane.client.with_timeout(0.3)
        for key in (
            "a",
            "b",
        ):  # the first is under way, and waits for the lock; the second for the first
            with pytest.raises(Unreachable):
                await asyncio.to_thread(hasty.post, "/v1/jobs", {"spec": spec, "key": key})
        body = {"spec": spec, "key": "c"}
        waiting = asyncio.create_task(asyncio.to_thread(patient.post, "/v1/jobs", body))
        await asyncio.sleep(0.1)
        other.execute("ROLLBACK")
    answer = await waiting
    assert answer["id"] == "j1", "the first that there is"
    assert [job["id"] for job in (await plane.get("/v1/jobs"))["jobs"]] == ["j1"]
    again = await plane.post("/v1/jobs", {"spec": spec, "key": "a"})
    assert again["id"] == "j2", "asked again with its key, it is taken"


async def test_what_a_request_has_started_goes_on_without_it(plane: Plane) -> None:
    """Only what its own task writes is bound to a request."""
    database = plane.controller.db
    token = ASKING.set(Asking(asyncio.current_task(), lambda: True))
    try:
        with pytest.raises(Unreachable, match="has gone"):
            await database.write(lambda session: 1)
        assert await asyncio.create_task(database.write(lambda session: 2)) == 2
    finally:
        ASKING.reset(token)
