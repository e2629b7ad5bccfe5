"""Which blobs there are in object storage: an SQLite file beside the cache, so that no question about a blob
costs a request, and no listing is on anybody's way.

It says no more than the storage does, so one that is lost is made again from a listing.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path

from agents.controller.stores.blobs import REFRESH, Stored
from jobs.base.errors import Damaged, QuarterdeckError, StorageFull

_AT_ONCE = 500
_TABLES = """
CREATE TABLE IF NOT EXISTS blobs (digest TEXT PRIMARY KEY, size INTEGER NOT NULL, held_at REAL NOT NULL)
WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""


class BlobIndex:
    """Durable when a call returns. Safe from several threads. Digests are hex.

    Raises StorageFull, and Damaged.
    """

    def __init__(self, file: Path) -> None:
        self._file, self._lock = file, threading.Lock()
        try:
            self._database = sqlite3.connect(
                file, timeout=60, isolation_level=None, check_same_thread=False
            )
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("PRAGMA synchronous=FULL")
            self._database.executescript(_TABLES)
        except sqlite3.Error as error:
            raise self._told(error) from error

    @property
    def of(self) -> str:
        """Of which storage it is a whole index; empty when it is not made yet."""
        with self._lock:
            row = self._database.execute("SELECT value FROM facts WHERE name = 'place'").fetchone()
        return str(row[0]) if row else ""

    def fill(self, place: str, found: Iterable[Stored]) -> None:
        """Make it the whole index of a storage."""
        rows = ((one.digest, one.size, one.held_at) for one in found)
        with self._lock:
            try:
                self._database.execute("BEGIN IMMEDIATE")
                self._database.execute("DELETE FROM blobs")
                self._database.executemany("INSERT OR REPLACE INTO blobs VALUES (?, ?, ?)", rows)
                self._database.execute("INSERT OR REPLACE INTO facts VALUES ('place', ?)", (place,))
                self._database.execute("COMMIT")
            except BaseException as error:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                if isinstance(error, sqlite3.Error):
                    raise self._told(error) from error
                raise

    def size(self, digest: str) -> int | None:
        with self._lock:
            try:
                row = self._database.execute(
                    "SELECT size FROM blobs WHERE digest = ?", (digest,)
                ).fetchone()
            except sqlite3.Error as error:
                raise self._told(error) from error
        return None if row is None else int(row[0])

    def hold(self, digests: Sequence[str], now: float) -> set[str]:
        """Those that are there; their time is now, from this moment on."""
        found: set[str] = set()
        for at in range(0, len(digests), _AT_ONCE):
            some = digests[at : at + _AT_ONCE]
            marks = ", ".join("?" * len(some))
            with self._lock:
                try:
                    rows = self._database.execute(
                        f"SELECT digest, held_at FROM blobs WHERE digest IN ({marks})",  # noqa: S608
                        some,
                    ).fetchall()
                    old = [digest for digest, held in rows if abs(now - held) > REFRESH]
                    if old:
                        marks = ", ".join("?" * len(old))
                        self._database.execute(
                            f"UPDATE blobs SET held_at = ? WHERE digest IN ({marks})",  # noqa: S608
                            [now, *old],
                        )
                except sqlite3.Error as error:
                    raise self._told(error) from error
            found.update(digest for digest, _ in rows)
        return found

    def add(self, digest: str, size: int, now: float) -> None:
        self._change("INSERT OR REPLACE INTO blobs VALUES (?, ?, ?)", digest, size, now)

    def drop(self, digest: str, before: float) -> bool:
        """Take one out that nobody has counted on since `before`; whether it was that one."""
        return (
            self._change("DELETE FROM blobs WHERE digest = ? AND held_at < ?", digest, before) > 0
        )

    def items(self) -> list[Stored]:
        with self._lock:
            try:
                rows = self._database.execute("SELECT digest, size, held_at FROM blobs").fetchall()
            except sqlite3.Error as error:
                raise self._told(error) from error
        return [Stored(*row) for row in rows]

    def close(self) -> None:
        with self._lock:
            self._database.close()

    def _change(self, statement: str, *values: object) -> int:
        with self._lock:
            try:
                return self._database.execute(statement, values).rowcount
            except sqlite3.Error as error:
                raise self._told(error) from error

    def _told(self, error: sqlite3.Error) -> QuarterdeckError:
        text = f"the index of blobs {self._file}: {error}"
        if "full" in str(error) or "I/O" in str(error):
            return StorageFull(text, "Free some disk space; nothing was stored.")
        return Damaged(
            text, "Stop the cluster and remove the file: it is made again from a listing."
        )
