"""A registry that goes from SQLite to PostgreSQL and back, and what is refused on the way."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from sqlalchemy import JSON, Boolean, Float, Integer, LargeBinary
from sqlmodel import SQLModel

from agents import archive
from agents.controller.stores import backup
from agents.fabric.local import LocalFabric
from jobs.base.errors import Conflict, NotFound, Unreachable
from jobs.base.places import Places, places
from tests.agents.controller.commands.test_models import BOB, decide, register, train
from tests.agents.controller.conftest import Plane
from tests.agents.controller.flows import test_flows
from tests.agents.controller.registries import make_empty
from tests.agents.controller.sweeps import test_sweeps

pytestmark = pytest.mark.postgres

AWKWARD = 'größe\'); DROP TABLE jobs;-- "x" %_ :name \u2028 \\u0000 ' + "ü" * 10_000


@pytest.fixture
async def home(make_plane: Callable[..., Any], tmp_path: Path) -> Places:
    """Of a cluster that was stopped, with a model, a sweep and a pipeline in its registry."""
    plane: Plane = await make_plane(cpus=4)
    run = await train(plane)
    await register(plane, run)
    await decide(plane, BOB, "digits:1")
    await test_sweeps.ended(plane, await test_sweeps.sweep(plane))
    step = {"job": {"command": "true", "resources": {"cpu": 0.25}}}
    await test_flows.ended(plane, await test_flows.run(plane, {"one": step}))
    await plane.stop()
    where = places({"QD_HOME": str(plane.root)})
    with contextlib.closing(sqlite3.connect(where.database)) as database, database:
        database.execute(
            "INSERT INTO trial_intermediate_values (trial_id, step, intermediate_value_type)"
            " VALUES (1, 9, 'NAN'), (2, 9, 'INF_POS')"
        )
        # The newest attempt has gone; its epoch must never be used again.
        database.execute("UPDATE sqlite_sequence SET seq = 77 WHERE name = 'attempts'")
    return where


@pytest.fixture
async def small(make_plane: Callable[..., Any]) -> Places:
    """Of a cluster that was stopped, with some row in each table of its registry."""
    plane: Plane = await make_plane()
    await plane.wait(await plane.submit("true"))
    await plane.stop()
    where = places({"QD_HOME": str(plane.root)})
    fill(where.database)
    return where


def fill(file: Path) -> None:
    """A row of each table that has none, and JSON that is NULL, `null` and a number."""
    engine = sqlalchemy.create_engine(f"sqlite:///{file}")
    with engine.begin() as connection:
        for table in SQLModel.metadata.sorted_tables:
            if not connection.execute(sqlalchemy.select(table).limit(1)).first():
                for number in (1, 2):
                    row = {c.name: value(connection, c, number) for c in table.columns}
                    connection.execute(table.insert().values(row))
        connection.exec_driver_sql("UPDATE jobs SET objective = 'null' WHERE id = 1")
        connection.exec_driver_sql("UPDATE nodes SET pardon = '5' WHERE name = 'n1'")
    engine.dispose()


def value(connection: Any, column: Any, number: int) -> Any:
    for key in column.foreign_keys:
        known = connection.scalars(sqlalchemy.select(key.column)).all()
        return known[min(number, len(known)) - 1]
    if column.nullable and number == 2:
        return None
    kinds: list[tuple[type, Any]] = [
        (JSON, {"ü": [None, 1.5, AWKWARD], "number": number}),
        (Boolean, number == 1),
        (Integer, number),
        (Float, 0.1 + number),
        (LargeBinary, bytes(range(256))),
    ]
    for kind, found in kinds:
        if isinstance(column.type, kind):
            return found
    return f"{number}{AWKWARD}"


def contents(file: Path) -> dict[str, list[str]]:
    """All rows of all tables as SQLite has them, values with their types."""
    with contextlib.closing(sqlite3.connect(file)) as database:
        query = "SELECT name FROM sqlite_master WHERE type = 'table'"
        names = sorted(name for (name,) in database.execute(query))
        return {name: rows(database, name) for name in names}


def rows(database: sqlite3.Connection, table: str) -> list[str]:
    found = database.execute(f'SELECT * FROM "{table}"')
    columns = [item[0] for item in found.description]
    return sorted(repr(sorted(zip(columns, row, strict=True))) for row in found)


@pytest.fixture
def another(postgres: str) -> Iterator[str]:
    make_empty(postgres)
    yield postgres
    make_empty(postgres)


def tables_of(url: str) -> list[str]:
    engine = sqlalchemy.create_engine(url)
    try:
        return sqlalchemy.inspect(engine).get_table_names()
    finally:
        engine.dispose()


async def test_it_goes_to_postgresql_and_back_and_is_equal_row_for_row(
    home: Places, another: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(home.database)
    assert before["studies"]
    assert before["trials"]
    out = tmp_path / "out.db"
    told = await asyncio.to_thread(archive.write, home, out)
    assert told["rows"] == sum(map(len, before.values())) - len(before["sqlite_sequence"])
    assert contents(out) == before
    assert out.stat().st_mode & 0o077 == 0

    monkeypatch.setenv("QD_DATABASE_URL", another)
    await asyncio.to_thread(archive.take, home, out)
    with pytest.raises(Conflict, match="is not empty"):
        await asyncio.to_thread(archive.take, home, out)
    back = tmp_path / "back.db"
    await asyncio.to_thread(archive.write, home, back)
    assert contents(back) == before

    plane = Plane(tmp_path, {}, LocalFabric([]), database_url=another)
    await plane.start()
    try:
        assert (await plane.get("/v1/audit/verify"))["ok"]
        assert (await plane.get("/v1/jobs/j1"))["state"] == "SUCCEEDED"
        assert (await plane.get("/v1/models/digits:1"))["version"] == 1
        assert len(await plane.get("/v1/sweeps/s1/trials")) == 6
        kinds = [event["kind"] for event in await plane.lines("/v1/events")]
        assert "registry.restored" not in kinds, "it is the registry that was written last"
        job = await plane.submit("true")
        assert int(job[1:]) > len(before["jobs"]), "numbers continue"
    finally:
        await plane.stop()
    engine = sqlalchemy.create_engine(another)
    with engine.begin() as connection:
        epoch = connection.exec_driver_sql("SELECT nextval('attempts_id_seq')").scalar_one()
        trial = connection.exec_driver_sql("SELECT nextval('trials_trial_id_seq')").scalar_one()
    engine.dispose()
    assert epoch > 77
    assert trial == len(before["trials"]), "ids of trials begin with 0 on SQLite"

    # And home again, with what was recorded there.
    last = tmp_path / "last.db"
    await asyncio.to_thread(archive.write, home, last)
    monkeypatch.delenv("QD_DATABASE_URL")
    with pytest.raises(Conflict, match="there is a registry already"):
        await asyncio.to_thread(archive.take, home, last)
    home.database.rename(tmp_path / "old.db")
    await asyncio.to_thread(archive.take, home, last)
    assert contents(home.database) == contents(last)
    plane = Plane(tmp_path, {}, LocalFabric([]))
    await plane.start()
    try:
        assert (await plane.get(f"/v1/jobs/{job}"))["id"] == job
        assert (await plane.get("/v1/audit/verify"))["ok"]
    finally:
        await plane.stop()


def test_a_row_of_each_table_with_awkward_values_arrives_as_it_is(
    small: Places, another: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(small.database)
    assert all(before[table.name] for table in SQLModel.metadata.sorted_tables)
    archive.write(small, tmp_path / "out.db")
    monkeypatch.setenv("QD_DATABASE_URL", another)
    archive.take(small, tmp_path / "out.db")
    archive.write(small, tmp_path / "back.db")
    assert contents(tmp_path / "back.db") == before


KILL = """
import os, signal, sys
from pathlib import Path
from agents import archive
from agents.controller.stores import moving
from jobs.base.places import places
move = moving._Mover.move
def killed(self, say):
    if self._table.name == "ranks":
        os.kill(os.getpid(), signal.SIGKILL)
    move(self, say)
moving._Mover.move = killed
getattr(archive, sys.argv[1])(places(), Path(sys.argv[2]))
"""


def killed(home: Places, verb: str, file: Path, url: str) -> None:
    environ = {**os.environ, "QD_HOME": str(home.state.parent), "QD_DATABASE_URL": url}
    words = [sys.executable, "-c", KILL, verb, str(file)]
    assert subprocess.run(words, env=environ, check=False).returncode == -signal.SIGKILL


def test_killed_in_the_middle_it_leaves_the_target_empty(
    small: Places, another: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, back = tmp_path / "out.db", tmp_path / "back.db"
    archive.write(small, out)
    killed(small, "take", out, another)
    await_ends(another)
    assert tables_of(another) == []
    monkeypatch.setenv("QD_DATABASE_URL", another)
    archive.take(small, out)
    killed(small, "write", back, another)
    assert not back.exists()
    assert list(tmp_path.glob(".back.db*")), "it was in the middle"
    archive.write(small, back)
    assert not list(tmp_path.glob(".back.db*"))
    assert contents(back) == contents(out)


def await_ends(url: str) -> None:
    """Until the server has seen that its client is gone."""
    engine = sqlalchemy.create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
            "WHERE pid <> pg_backend_pid() AND datname = current_database()"
        )
    engine.dispose()


def test_what_is_not_whole_is_refused_and_nothing_changes(
    small: Places, another: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.db"
    archive.write(small, out)
    monkeypatch.setenv("QD_DATABASE_URL", another)

    def refused(match: str, *statements: str, kind: type[Exception] = Conflict) -> None:
        file = tmp_path / "changed.db"
        file.unlink(missing_ok=True)
        backup.copy_sqlite(out, file)
        with contextlib.closing(sqlite3.connect(file)) as database, database:
            for statement in statements:
                database.execute(statement)
        with pytest.raises(kind, match=match):
            archive.take(small, file)
        assert tables_of(another) == []

    refused("audit log was changed: row 1", "UPDATE audit SET user = 'eve' WHERE id = 1")
    refused(
        "audit log was changed: its end was cut off",
        "DELETE FROM audit WHERE id = (SELECT max(id) FROM audit)",
    )
    refused("none of ours: diary", "CREATE TABLE diary (day TEXT)")
    refused("column mood", "ALTER TABLE nodes ADD COLUMN mood TEXT")
    refused(
        r"jobs: a row with id from 1 to .* is not taken", "UPDATE jobs SET name = 'a' || char(0)"
    )
    refused("at schema 0001", "UPDATE quarterdeck_schema SET version_num = '0001'")
    refused(
        "written by a newer|newer Quarterdeck|schema 9",
        "UPDATE quarterdeck_schema SET version_num = '9'",
    )
    refused("has no registry", "DROP TABLE quarterdeck_schema")
    (tmp_path / "text").write_text("no database at all" * 100)
    with pytest.raises(Conflict, match="is not a registry"):
        archive.take(small, tmp_path / "text")
    with pytest.raises(NotFound):
        archive.take(small, tmp_path / "nosuch")
    with pytest.raises(Conflict, match="already exists"):
        archive.write(small, out)
    monkeypatch.setenv("QD_DATABASE_URL", another.replace("/postgres?", "/nosuch?"))
    with pytest.raises(Unreachable, match="nosuch"):
        archive.take(small, out)
    with pytest.raises(Unreachable, match="nosuch"):
        archive.write(small, tmp_path / "none.db")
    assert not list(tmp_path.glob("*none.db*"))
    assert tables_of(another) == []
