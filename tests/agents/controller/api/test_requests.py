"""What people ask for while something else happens to the same job."""

from __future__ import annotations

import asyncio

from jobs.store import reading, writing
from jobs.store.writing import Caller
from tests.agents.controller.conftest import Plane, until


async def test_a_retry_that_comes_as_its_job_is_let_go_is_not_lost(plane: Plane) -> None:
    job = await plane.submit("true")
    await plane.wait(job, "SUCCEEDED")
    reconciler = plane.controller.reconciler
    await until(lambda: not reconciler.live)
    row = await plane.controller.db.read(lambda s: reading.get_job(s, 1))
    known = await plane.controller.db.read(lambda s: writing.load_job(s, row))
    live = reconciler.add(row, known)  # as it was before its reservation was released
    async with live.lock:  # its release is being written down
        retry = asyncio.create_task(reconciler.retry(1, Caller("ann", 1)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        reconciler.roster.drop(live)
    await retry
    view = await plane.wait(job, "SUCCEEDED")
    assert view["attempt"] == 2
