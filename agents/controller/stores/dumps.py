"""A registry on PostgreSQL, dumped and loaded by the server's own programs."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from sqlalchemy import Connection, MetaData, create_engine, inspect, make_url
from sqlalchemy.engine import URL, Engine
from sqlalchemy.exc import DatabaseError
from sqlmodel import Session

from agents.controller.stores import auditheads, manifest
from agents.controller.stores.manifest import Manifest
from jobs.base.errors import Conflict, Unreachable
from jobs.store import audit
from jobs.wire.backupviews import AuditHead

_NEWER = "Its version must be at least the server's."


def dump(url: URL, target: Path) -> tuple[str, str, AuditHead | None]:
    """`pg_dump`, of the very state that is looked at: both share a snapshot. Raises Conflict.

    Returns:
        What `manifest.of_registry` says of that state.
    """
    program = _program("pg_dump", "where the controller is")
    engine = create_engine(url, isolation_level="REPEATABLE READ")
    try:
        with Session(engine) as session:
            connection = session.connection()
            snapshot = connection.exec_driver_sql("SELECT pg_export_snapshot()").scalar_one()
            found = manifest.of_registry(session)
            _run(url, program, "--format=custom", f"--snapshot={snapshot}", f"--file={target}")
    finally:
        engine.dispose()
    target.chmod(0o600)
    return found


def load(url: str, source: Path, found: Manifest, heads: str) -> None:
    """Put a dump into an empty database, all of it or nothing, and check its audit log.

    Args:
        url: as for `Database.open`.
        heads: the text of the backup's checkpoints of its audit log.

    Raises:
        Conflict: the database is not empty, `pg_restore` failed, or the audit log was changed. The
            database is empty again, unless it was not before.
        Unreachable: there is no such database, or its server does not answer.
    """
    parsed = make_url(url)
    program = _program("pg_restore", "here")
    engine = create_engine(parsed)
    try:
        refuse_unless_empty(engine, parsed)
        # Grants and owners name accounts that this server need not have.
        words = ("--no-owner", "--no-privileges", "--exit-on-error", "--single-transaction")
        _run(parsed, program, *words, source=source)
        try:
            with Session(engine) as session:
                if manifest.of_registry(session) != (
                    found["cluster"],
                    found["schema"],
                    found["audit"],
                ):
                    raise Conflict("the backup's registry does not match its manifest")
                known = [(head.id, head.hash) for head in auditheads.parse(heads)]
                reason = audit.verify_all(session, known).reason
            if reason:
                raise Conflict(
                    f"the backup's audit log was changed: {reason}", "Use another backup."
                )
        except BaseException:
            everything = MetaData()
            everything.reflect(engine)
            everything.drop_all(engine)
            raise
    finally:
        engine.dispose()


def unreachable(error: DatabaseError) -> Unreachable:
    """A server that does not answer, or has no such database, in words."""
    told = str(error.orig).strip().splitlines() or ["no reason was given"]
    return Unreachable(
        f"the database of QD_DATABASE_URL cannot be used: {told[0]}",
        "Create it first (`createdb NAME`). Nothing was changed.",
    )


def refuse_unless_empty(engine: Engine | Connection, url: URL) -> None:
    """Raises Conflict, Unreachable."""
    try:
        present = inspect(engine).get_table_names()
    except DatabaseError as error:
        raise unreachable(error) from error
    if present:
        raise Conflict(
            f"the database {url.database} of QD_DATABASE_URL is not empty: it has {present[0]}",
            "Create another one (`createdb NAME`), set QD_DATABASE_URL to it here and for the "
            "cluster, and keep this one until you do not need it. Nothing was changed.",
        )


def _program(name: str, where: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise Conflict(
            f"the registry is on PostgreSQL, and there is no {name} on PATH",
            f"Install PostgreSQL's client (`apt-get install postgresql-client`) {where}.",
        )
    return found


def _run(url: URL, program: str, *words: str, source: Path | None = None) -> None:
    """Run one of the server's programs on a database; the password is in nobody's process list."""
    environ = dict(os.environ)
    if url.password is not None:
        environ["PGPASSWORD"] = str(url.password)
    bare = URL.create(
        "postgresql", url.username, None, url.host, url.port, url.database, url.query
    ).render_as_string()
    done = subprocess.run(
        [program, *words, f"--dbname={bare}", *([] if source is None else [str(source)])],
        env=environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise Conflict(f"{Path(program).name} failed: {last}", _NEWER)
