"""The head node: a registry and a log store that outlive the controllers which run on it.

The controller is the real one, with its real `Database` class over SQLite in memory; only what would
touch the disk is replaced.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import sqlite3
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import StaticPool
from sqlmodel import Session

from agents.controller import controller as controller_module
from agents.controller.controller import Controller
from agents.controller.stores.blobs import BlobStore, Stored
from agents.controller.stores.continuity import MarkFile
from agents.controller.stores.database import Database
from agents.controller.stores.logstore import LogStore
from agents.controller.stores.secretstore import SecretStore
from jobs.base.errors import QuarterdeckError, StorageFull, Unreachable
from jobs.store import migrations, writing
from jobs.store.tables import MetaRow
from tests.sim.fabric import Network, SimFabric
from tests.sim.loop import EPOCH, Process

CLUSTER = "sim"
SUPERVISED = 1.0
"""Seconds after which a controller that exited by itself is started again."""


@functools.cache
def _engine() -> Engine:
    """One engine for all histories: what SQLAlchemy compiles is compiled once."""
    engine = create_engine(
        "sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False}
    )

    @event.listens_for(engine, "connect")
    def _connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None
        connection.execute("PRAGMA foreign_keys=ON")

    @event.listens_for(engine, "begin")
    def _begin(connection: Any) -> None:
        if faults:
            raise OperationalError("BEGIN", None, Exception(faults[-1]))
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


faults: list[str] = []
"""What SQLite says when it is asked for a transaction; nothing is wrong while this is empty."""


@functools.cache
def _template() -> sqlite3.Connection:
    """An empty registry, migrated as a real one is."""
    engine = create_engine("sqlite://", poolclass=StaticPool)
    with engine.begin() as connection:
        migrations.upgrade(connection)
    with Session(engine) as session, session.begin():
        session.add(MetaRow(name="cluster_id", value=CLUSTER))
    raw = engine.raw_connection().driver_connection
    assert isinstance(raw, sqlite3.Connection)
    return raw


class Registry(Database):
    """The real database class over the history's own SQLite. One per controller."""

    def __init__(self) -> None:
        engine = _engine()
        super().__init__(engine, engine.execution_options(readers=True))

    def close(self) -> None:
        """The history goes on with the same engine."""


class Logs(LogStore):
    """Rank logs in memory. Bytes that were not synced are lost when the head loses power."""

    full = False

    def __init__(self) -> None:
        super().__init__(Path())
        self.held: dict[tuple[int, int, int], bytearray] = {}
        self.synced: dict[tuple[int, int, int], int] = {}

    def size(self, job: int, attempt: int, rank: int) -> int:
        return len(self.held.get((job, attempt, rank), b""))

    def append(
        self,
        job: int,
        attempt: int,
        rank: int,
        offset: int,
        data: bytes,
        times: Sequence[tuple[int, float]],
    ) -> int:
        if self.full:
            raise StorageFull("logs cannot be written")
        held = self.held.setdefault((job, attempt, rank), bytearray())
        if offset <= len(held) < offset + len(data):
            held += data[len(held) - offset :]
        return len(held)

    def newest(self, job: int) -> int:
        return max((attempt for known, attempt, _ in self.held if known == job), default=0)

    def newest_job(self) -> int:
        return max((job for job, _, _ in self.held), default=0)

    def sync(self, job: int, attempt: int, rank: int) -> None:
        self.synced[job, attempt, rank] = self.size(job, attempt, rank)

    def lose_power(self) -> None:
        for key, held in self.held.items():
            del held[self.synced.get(key, 0) :]


class Marks(MarkFile):
    """In memory, and as durable as the file."""

    def __init__(self) -> None:
        self.marks: list[str] = []

    def read(self) -> list[str]:
        return list(self.marks)

    def write(self, marks: list[str]) -> None:
        self.marks = list(marks)


class _Blobs(BlobStore):
    def __init__(self, root: Path, now: Callable[[], float]) -> None:
        pass

    def items(self) -> list[Stored]:
        return []

    def incoming(self) -> Any:
        return contextlib.nullcontext(
            mock.Mock(write=lambda chunk: None, commit=lambda: "0" * 64, spec=["write", "commit"])
        )


class _Secrets(SecretStore):
    def __init__(self, root: Path) -> None:
        pass

    def load(self, job: int) -> dict[str, str]:
        return {}

    def drop(self, job: int) -> None:
        pass

    def newest_job(self) -> int:
        return 0


class Head:
    """Where controllers run, one at a time.

    Args:
        written: called after each commit.
    """

    def __init__(self, network: Network, written: Callable[[], None]) -> None:
        self._network, self._loop = network, network.loop
        faults.clear()
        raw = _engine().raw_connection().driver_connection
        assert isinstance(raw, sqlite3.Connection)
        _template().backup(raw)
        self.sql = raw
        self._written, self._changes = written, raw.total_changes
        self._loop.after_work = self._look
        self.logs, self.marks = Logs(), Marks()
        self.controller: Controller | None = None
        self.process: Process | None = None
        self._graves: list[Controller] = []  # kept: what is freed early would still act
        self._starts = 0
        self.ahead = 0.0  # seconds by which its wall clock has been set

    def _look(self) -> None:
        """Tell when a thread's work has changed the registry."""
        if self.sql.total_changes != self._changes:
            self._changes = self.sql.total_changes
            self._written()

    def start(self) -> None:
        """Start a controller, if none runs."""
        if self.process is not None:
            return
        self._starts += 1
        self._network.story.tell("head", f"controller {self._starts} starts")
        self._launch()

    def _launch(self) -> None:
        self.process = Process(self._loop, f"controller-{self._starts}")
        self.process.spawn(self._begin(self.process))

    async def _begin(self, process: Process) -> None:
        try:
            self.controller = await self._started()
        except (StorageFull, Unreachable):
            # It exits, half begun or not, and its supervisor starts another.
            process.kill()
            self._loop.call_later(SUPERVISED, self._again, process, context=contextvars.Context())
        except Exception as error:  # nobody else would hear of it
            self._network.story.violated(f"the controller cannot start: {error!r}")

    def _again(self, exited: Process) -> None:
        if self.process is exited:
            self._launch()

    async def _started(self) -> Controller:
        registry = Registry()
        cluster_id = await registry.write(writing.cluster_id)
        with mock.patch.multiple(
            controller_module,
            LogStore=lambda root: self.logs,
            MarkFile=lambda path: self.marks,
            BlobStore=_Blobs,
            SecretStore=_Secrets,
        ):
            controller = Controller(
                state=Path(tempfile.gettempdir()),
                fabric=SimFabric(self._network),
                database=registry,
                database_url="sqlite://",
                cluster_id=cluster_id,
                now=lambda: self._loop.time() + EPOCH + self.ahead,
                monotonic=self._loop.time,
            )
        self._graves.append(controller)
        await controller.start()
        return controller

    def crash(self, *, power: bool = False) -> None:
        """SIGKILL; with `power`, what was not synced is lost as well."""
        if self.process is not None:
            self._network.story.tell("head", "loses power" if power else "controller is killed")
            self.process.kill()
        self.process = self.controller = None
        if power:
            self.logs.lose_power()

    def backup(self) -> sqlite3.Connection:
        """A copy of the registry as it is now."""
        copy = sqlite3.connect(":memory:")
        self.sql.backup(copy)
        return copy

    def restore(self, copy: sqlite3.Connection) -> None:
        """Put a copy in the registry's place, as `qd restore` does. No controller may run."""
        assert self.process is None
        self._network.story.tell("head", "the registry is restored from a backup")
        copy.backup(self.sql)
        self.marks.write([])
        self._changes = self.sql.total_changes

    def crash_after(self, callbacks: int | None) -> None:
        """SIGKILL somewhere in the middle of what it does next. None: not after all."""
        if self.process is not None and callbacks is None:
            self.process.fuse = None
        elif self.process is not None and callbacks is not None:
            self.process.kill_after(callbacks, self.crash)

    async def stop(self) -> None:
        """An orderly end, as by `qd down`."""
        process, controller = self.process, self.controller
        if process is None or controller is None:
            return
        self._network.story.tell("head", "controller is told to stop")
        self.controller = None
        closing = process.spawn(controller.close())
        await asyncio.wait([closing], timeout=20.0)  # it may be killed on its way out
        if self.process is process:
            process.kill()
            self.process = None

    async def ask(self, request: Callable[[Controller], Awaitable[Any]], timeout: float) -> Any:
        """Make a request of the API.

        Raises:
            Unreachable: there was no answer; it may have been done all the same.
        """
        if self.process is None or self.controller is None:
            raise Unreachable("no controller answers")
        future: asyncio.Future[Any] = self._loop.create_future()

        async def serve(controller: Controller) -> None:
            try:
                value = await request(controller)
            except QuarterdeckError as error:
                value = error
            except Exception as error:  # a server would answer with 500
                self._network.story.violated(f"internal error in a request: {error!r}")
                return
            if not future.done():
                future.set_result(value)

        serving = self.process.spawn(serve(self.controller))
        try:
            async with asyncio.timeout(timeout):
                value = await future
        except TimeoutError:
            serving.cancel()  # as a server may do when nobody waits any more
            raise Unreachable("the controller does not answer") from None
        if isinstance(value, QuarterdeckError):
            raise value
        return value
