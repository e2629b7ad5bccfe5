"""A registry that moves from SQLite to PostgreSQL, or back, as one file: an SQLite registry.

SQLite's own copy is the file as it is. On PostgreSQL the file is filled from, or copied into, the server's
tables, row by row, in one transaction of the target: killed in the middle, it is empty. What was written is
read again and compared before it is committed: the rows of each table, and the chain of the audit log.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import (
    JSON,
    Column,
    Connection,
    Float,
    MetaData,
    String,
    Table,
    Text,
    bindparam,
    cast,
    create_engine,
    func,
    inspect,
    make_url,
    select,
    text,
    type_coerce,
)
from sqlalchemy.exc import DatabaseError, OperationalError
from sqlmodel import Session, SQLModel

from agents.controller.stores import auditheads, manifest
from agents.controller.stores.backup import copy_sqlite, reading, sync_folder
from agents.controller.stores.database import translated
from agents.controller.stores.dumps import refuse_unless_empty, unreachable
from agents.controller.stores.manifest import Say
from jobs.base.disk import refused, storage_full
from jobs.base.errors import Conflict, InvalidInput, NotFound
from jobs.store import audit, migrations
from jobs.store.columns import WithNumbers
from jobs.wire.backupviews import MovedView

_AT_ONCE = 2_000
"""Rows in memory at a time."""
_SAY_EVERY = 100_000
_DRAFT = ".moving"
_SQLITE = "sqlite"
_OPTUNA = "studies"
"""A table that is there when sweeps were; Optuna makes its own."""
_JSON = JSON | WithNumbers
_BOUND = "to_"

Foreign = Callable[[], MetaData]
"""Gives Optuna's tables; called only when the registry has them, since its import takes a second."""


@dataclass(frozen=True, slots=True)
class _Sum:
    """Rows of a table, in whatever order they are read: how many, and the sum of their digests."""

    rows: int = 0
    total: int = 0

    def plus(self, row: Sequence[Any]) -> _Sum:
        digest = int.from_bytes(hashlib.blake2b(repr(row).encode(), digest_size=16).digest())
        return _Sum(self.rows + 1, (self.total + digest) % 2**128)


def export(url: str, target: Path, known: str, foreign: Foreign, say: Say) -> MovedView:
    """Write the registry at `url` to a new SQLite file. No controller may run.

    Args:
        known: the text of the checkpoints of its audit log, empty without any.

    Raises:
        NotFound: there is no registry.
        Conflict: `target` exists, the registry is damaged or of another version, or its audit log was
            changed. There is no file then.
        InvalidInput, StorageFull: the file cannot be written.
        Unreachable: the database does not answer.
    """
    if os.path.lexists(target):
        raise Conflict(f"{target} already exists", "Name a file that does not exist yet.")
    parsed = make_url(url)
    try:
        with _draft(target) as draft:
            if parsed.get_backend_name() == _SQLITE:
                say("copying the registry")
                copy_sqlite(Path(parsed.database or ""), draft)
            else:
                with _connected(url) as source, _filling(draft) as sink:
                    source.exec_driver_sql(
                        "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"
                    )
                    _copy(source, sink, foreign, say)
            return {**_checked(draft, known, say), "path": str(target)}
    except OSError as error:
        raise _unwritable(target, error) from error


def load(source: Path, url: str, known: str, foreign: Foreign, say: Say) -> MovedView:
    """Put such a file into the empty database, or the file that is not there yet, at `url`.

    Raises:
        NotFound: there is no such file.
        Conflict: it is damaged, of another version, or its audit log was changed; or the target is not
            empty. Nothing was changed.
        StorageFull: no room. Nothing was changed.
        Unreachable: the database does not answer.
    """
    if not source.is_file():
        raise NotFound(f"there is no file {source}", "`qd export --all FILE` makes one.")
    parsed = make_url(url)
    if parsed.get_backend_name() == _SQLITE:
        target = Path(parsed.database or "")
        for name in (target, Path(f"{target}-wal")):
            if os.path.lexists(name):
                raise Conflict(
                    f"there is a registry already: {name}",
                    f"Move it aside first (`mv {target} {target}.old`). Nothing was changed.",
                )
        try:
            with _draft(target) as draft:
                say("copying the registry")
                copy_sqlite(source, draft)
                return {**_checked(draft, known, say), "path": str(source)}
        except OSError as error:
            raise _unwritable(target, error) from error
    if Path(f"{source}-wal").exists():  # which `reading` would not see
        raise Conflict(
            f"{source} is a registry in use, with changes in {source.name}-wal",
            "Import a file that `qd export --all` made. Nothing was changed.",
        )
    found = _checked(source, known, say)
    with reading(source) as session, _connected(url) as target_:
        refuse_unless_empty(target_, parsed)
        _copy(session.connection(), target_, foreign, say)
        _chain(Session(target_), known)
        target_.commit()
    return found


@contextlib.contextmanager
def _draft(target: Path) -> Iterator[Path]:
    """A file beside `target` that gets its name at the end, unless somebody has made it meanwhile; one that
    a process has left that was killed goes first."""
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = target.with_name(f".{target.name}{_DRAFT}")
    try:
        draft.unlink(missing_ok=True)
        os.close(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        yield draft
        with draft.open("rb") as file:
            os.fsync(file.fileno())
        os.link(draft, target)
    finally:
        for left in (draft, Path(f"{draft}-journal"), Path(f"{draft}-wal"), Path(f"{draft}-shm")):
            left.unlink(missing_ok=True)
    sync_folder(target.parent)


@contextlib.contextmanager
def _connected(url: str) -> Iterator[Connection]:
    """One transaction on PostgreSQL; what is not committed is taken back. Raises Unreachable, also when the
    connection is lost on the way, and StorageFull."""
    engine = create_engine(url)
    try:
        try:
            connection = engine.connect()
        except DatabaseError as error:
            raise unreachable(error) from error
        with connection:
            yield connection
    except OperationalError as error:
        raise translated(error) from error
    finally:
        engine.dispose()


@contextlib.contextmanager
def _filling(file: Path) -> Iterator[Connection]:
    """An SQLite file that is filled in one transaction. What it has in the end is all or nothing by its
    name, so it is synced once. Raises StorageFull."""
    engine = create_engine(f"sqlite:///{file}")
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA synchronous=OFF")
            connection.commit()
            yield connection
            connection.commit()
    except OperationalError as error:
        raise translated(error) from error
    finally:
        engine.dispose()


def _checked(file: Path, known: str, say: Say) -> MovedView:
    """Look at a registry in a file that nobody writes to. Raises Conflict."""
    say("checking the audit log")
    try:
        with reading(file) as session:
            connection = session.connection()
            _refuse_other_versions(connection)
            cluster, schema, head = manifest.of_registry(session)
            _chain(session, known)
            rows = sum(
                connection.scalar(select(func.count()).select_from(text(f'"{name}"'))) or 0
                for name in inspect(connection).get_table_names()
            )
            tables = len(inspect(connection).get_table_names())
    except DatabaseError as error:
        raise Conflict(f"{file} is not a registry, or is damaged: {error.orig}") from error
    return {
        "path": str(file),
        "cluster": cluster,
        "schema": schema,
        "audit": head,
        "tables": tables,
        "rows": rows,
        "bytes": file.stat().st_size,
    }


def _chain(session: Session, known: str) -> None:
    """Raises Conflict when the audit log was changed, or lacks what its checkpoints name."""
    heads = [(head.id, head.hash) for head in auditheads.parse(known)]
    if reason := audit.verify_all(session, heads).reason:
        raise Conflict(
            f"the audit log was changed: {reason}",
            "Nothing was changed here. A registry that went on after it was exported has to be exported "
            "again; for one that was damaged use a backup (`qd restore`).",
        )


def _refuse_other_versions(connection: Connection) -> None:
    at = migrations.current(connection)
    if at is None:
        raise Conflict("the database has no registry", "Nothing was ever recorded there.")
    if at != migrations.head():
        raise Conflict(
            f"the registry is at schema {at}, and this version's is {migrations.head()}",
            "Start the cluster once with this version, which migrates it (`qd up`, then `qd down`)."
            if at in migrations.revisions()
            else "It was written by a newer Quarterdeck: use that one.",
        )


def _copy(source: Connection, target: Connection, foreign: Foreign, say: Say) -> None:
    """Make the tables in an empty database, fill them, and compare. The caller commits.

    Raises:
        Conflict: the source has tables or columns that this version does not know, or the target does
            not take a row as it is.
    """
    _refuse_other_versions(source)
    present = set(inspect(source).get_table_names()) - {migrations.VERSION_TABLE}
    migrations.upgrade(target)
    tables = list(SQLModel.metadata.sorted_tables)  # all of them, since the migrations were loaded
    if _OPTUNA in present:
        metadata = foreign()
        metadata.create_all(target)
        tables += metadata.sorted_tables
    if unknown := present - {table.name for table in tables}:
        raise Conflict(
            f"the registry has a table that is none of ours: {min(unknown)}", "Drop it first."
        )
    for table in reversed(tables):  # a migration may have put a row into a new registry
        target.execute(table.delete())
    for table in tables:
        _Mover(source, target, table).move(say)
    if target.dialect.name != _SQLITE:
        target.exec_driver_sql("SET CONSTRAINTS ALL IMMEDIATE")


class _Mover:
    """Moves the rows of one table.

    JSON goes as the text that it is: read and written as values, a NULL would become the word `null`.
    """

    def __init__(self, source: Connection, target: Connection, table: Table) -> None:
        self._source, self._target, self._table = source, target, table
        there = {column["name"] for column in inspect(source).get_columns(table.name)}
        if there != set(table.columns.keys()):
            odd = min(there ^ set(table.columns.keys()))
            raise Conflict(
                f"the registry's table {table.name} is another than this version's: column {odd}",
                "Start the cluster once with this version, which migrates it (`qd up`, then `qd down`).",
            )

        self._odd = [
            (at, isinstance(column.type, _JSON))
            for at, column in enumerate(table.columns)
            if isinstance(column.type, _JSON | Float)
        ]
        self._bound = [f"{_BOUND}{column.name}" for column in table.columns]

    def move(self, say: Say) -> None:
        came = _Sum()
        place = self._insertion()
        for page in self._read(self._source):
            for row in page:
                came = came.plus(row)
            try:
                self._target.execute(
                    place, [dict(zip(self._bound, row, strict=True)) for row in page]
                )
            except OperationalError:  # the disk or the server, and no fault of a row
                raise
            except (DatabaseError, OverflowError, ValueError) as error:
                raise self._refused(page, error) from error
            if came.rows % _SAY_EVERY < len(page) and came.rows >= _SAY_EVERY:
                say(f"{self._table.name}: {came.rows:,} rows so far")
        self._continue_numbers()
        arrived = _Sum()
        for page in self._read(self._target):
            for row in page:
                arrived = arrived.plus(row)
        if came != arrived:
            raise Conflict(
                f"{self._table.name}: {came.rows} rows went and {arrived.rows} came, or some of them differ",
                "Nothing was changed. Please report this.",
            )
        if came.rows:
            say(f"{self._table.name}: {came.rows:,} {'rows' if came.rows > 1 else 'row'}")

    def _read(self, connection: Connection) -> Iterator[list[tuple[Any, ...]]]:
        """Its rows by primary key, so that a row which refers to another of its table comes after it."""
        query = select(*(self._selected(connection, c) for c in self._table.columns))
        ordered = query.order_by(*self._table.primary_key.columns)
        found = connection.execute(ordered.execution_options(yield_per=_AT_ONCE))
        for page in found.partitions(_AT_ONCE):
            yield [self._plain(row) for row in page] if self._odd else [tuple(row) for row in page]

    def _plain(self, row: Sequence[Any]) -> tuple[Any, ...]:
        """What both databases mean by it: SQLite knows neither NaN, which is NULL there, nor -0.0, and
        keeps the JSON text `5` as a number."""
        found = list(row)
        for at, json_ in self._odd:
            value = found[at]
            if json_:
                if value is not None and not isinstance(value, str):
                    found[at] = json.dumps(value)
            elif isinstance(value, float):
                found[at] = None if math.isnan(value) else value + 0.0
        return tuple(found)

    @staticmethod
    def _selected(connection: Connection, column: Column[Any]) -> Any:
        if not isinstance(column.type, _JSON):
            return column
        if connection.dialect.name == _SQLITE:
            return type_coerce(column, String).label(column.name)
        return cast(column, Text).label(column.name)

    def _insertion(self) -> Any:
        values: dict[str, Any] = {}
        for column in self._table.columns:
            bound: Any = bindparam(f"{_BOUND}{column.name}", type_=column.type)
            if isinstance(column.type, _JSON):
                bound = bindparam(f"{_BOUND}{column.name}", type_=Text())
                if self._target.dialect.name != _SQLITE:
                    bound = cast(bound, column.type)
            values[column.name] = bound
        return self._table.insert().inline().values(values)

    def _refused(self, page: list[tuple[Any, ...]], error: Exception) -> Conflict:
        """In words, with the first row that is not taken. The transaction is lost already."""
        reason = str(error.orig if isinstance(error, DatabaseError) else error).strip()
        keys = [self._table.columns.keys().index(c.name) for c in self._table.primary_key.columns]
        first, last = (", ".join(str(row[at]) for at in keys) for row in (page[0], page[-1]))
        named = ", ".join(self._table.primary_key.columns.keys())
        return Conflict(
            f"{self._table.name}: a row with {named} from {first} to {last} is not taken: "
            f"{reason.splitlines()[0] if reason else type(error).__name__}",
            "Nothing was changed.",
        )

    def _continue_numbers(self) -> None:
        """New rows get numbers that were never used, also where the row with the highest has gone."""
        column = self._table.autoincrement_column
        if column is None or column.foreign_keys:
            return
        newest = max(
            self._given(self._source, column),
            self._target.scalar(select(func.coalesce(func.max(column), 0))) or 0,
        )
        if not newest:
            return
        if self._target.dialect.name == _SQLITE:
            if self._table.dialect_options[_SQLITE]["autoincrement"]:
                found = {"name": self._table.name, "seq": newest}
                self._target.execute(text("DELETE FROM sqlite_sequence WHERE name = :name"), found)
                self._target.execute(
                    text("INSERT INTO sqlite_sequence VALUES (:name, :seq)"), found
                )
            return
        named = {"table": self._table.name, "column": column.name}
        name = self._target.scalar(text("SELECT pg_get_serial_sequence(:table, :column)"), named)
        if name is not None:
            self._target.execute(
                text("SELECT setval(CAST(:name AS regclass), :newest)"),
                {"name": name, "newest": newest},
            )

    def _given(self, connection: Connection, column: Column[Any]) -> int:
        """The highest number that the database has given out, as far as it remembers; 0 when not."""
        if connection.dialect.name == _SQLITE:
            if not self._table.dialect_options[_SQLITE]["autoincrement"]:
                return 0
            query = text("SELECT seq FROM sqlite_sequence WHERE name = :name")
            return int(connection.scalar(query, {"name": self._table.name}) or 0)
        named = {"table": self._table.name, "column": column.name}
        name = connection.scalar(text("SELECT pg_get_serial_sequence(:table, :column)"), named)
        if name is None:
            return 0
        return int(
            connection.scalar(
                text("SELECT coalesce(pg_sequence_last_value(CAST(:name AS regclass)), 0)"),
                {"name": name},
            )
            or 0
        )


def _unwritable(target: Path, error: OSError) -> Exception:
    if isinstance(error, FileExistsError):
        return Conflict(f"{target} already exists", "Somebody has made it meanwhile.")
    if refused(error):
        return storage_full(f"{target} cannot be written", error, "Free some disk space.")
    return InvalidInput(f"{target} cannot be created: {error}")
