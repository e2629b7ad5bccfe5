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
import threading
import time
from collections.abc import Callable, Collection, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar
from urllib.parse import quote

from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import DatabaseError, OperationalError
from sqlalchemy.pool import QueuePool
from sqlmodel import Session

from jobs.base.errors import Damaged, StorageFull, Unreachable
from jobs.store import migrations

T = TypeVar("T")
Item = TypeVar("Item")

SLOW = 2.0
"""Seconds after which a write that waits is a problem to tell of; it takes milliseconds."""
TO_MEND = (
    "Stop the cluster (`qd down`) and put a backup in its place with `qd restore`; "
    "`sqlite3 state.db .recover` saves what can still be read. What runs runs on meanwhile."
)
_READERS = 4
_BATCH = 200
"""Writes that share a transaction at most: the first of them waits for the last."""
_BUSY_MS = 60_000
"""How long a write waits for another process that holds SQLite's lock (a backup, a person's shell)."""


@dataclass(frozen=True, slots=True)
class Asking:
    """A request that waits for its answer. Only what its own task writes is bound to it: tasks that it
    starts go on without it. `gone` is called on any thread."""

    task: asyncio.Task[Any] | None
    gone: Callable[[], bool]


ASKING: ContextVar[Asking | None] = ContextVar("ASKING", default=None)
"""The request in whose name a write is made."""


async def to_its_end(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run the writing part of a request to its end, though the request is cancelled meanwhile. What it
    writes itself is bound to the request as if the request wrote it."""
    asking = ASKING.get()
    asks = asking is not None and asking.task is asyncio.current_task()

    async def bound() -> T:
        if asking is not None and asks:
            ASKING.set(replace(asking, task=asyncio.current_task()))
        return await work()

    return await asyncio.shield(asyncio.ensure_future(bound()))


@dataclass(slots=True)
class _Outcome:
    value: Any = None
    error: Exception | None = None


@dataclass(slots=True)
class _Write(Generic[T]):
    """A function that waits to be run, and the future of who asked. One that is `shared` takes a list
    of items, of which this is one, and gives a list with what became of each."""

    fn: Callable[..., Any]
    done: asyncio.Future[T]
    item: Any = None
    shared: bool = False
    asking: Asking | None = None

    @property
    def pointless(self) -> bool:
        """Nobody waits for it any more."""
        return self.asking is not None and self.asking.gone()

    def settle(self, outcome: _Outcome) -> None:
        if self.done.done():  # the loop is closing
            return
        if outcome.error is not None:
            self.done.set_exception(outcome.error)
        else:
            self.done.set_result(outcome.value)


class Database:
    """Open with `Database.open`, use `await db.write(fn)` and `await db.read(fn)`.

    `fn` gets an open Session and runs in one transaction. It runs on another thread, so it must not
    touch the caller's mutable state; what it returns must not be bound to the session (views, plain
    values, or rows that were expunged).
    """

    def __init__(self, writer: Engine, readers: Engine, file: Path | None = None) -> None:
        self._writer, self._readers = writer, readers
        self._file, self._inode = file, _inode(file)
        self._refusal = ""
        # Whoever else in this process writes to the same database holds it meanwhile: SQLite itself
        # lets the second one sleep, for far longer than it has to wait.
        self.turn = threading.Lock()
        self._pending: list[_Write[Any]] = []
        self._writing: asyncio.Task[None] | None = None
        self._write_pool = ThreadPoolExecutor(1, thread_name_prefix="db-write")
        self._read_pool = ThreadPoolExecutor(_READERS, thread_name_prefix="db-read")
        self._failure = ""
        self._since: float | None = None  # when the write under way began

    @property
    def problem(self) -> str:
        """Why nothing can be recorded now; empty when the last write went well."""
        if replaced := self.replaced:
            return replaced
        since = self._since
        if since is not None and (waited := time.monotonic() - since) > SLOW:
            return (
                f"a write has waited for {waited:.0f} s: somebody holds its lock, or the disk hangs"
            )
        return self._failure

    @classmethod
    def open(cls, url: str) -> Database:
        """Connect and migrate; a SQLite file is copied beside itself before it is migrated.

        Args:
            url: an SQLAlchemy URL, `sqlite:////path/state.db` or `postgresql+psycopg://...`.

        Raises:
            Damaged: it is no database, or not any more.
            StorageFull: no room for the copy, or for what is migrated.
            Unreachable: locked, or not there.
        """
        parsed = make_url(url)
        if parsed.get_backend_name() == "sqlite":
            assert parsed.database, "an in-memory database would not survive anything"
            file: Path | None = Path(parsed.database)
            try:
                _backup_if_behind(Path(parsed.database))
            except sqlite3.DatabaseError as error:
                raise Damaged(f"the registry {file} is damaged: {error}", TO_MEND) from error
            writer = _sqlite(url, "BEGIN IMMEDIATE", 1)
            readers = _sqlite(url, "BEGIN", _READERS)
        else:
            file = None
            writer = create_engine(url, pool_size=1, max_overflow=0, pool_pre_ping=True)
            readers = create_engine(url, pool_size=_READERS, pool_pre_ping=True)
        try:
            with writer.begin() as connection:
                migrations.upgrade(connection)
        except DatabaseError as error:
            writer.dispose()
            raise translated(error) from error
        return cls(writer, readers, file)

    def refuse(self, reason: str) -> None:
        """Write nothing any more: what is there is not what this process has read."""
        self._refusal = reason

    @property
    def replaced(self) -> str:
        """Why what is written would be lost; empty when it would not. SQLite goes on writing to a file
        that was removed."""
        if not self._refusal and _inode(self._file) != self._inode:
            what = "replaced" if self._file is not None and self._file.exists() else "removed"
            return f"its file {self._file} was {what} while the controller runs"
        return self._refusal

    async def write(self, fn: Callable[[Session], T]) -> T:
        """Run `fn` in the only writing transaction; committed and durable when this returns.

        Writes that come while one is under way share the next transaction, each in a savepoint of
        its own: a sync to disk costs milliseconds, and one serves them all.

        Raises:
            StorageFull: the disk is full; nothing was changed.
            Unreachable: the database is locked by someone else, or gone; nothing was changed. Or
                another one has taken its place: what was under way then is not recorded in that one.
                Or who asked for it has gone before it began.
        """
        return await self._write(_Write(fn, asyncio.get_running_loop().create_future()))

    async def write_each(self, fn: Callable[[Session, list[Item]], list[T]], item: Item) -> T:
        """As `write`, with a function that takes many items at once: those that wait at the same moment
        for the same function share one call of it. When such a call fails, each item has one alone.

        Args:
            fn: gets the items in the order in which they came, and gives as many results.
        """
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        return await self._write(_Write(fn, done, item, shared=True))

    async def _write(self, write: _Write[T]) -> T:
        asking = ASKING.get()
        if asking is not None and asking.task is asyncio.current_task():
            write.asking = asking
        self._pending.append(write)
        if self._writing is None:
            self._writing = asyncio.create_task(self._write_pending(), name="db-write")
        # shield: a client that hangs up cancels its request, not a transaction under way.
        return await asyncio.shield(write.done)

    async def _write_pending(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._pending:
                batch, self._pending = self._pending[:_BATCH], self._pending[_BATCH:]
                self._since = time.monotonic()
                outcomes = await loop.run_in_executor(self._write_pool, self._run_batch, batch)
                for write, outcome in zip(batch, outcomes, strict=True):
                    write.settle(outcome)
        finally:
            self._since = None
            self._writing = None

    def _run_batch(self, batch: list[_Write[Any]]) -> list[_Outcome]:
        """Run the functions in one transaction; what each gave, or why it failed.

        Each has a Session and a savepoint of its own: what one loaded or broke, none of the others
        sees. A database that fails takes them all back.
        """
        outcomes: dict[int, _Outcome] = {}  # by place in the batch
        alone = len(batch) == 1  # what fails then takes nobody with it: no savepoint is needed
        try:
            self._check_place()
            with self.turn, self._writer.begin() as connection:
                # Now, since to get here may have taken a minute.
                gone = {place for place, write in enumerate(batch) if write.pointless}
                outcomes |= {place: _Outcome(error=_not_begun()) for place in gone}
                for places in _together(batch, gone):
                    writes = [batch[place] for place in places]
                    outcomes |= zip(places, _run_on(connection, writes, alone), strict=True)
            self._check_place()  # again: what was committed may be in a file that is gone
        except Exception as error:
            told = translated(error) if isinstance(error, DatabaseError) else error
            self._failure = str(told)
            return [_Outcome(error=told) for _ in batch]
        self._failure = ""
        return [outcomes[place] for place in range(len(batch))]

    def _check_place(self) -> None:
        if reason := self.replaced:
            raise Unreachable(
                f"the registry is not what it was: {reason}",
                "Nothing is recorded until the controller is started anew: see `qd status`.",
            )

    async def read(self, fn: Callable[[Session], T]) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._read_pool, self._run, self._readers, fn)

    @staticmethod
    def _run(engine: Engine, fn: Callable[[Session], T]) -> T:
        try:
            with Session(engine, expire_on_commit=False) as session, session.begin():
                return fn(session)
        except DatabaseError as error:
            raise translated(error) from error

    async def damage(self) -> str:
        """What SQLite finds wrong with its file, in its own words; empty when nothing. Reads all of it."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(None, _damage, self._file) if self._file else ""

    def close(self) -> None:
        self._write_pool.shutdown(wait=True)
        self._read_pool.shutdown(wait=True, cancel_futures=True)
        self._readers.dispose()
        self._checkpoint()
        self._writer.dispose()

    def _checkpoint(self) -> None:
        """Leave all in the one file, which people copy, and nothing in the log beside it."""
        if self._file is not None and not self.replaced:
            with contextlib.suppress(Exception), self._writer.connect() as connection:
                raw: Any = connection.connection.driver_connection
                raw.execute("PRAGMA busy_timeout=1000")
                raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def _not_begun() -> Unreachable:
    return Unreachable("who asked for it has gone; nothing was changed")


def _inode(file: Path | None) -> tuple[int, int] | None:
    """What names a file, whatever its name leads to later. None when it is not there."""
    try:
        found = file.stat() if file is not None else None
    except FileNotFoundError:
        return None
    return (found.st_dev, found.st_ino) if found is not None else None


def _together(batch: list[_Write[Any]], without: Collection[int] = ()) -> list[list[int]]:
    """The places of the writes that share a call, each group where its first one stands."""
    groups: dict[object, list[int]] = {}
    for place, write in enumerate(batch):
        if place in without:
            continue
        groups.setdefault(write.fn if write.shared else place, []).append(place)
    return list(groups.values())


def _run_on(connection: Connection, writes: list[_Write[Any]], alone: bool) -> list[_Outcome]:
    """Run writes that share a call, with a session of their own; of what fails, nothing is left.
    `alone`: nor of anything else in the transaction.

    Raises:
        DatabaseError: the database itself fails.
    """
    first = writes[0]
    mode: Literal["rollback_only", "create_savepoint"]
    mode = "rollback_only" if alone else "create_savepoint"
    try:
        with (
            Session(connection, join_transaction_mode=mode, expire_on_commit=False) as session,
            session.begin(),
        ):
            if not first.shared:
                return [_Outcome(first.fn(session))]
            values = first.fn(session, [write.item for write in writes])
        return [_Outcome(value) for value in values]
    except Exception as error:
        if isinstance(error, DatabaseError) and _of_the_database(error):
            raise
        if len(writes) == 1:
            return [_Outcome(error=error)]
    return [outcome for write in writes for outcome in _run_on(connection, [write], False)]


def _of_the_database(error: DatabaseError) -> bool:
    """Whether the database fails, and not what it was asked: drivers raise the base class for damage."""
    return isinstance(error, OperationalError) or type(error) is DatabaseError


def translated(error: DatabaseError) -> Exception:
    """The error in words, where it is the database's; else the same."""
    if not _of_the_database(error):
        return error
    text = str(error.orig)
    if "full" in text or "No space left" in text or "disk I/O" in text:
        return StorageFull(
            f"the registry cannot be written: {text}", "Free some disk space; nothing was changed."
        )
    if "locked" in text or "connection" in text.lower():
        return Unreachable(
            f"the registry does not answer: {text}", "Nothing was changed; try again."
        )
    if "malformed" in text or "not a database" in text:
        return Damaged(f"the registry is damaged: {text}", TO_MEND)
    return error


def _damage(file: Path) -> str:
    try:
        place = f"file:{quote(str(file))}?mode=ro"
        with contextlib.closing(sqlite3.connect(place, uri=True)) as found:
            (first, *_), *_ = found.execute("PRAGMA quick_check(1)").fetchall()
    except sqlite3.OperationalError:  # locked, moved or gone: it says nothing about damage
        return ""
    except sqlite3.DatabaseError as error:
        return str(error)
    return "" if first == "ok" else str(first).replace("\n", " ")


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
            row = source.execute(
                f"SELECT version_num FROM {migrations.VERSION_TABLE}"  # noqa: S608 - our own constant
            ).fetchone()
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
