"""Optuna's storage in the registry's database, on a connection whose commits can be put off."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optuna.storages import RDBStorage


class _Connection(sqlite3.Connection):
    """Optuna commits after each of its steps, a dozen for a trial, and each has to wait its turn for
    SQLite's only write lock. While `held`, its commits are put off, so that all is one transaction."""

    held = False

    def commit(self) -> None:
        if not self.held:
            super().commit()

    def rollback(self) -> None:
        self.held = False
        super().rollback()


@contextlib.contextmanager
def one_transaction(storage: RDBStorage) -> Iterator[None]:
    """Everything that Optuna stores in this block, or nothing. After an error the study has to be
    opened anew: what it remembers may not have been stored."""
    with storage.engine.connect() as borrowed:
        connection: Any = borrowed.connection.dbapi_connection
    if not isinstance(connection, _Connection):  # not SQLite: its locks are finer
        yield
        return
    connection.execute("BEGIN IMMEDIATE")
    connection.held = True
    try:
        yield
    except BaseException:
        connection.rollback()
        raise
    connection.held = False
    connection.commit()


def open_storage(url: str) -> RDBStorage:
    import optuna
    from sqlalchemy import StaticPool, event, make_url

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if make_url(url).get_backend_name() != "sqlite":
        return optuna.storages.RDBStorage(url, engine_kwargs={"pool_pre_ping": True})
    storage = optuna.storages.RDBStorage(
        url,
        engine_kwargs={
            "connect_args": {"timeout": 60, "check_same_thread": False, "factory": _Connection},
            "poolclass": StaticPool,  # one thread, one connection
            "pool_reset_on_return": None,
        },
    )
    with storage.engine.connect() as borrowed:
        connection: Any = borrowed.connection.dbapi_connection
    connection.isolation_level = None
    # Our own commit, which follows, syncs the log up to there.
    connection.execute("PRAGMA synchronous=NORMAL")

    @event.listens_for(storage.engine, "begin")
    def _begin(borrowed: Any) -> None:
        # As in our own connections: a transaction that reads first and then writes must not find
        # that the controller's writer came between.
        if not borrowed.connection.dbapi_connection.held:
            borrowed.exec_driver_sql("BEGIN IMMEDIATE")

    return storage
