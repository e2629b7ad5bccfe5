"""Backups of a control plane that runs, and what `qd restore` makes of them."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy

from agents import archive
from agents.controller.stores import backup, manifest
from agents.controller.stores.logstore import LogStore
from agents.fabric.local import LocalFabric
from jobs.access.roles import Role
from jobs.base.errors import Conflict, InvalidInput, NotAllowed, Unreachable
from jobs.base.places import Places, places
from tests.agents.controller.api.test_access import introduced
from tests.agents.controller.conftest import Plane, until

SHORT: Any = {"resources": {"cpu": 0.25}}


def make(plane: Plane, dest: Path, **body: Any) -> Any:
    """As `qd backup` does: the last line, which has the backup."""
    sent = {"dest": str(dest), **body}
    with plane.client.stream("/v1/backups", body=sent) as lines:
        return list(lines)[-1]["backup"]


def home(path: Path) -> Places:
    return places({"QD_HOME": str(path)})


def everything(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture
async def made(plane: Plane, tmp_path: Path) -> Path:
    """A backup with one job."""
    await plane.wait(await plane.submit("echo one", secrets=[], **SHORT))
    dest = tmp_path / "made"
    await asyncio.to_thread(make, plane, dest)
    return dest


@contextlib.asynccontextmanager
async def started(root: Path) -> AsyncIterator[Plane]:
    """A control plane without nodes on what is in `root`."""
    plane = Plane(root, {}, LocalFabric([]))
    await plane.start()
    try:
        yield plane
    finally:
        await plane.stop()


async def test_a_backup_while_jobs_come_is_restored_with_their_logs(
    plane: Plane, tmp_path: Path
) -> None:
    first = await plane.submit("echo words of the first", **SHORT)
    await plane.wait(first)
    submitted = [first]
    enough = asyncio.Event()

    async def submit() -> None:
        while not enough.is_set():
            submitted.append(await plane.submit("echo more", **SHORT))

    task = asyncio.create_task(submit())
    await until(lambda: len(submitted) >= 5)
    before = len(submitted)
    dest = tmp_path / "made"
    view = await asyncio.to_thread(make, plane, dest)
    enough.set()
    await task
    assert view["path"] == str(dest)
    assert view["cluster"] == plane.controller.cluster_id
    assert not view["secrets"]
    assert not list(dest.parent.glob(".*")), "nothing is left beside"

    where = home(tmp_path / "fresh")
    answer = archive.put_back(where, dest, verify=False)
    assert answer["restored"]
    assert answer["before"] is None
    async with started(tmp_path / "fresh") as restored:
        jobs = {job["id"] for job in (await restored.get("/v1/jobs", limit=200))["jobs"]}
        assert set(submitted[:before]) <= jobs, "what was acknowledged before is in it"
        lines = await restored.lines(f"/v1/jobs/{first}/logs")
        assert [line["line"] for line in lines] == ["words of the first"]
        kinds = [event["kind"] for event in await restored.lines("/v1/events")]
        assert "registry.restored" in kinds
        assert (await restored.get("/v1/audit/verify"))["ok"]


async def test_a_damaged_file_is_named_and_nothing_is_changed(made: Path, tmp_path: Path) -> None:
    log = made / "logs" / "j1" / "1" / "r0.log"
    log.write_bytes(b"two\n")
    where = home(tmp_path / "other")
    where.state.mkdir(parents=True)
    (where.state / "state.db").write_bytes(b"what was here")
    (where.state / "supervisor.lock").touch()
    before = everything(where.state)
    for verify in (True, False):
        with pytest.raises(Conflict, match=f"{log.relative_to(made)} has other content"):
            archive.put_back(where, made, verify=verify)
    assert everything(where.state) == before
    log.unlink()
    with pytest.raises(Conflict, match=r"\.log is missing"):
        archive.put_back(where, made, verify=False)


async def test_the_old_state_is_put_aside(made: Path, tmp_path: Path) -> None:
    where = home(tmp_path / "other")
    (where.state / "logs").mkdir(parents=True)
    (where.state / "registry.db").write_bytes(b"what was here")
    (where.state / "registry.mark").write_text("old")
    (where.state / "logs" / "old").write_bytes(b"lines")
    answer = archive.put_back(where, made, verify=False)
    assert answer["before"] is not None
    assert everything(Path(answer["before"])) == {
        "registry.db": b"what was here",
        "registry.mark": b"old",
        "logs/old": b"lines",
    }
    assert where.database.name == "state.db"
    assert not (where.state / "registry.mark").exists()
    assert everything(made)["registry.db"] == where.database.read_bytes()


async def test_numbers_that_were_given_since_the_backup_are_not_given_again(
    made: Path, tmp_path: Path
) -> None:
    """Logs are of the backup too then, so only the folders of the later ones tell."""
    where = home(tmp_path / "other")
    for folder in ("j1/1", "j1/2", "j9/3"):
        (where.state / "logs" / folder).mkdir(parents=True)
    with contextlib.closing(sqlite3.connect(where.state / "state.db")) as registry:
        registry.execute("CREATE TABLE jobs (id INTEGER PRIMARY KEY)")
        registry.execute("CREATE TABLE attempts (job_id INTEGER, number INTEGER)")
        registry.execute("INSERT INTO jobs VALUES (12)")  # submitted, and never placed
        registry.execute(
            "INSERT INTO attempts VALUES (9, 4)"
        )  # placed, and its first line not here
        registry.commit()
    archive.put_back(where, made, verify=False)
    logs = LogStore(where.logs)
    assert (logs.newest_job(), logs.newest(9), logs.newest(1)) == (12, 4, 2)
    assert (where.logs / "j1" / "1" / "r0.log").exists(), "what the backup has is there"
    assert list((where.logs / "j9" / "3").iterdir()) == []


async def test_nothing_is_restored_while_the_cluster_runs(made: Path, tmp_path: Path) -> None:
    where = home(tmp_path / "other")
    where.state.mkdir(parents=True)
    with (where.state / "supervisor.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(Conflict, match="runs") as refused:
            archive.put_back(where, made, verify=False)
    assert refused.value.exit_code == 6
    assert not where.database.exists()


def rewrite(made: Path, **values: Any) -> None:
    found = json.loads((made / manifest.FILE).read_text())
    (made / manifest.FILE).write_text(json.dumps(found | values))


async def test_a_newer_schema_is_refused_in_words(made: Path, tmp_path: Path) -> None:
    rewrite(made, schema="9999")
    with pytest.raises(Conflict, match="schema 9999, which this version does not know"):
        archive.put_back(home(tmp_path / "other"), made, verify=True)


async def test_a_changed_audit_log_is_refused(made: Path, tmp_path: Path) -> None:
    registry = made / manifest.REGISTRY
    with contextlib.closing(sqlite3.connect(registry)) as database, database:
        database.execute("UPDATE audit SET user = 'eve' WHERE id = 1")
    files = json.loads((made / manifest.FILE).read_text())["files"]
    rewrite(made, files=files | {manifest.REGISTRY: manifest.entry_of(registry)})
    with pytest.raises(Conflict, match="audit log was changed: row 1"):
        archive.put_back(home(tmp_path / "other"), made, verify=False)


async def test_names_in_a_manifest_lead_nowhere_else(made: Path, tmp_path: Path) -> None:
    files = json.loads((made / manifest.FILE).read_text())["files"]
    for name in ("logs/../../x", "/etc/x", "cluster.json", "logs//x", "blobs"):
        rewrite(made, files=files | {name: {"sha256": "0", "size": 0}})
        with pytest.raises(InvalidInput, match="damaged"):
            archive.put_back(home(tmp_path / "other"), made, verify=True)


def test_killed_in_the_middle_it_leaves_no_backup(made: Path, tmp_path: Path) -> None:
    where, dest = home(tmp_path / "other"), tmp_path / "killed"
    archive.put_back(where, made, verify=False)
    code = (
        "import os, signal, sys; from pathlib import Path; from agents.controller.stores import backup\n"
        "backup.look = lambda file: os.kill(os.getpid(), signal.SIGKILL)\n"
        "backup.make(Path(sys.argv[1]), 'sqlite:///' + sys.argv[2], Path(sys.argv[3]), secrets=False,"
        " now=0.0, say=lambda text: None)"
    )
    words = [sys.executable, "-c", code, str(where.state), str(where.database), str(dest)]
    assert subprocess.run(words, check=False).returncode == -signal.SIGKILL
    assert not dest.exists()
    assert list(tmp_path.glob(".killed.*")), "it was in the middle"
    archive.make(where, tmp_path / "next", secrets=False)
    assert not list(tmp_path.glob(".killed.*")), "the next one clears it away"
    assert archive.put_back(where, tmp_path / "next", verify=True)["files"] > 1
    with pytest.raises(Conflict, match="already exists"):
        archive.make(where, tmp_path / "next", secrets=False)


async def test_secrets_are_left_out_unless_asked_for(plane: Plane, tmp_path: Path) -> None:
    plane.controller.secrets.save(7, {"TOKEN": "hush"})
    await asyncio.to_thread(make, plane, tmp_path / "without")
    assert not (tmp_path / "without" / "secrets").exists()
    assert not (tmp_path / "without" / "audit-key").exists()
    await asyncio.to_thread(make, plane, tmp_path / "with", secrets=True)
    assert b"hush" in (tmp_path / "with" / "secrets" / "j7.json").read_bytes()
    assert (tmp_path / "with" / "audit-key").exists()
    assert (tmp_path / "with").stat().st_mode & 0o077 == 0
    assert (tmp_path / "with" / manifest.FILE).stat().st_mode & 0o077 == 0


async def test_a_backup_is_for_admins(plane: Plane, tmp_path: Path) -> None:
    client = introduced(plane, "olga", Role.OPERATOR)
    with pytest.raises(NotAllowed):
        await asyncio.to_thread(client.post, "/v1/backups", {"dest": str(tmp_path / "x")})
    assert not (tmp_path / "x").exists()


@pytest.fixture
def another(postgres: str) -> Iterator[str]:
    """The URL of an empty database beside the one that the plane uses."""
    engine = sqlalchemy.create_engine(postgres, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql("CREATE DATABASE another")
        yield postgres.replace("/postgres?", "/another?")
        connection.exec_driver_sql("DROP DATABASE another WITH (FORCE)")
    engine.dispose()


async def test_postgresql_is_dumped_and_loaded_into_an_empty_database(
    postgres_plane: Plane,
    postgres: str,
    another: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job = await postgres_plane.submit("echo words", **SHORT)
    await postgres_plane.wait(job)
    made, new = tmp_path / "made", home(tmp_path / "new")
    view = await asyncio.to_thread(make, postgres_plane, made)
    assert view["database"] == "postgresql"
    assert (made / manifest.DUMP).read_bytes().startswith(b"PGDMP")
    assert not archive.put_back(new, made, verify=True)["restored"]

    with pytest.raises(Conflict, match="dump of PostgreSQL"):
        archive.put_back(new, made, verify=False)
    monkeypatch.setenv("QD_DATABASE_URL", postgres)
    with pytest.raises(Conflict, match="is not empty"):
        archive.put_back(new, made, verify=False)
    monkeypatch.setenv("QD_DATABASE_URL", postgres.replace("/postgres?", "/nosuch?"))
    with pytest.raises(Unreachable, match="nosuch"):
        archive.put_back(new, made, verify=False)
    assert set(everything(new.state)) == {"supervisor.lock"}

    monkeypatch.setenv("QD_DATABASE_URL", another)
    assert archive.put_back(new, made, verify=False)["restored"]
    assert not list(new.state.rglob(manifest.DUMP))
    plane = Plane(tmp_path / "new", {}, LocalFabric([]), database_url=another)
    await plane.start()
    try:
        assert (await plane.get(f"/v1/jobs/{job}"))["state"] == "SUCCEEDED"
        lines = await plane.lines(f"/v1/jobs/{job}/logs")
        assert [line["line"] for line in lines] == ["words"]
        kinds = [event["kind"] for event in await plane.lines("/v1/events")]
        assert "registry.restored" in kinds
        assert (await plane.get("/v1/audit/verify"))["ok"]
    finally:
        await plane.stop()

    monkeypatch.setenv("PATH", os.devnull)
    with pytest.raises(Conflict, match="no pg_restore on PATH"):
        archive.put_back(new, made, verify=False)
    with pytest.raises(Conflict, match="no pg_dump on PATH"):
        await asyncio.to_thread(make, postgres_plane, tmp_path / "none")
    assert not (tmp_path / "none").exists()


async def test_a_dump_whose_audit_log_was_changed_leaves_the_database_empty(
    postgres_plane: Plane,
    postgres: str,
    another: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await postgres_plane.wait(await postgres_plane.submit("echo one", **SHORT))
    engine = sqlalchemy.create_engine(postgres, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql("UPDATE audit SET action = 'forged' WHERE id = 1")
    engine.dispose()
    await asyncio.to_thread(make, postgres_plane, tmp_path / "made")
    new = home(tmp_path / "new")
    monkeypatch.setenv("QD_DATABASE_URL", another)
    with pytest.raises(Conflict, match="audit log was changed"):
        archive.put_back(new, tmp_path / "made", verify=False)
    engine = sqlalchemy.create_engine(another)
    assert sqlalchemy.inspect(engine).get_table_names() == []
    engine.dispose()
    assert set(everything(new.state)) == {"supervisor.lock"}


def test_the_default_place_is_named_for_the_time(tmp_path: Path) -> None:
    assert backup.default_place(tmp_path, 0.0) == tmp_path / "backups" / "19700101T000000000Z"
