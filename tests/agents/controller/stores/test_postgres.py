"""The controller with its registry on a real PostgreSQL server."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy
from sqlmodel import Session, col, select

from jobs.store import audit
from jobs.store.entering import Entered, Entry, Submission, enter_jobs
from jobs.store.tables import AuditRow
from jobs.store.writing import Caller
from tests.agents.controller.conftest import Plane, until

pytestmark = pytest.mark.postgres

METRICS = f"""{sys.executable} -c "
import quarterdeck
for step in range(3):
    quarterdeck.log(loss=1.0 / (step + 1), step=step)
print('hello')
" """


@pytest.fixture
def plane(postgres_plane: Plane) -> Plane:
    return postgres_plane


async def test_a_job_runs_and_everything_is_recorded(plane: Plane) -> None:
    job = await plane.submit(METRICS, objective={"metric": "loss", "goal": "minimize"})
    view = await plane.wait(job)
    assert view["state"] == "SUCCEEDED"
    assert view["objective"]["value"] == pytest.approx(1 / 3)
    assert [line["line"] for line in await plane.lines(f"/v1/jobs/{job}/logs")] == ["hello"]
    points = await plane.lines(f"/v1/jobs/{job}/metrics")
    assert [point["step"] for point in points] == [0, 1, 2]
    assert not (plane.root / "state" / "state.db").exists()


async def test_two_submits_at_once_with_one_key_are_one_job(plane: Plane) -> None:
    ids = await asyncio.gather(*(plane.submit("true", key="k") for _ in range(8)))
    assert len(set(ids)) == 1
    await plane.wait(ids[0])


async def test_a_failure_restarts_and_names_its_rank(plane: Plane) -> None:
    job = await plane.submit("exit 7", max_restarts=1)
    view = await plane.wait(job)
    assert (view["state"], view["exit_code"], len(view["attempts"])) == ("FAILED", 7, 2)
    story = await plane.get(f"/v1/jobs/{job}/explain")
    assert story["first_failure"]["rank"] == 0


async def test_a_new_controller_goes_on_where_the_old_one_was(plane: Plane) -> None:
    gate = plane.root / "gate"
    job = await plane.submit(f"echo one; while ! test -e {gate}; do sleep 0.05; done; echo two")
    await plane.wait(job, "RUNNING")
    await plane.restart()
    gate.touch()
    view = await plane.wait(job)
    assert (view["state"], len(view["attempts"])) == ("SUCCEEDED", 1)
    lines = await plane.lines(f"/v1/jobs/{job}/logs")
    assert [line["line"] for line in lines] == ["one", "two"]


async def test_a_connection_that_the_server_cut_is_made_anew(plane: Plane, postgres: str) -> None:
    engine = sqlalchemy.create_engine(postgres, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE pid <> pg_backend_pid() AND usename = 'qd'"
        )
    engine.dispose()

    async def submitted() -> Any:
        return await plane.submit("true", key="again")

    job = await until(submitted)
    assert (await plane.wait(job))["state"] == "SUCCEEDED"


async def test_jobs_that_enter_together_keep_their_order(plane: Plane) -> None:
    job = Submission("job", "gang", {"command": "true"}, 1, 1, 0.0, 1.0, 50, 0)
    asked = [Entry(replace(job, key=f"k{n}"), Caller("ann", 1000), float(n)) for n in range(300)]

    def write(session: Session) -> tuple[list[Entered], list[AuditRow]]:
        entered = enter_jobs(session, asked)
        return entered, list(session.exec(select(AuditRow).order_by(col(AuditRow.id))).all())

    entered, acts = await plane.controller.db.write(write)
    numbers = [one.number for one in entered]
    assert numbers == list(range(numbers[0], numbers[0] + 300))
    assert [one.row.key for one in entered if one.row is not None] == [f"k{n}" for n in range(300)]
    assert [one.events[0]["job"] for one in entered] == [f"j{number}" for number in numbers]
    assert audit.verify(acts) is None
    again = await plane.controller.db.write(lambda session: enter_jobs(session, asked))
    assert [(one.number, one.created) for one in again] == [(n, False) for n in numbers]
