"""The database on SQLite: full disks, locks, migrations and strangers."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import Session, select

from agents.controller.stores import database
from agents.controller.stores.database import Database
from jobs.base.errors import Conflict, Damaged, StorageFull, Unreachable
from jobs.store import migrations
from jobs.store import writing as registry
from jobs.store.tables import MetaRow
from tests.agents.controller.storage import ROOM, small_disk


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


def opened(path: Path) -> Database:
    return Database.open(f"sqlite:///{path}")


def put(name: str, value: str) -> Callable[[Session], None]:
    def write(session: Session) -> None:
        session.add(MetaRow(name=name, value=value))

    return write


def value(name: str) -> Callable[[Session], str | None]:
    def read(session: Session) -> str | None:
        row = session.get(MetaRow, name)
        return row.value if row else None

    return read


def pragma(name: str) -> Callable[[Session], Any]:
    return lambda session: session.connection().exec_driver_sql(f"PRAGMA {name}").scalar()


async def test_what_is_written_survives_and_is_synced(path: Path) -> None:
    db = opened(path)
    await db.write(put("a", "1"))
    assert [await db.write(pragma(n)) for n in ("journal_mode", "synchronous", "foreign_keys")] == [
        "wal", 2, 1,
    ]  # fmt: skip
    db.close()
    db = opened(path)
    assert await db.read(value("a")) == "1"
    db.close()


async def test_a_write_that_fails_changes_nothing(path: Path) -> None:
    def half(session: Session) -> None:
        put("a", "1")(session)
        session.flush()
        raise KeyError("in the middle")

    db = opened(path)
    with pytest.raises(KeyError):
        await db.write(half)
    assert await db.read(value("a")) is None
    db.close()


async def test_a_client_that_goes_does_not_take_its_write_along(path: Path) -> None:
    db = opened(path)
    writing = asyncio.create_task(db.write(put("a", "1")))
    await asyncio.sleep(0)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    await db.write(put("b", "1"))  # writes are in order, so the first is over
    assert await db.read(value("a")) == "1"
    db.close()


async def test_a_full_disk_is_said_and_heals(tmp_path: Path) -> None:
    with small_disk(tmp_path / "small") as disk:
        db = opened(disk / "r.db")
        with pytest.raises(StorageFull, match="cannot be written"):
            await db.write(put("large", "x" * 2 * ROOM))
        await db.write(put("small", "x"))
        assert await db.read(value("large")) is None
        assert await db.read(value("small")) == "x"
        db.close()


async def test_a_lock_is_waited_for(path: Path) -> None:
    db = opened(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        writing = asyncio.create_task(db.write(put("a", "1")))
        assert await db.read(value("a")) is None, "readers do not wait"
        assert not writing.done()
        other.execute("COMMIT")
    await writing
    assert await db.read(value("a")) == "1"
    db.close()


async def test_a_lock_that_is_never_given_back_is_told(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "_BUSY_MS", 50)
    db = opened(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Unreachable, match="locked"):
            await db.write(put("a", "1"))
        other.execute("ROLLBACK")
    await db.write(put("a", "2"))
    assert await db.read(value("a")) == "2"
    db.close()


async def test_a_backup_is_made_before_a_migration(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    db = opened(path)
    await db.write(put("a", "1"))
    db.close()
    assert list(path.parent.glob("*.before-*")) == [], "not when nothing is to be done"
    monkeypatch.setattr(migrations, "head", lambda: "9999")
    opened(path).close()
    (backup,) = path.parent.glob("*.before-9999")
    with closing(sqlite3.connect(backup)) as other:
        assert other.execute("SELECT value FROM meta WHERE name = 'a'").fetchall() == [("1",)]


def test_no_migration_without_room_for_the_backup(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened(path).close()
    monkeypatch.setattr(migrations, "head", lambda: "9999")
    usage = shutil.disk_usage(path.parent)._replace(free=0)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(StorageFull, match="backup"):
        opened(path)


def test_the_schema_of_a_newer_version_is_refused(path: Path) -> None:
    opened(path).close()
    with closing(sqlite3.connect(path)) as other, other:
        other.execute(f"UPDATE {migrations.VERSION_TABLE} SET version_num = '4242'")
    with pytest.raises(Conflict, match="schema 4242"):
        opened(path)


async def test_a_registry_names_itself_once(path: Path) -> None:
    db = opened(path)
    name = await db.write(registry.cluster_id)
    db.close()
    db = opened(path)
    assert await db.write(registry.cluster_id) == name
    db.close()


async def test_damage_is_said_in_words(path: Path) -> None:
    """Pages in the middle are overwritten; SQLite's own error is nobody's answer."""
    db = opened(path)
    assert await db.damage() == ""
    for number in range(40):
        await db.write(put(f"n{number}", "x" * 3000))
    db.close()
    overwrite(path, first=2)
    with pytest.raises(Damaged, match="malformed"):
        await read_all(path)
    overwrite(path, first=0)
    with pytest.raises(Damaged, match="not a database"):
        opened(path)


async def test_damage_is_found_before_anything_reads_it(path: Path) -> None:
    db = opened(path)
    for number in range(40):
        await db.write(put(f"n{number}", "x" * 3000))
    db.close()
    db = opened(path)
    overwrite(path, first=-1)
    assert await db.damage() != ""
    await asyncio.to_thread(path.unlink)
    assert await db.damage() == "", "that is told elsewhere"
    db.close()


def overwrite(path: Path, first: int) -> None:
    """The beginning of each page from `first` on; of the last one with -1."""
    with path.open("r+b") as file:
        pages = range(path.stat().st_size // 4096)
        for page in pages[first:]:
            file.seek(page * 4096)
            file.write(b"\xa5" * 300)


async def read_all(path: Path) -> None:
    db = opened(path)
    try:
        await db.read(lambda session: [row.value for row in session.exec(select(MetaRow)).all()])
    finally:
        db.close()
