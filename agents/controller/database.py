"""The database: one writer, several readers, durable when a write returns.

SQLite runs in WAL mode with `synchronous=FULL`: once `write` has returned, the change survives the
loss of power. The same code runs on PostgreSQL by URL. Blocking calls live on threads of their own,
so the event loop never waits for a disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Engine, create_engine, event, make_url
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import QueuePool
from sqlmodel import Session

from jobs import migrations
from jobs.errors import StorageFull, Unreachable

T = TypeVar("T")

_READERS = 4
_BUSY_MS = 60_000
"""How long a write waits for another process that holds SQLite's lock (a backup, a person's shell)."""


class Database:
    """Open with `Database.open`, use `await db.write(fn)` and `await db.read(fn)`.

    `fn` gets an open Session and runs in one transaction. It runs on another thread, so it must not
    touch the caller's mutable state; what it returns must not be bound to the session (views, plain
    values, or rows that were expunged).
    """

    def __init__(self, writer: Engine, readers: Engine) -> None:
        self._writer, self._readers = writer, readers
        self._write_pool = ThreadPoolExecutor(1, thread_name_prefix="db-write")
        self._read_pool = ThreadPoolExecutor(_READERS, thread_name_prefix="db-read")

    @classmethod
    def open(cls, url: str) -> Database:
        """Connect and migrate; a SQLite file is copied beside itself before it is migrated.

        Args:
            url: an SQLAlchemy URL, `sqlite:////path/registry.db` or `postgresql+psycopg://...`.
        """
        parsed = make_url(url)
        if parsed.get_backend_name() == "sqlite":
            assert parsed.database, "an in-memory database would not survive anything"
            _backup_if_behind(Path(parsed.database))
            writer = _sqlite(url, "BEGIN IMMEDIATE", 1)
            readers = _sqlite(url, "BEGIN", _READERS)
        else:
            writer = create_engine(url, pool_size=1, max_overflow=0, pool_pre_ping=True)
            readers = create_engine(url, pool_size=_READERS, pool_pre_ping=True)
        with writer.begin() as connection:
            migrations.upgrade(connection)
        return cls(writer, readers)

    async def write(self, fn: Callable[[Session], T]) -> T:
        """Run `fn` in the only writing transaction; committed and durable when this returns.

        Raises:
            StorageFull: the disk is full; nothing was changed.
            Unreachable: the database is locked by someone else, or gone; nothing was changed.
        """
        loop = asyncio.get_running_loop()
        # shield: a client that hangs up cancels its request, not a transaction under way.
        return await asyncio.shield(
            loop.run_in_executor(self._write_pool, self._run, self._writer, fn)
        )

    async def read(self, fn: Callable[[Session], T]) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._read_pool, self._run, self._readers, fn)

    @staticmethod
    def _run(engine: Engine, fn: Callable[[Session], T]) -> T:
        try:
            with Session(engine, expire_on_commit=False) as session, session.begin():
                return fn(session)
        except OperationalError as error:
            raise _translated(error) from error

    def close(self) -> None:
        self._write_pool.shutdown(wait=True)
        self._read_pool.shutdown(wait=True, cancel_futures=True)
        self._readers.dispose()
        self._writer.dispose()


def _translated(error: OperationalError) -> Exception:
    text = str(error.orig)
    if "full" in text or "No space left" in text or "disk I/O" in text:
        return StorageFull(
            f"the registry cannot be written: {text}", "Free some disk space; nothing was changed."
        )
    if "locked" in text or "connection" in text.lower():
        return Unreachable(
            f"the registry does not answer: {text}", "Nothing was changed; try again."
        )
    return error


def _sqlite(url: str, begin: str, size: int) -> Engine:
    engine = create_engine(
        url,
        poolclass=QueuePool,
        pool_size=size,
        max_overflow=0,
        connect_args={"timeout": _BUSY_MS / 1000, "check_same_thread": False},
    )

    @event.listens_for(engine, "connect")
    def _connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # the driver must not begin or commit by itself
        cursor = connection.cursor()
        for pragma in (
            "journal_mode=WAL",
            "synchronous=FULL",
            "foreign_keys=ON",
            f"busy_timeout={_BUSY_MS}",
        ):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Any) -> None:
        # IMMEDIATE takes the write lock at once: a deferred transaction that first reads and then
        # writes can fail with SQLITE_BUSY in the middle, which no busy timeout heals.
        connection.exec_driver_sql(begin)

    return engine


def _backup_if_behind(path: Path) -> None:
    """Copy the database to `NAME.before-REVISION` when a migration is about to change it."""
    if not path.exists():
        return
    with contextlib.closing(sqlite3.connect(path)) as source:
        try:
            row = source.execute("SELECT version_num FROM alembic_version").fetchone()
        except sqlite3.OperationalError:  # a database without tables
            return
        if row is None or row[0] == migrations.head():
            return
        if shutil.disk_usage(path.parent).free < 2 * path.stat().st_size:
            raise StorageFull(
                "there is no room for the backup that comes before a migration",
                f"Free {2 * path.stat().st_size} bytes in {path.parent}.",
            )
        with contextlib.closing(
            sqlite3.connect(path.with_name(f"{path.name}.before-{migrations.head()}"))
        ) as target:
            source.backup(target)
