"""Registries to run one contract over: SQLite, and a PostgreSQL server that the tests start."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy


def _binaries() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    on_path = shutil.which("initdb")
    chosen = found[-1] if found else Path(on_path) if on_path else None
    return chosen.resolve().parent if chosen else None


@contextmanager
def postgres_server() -> Iterator[str]:
    """A private server on a unix socket alone; gives the URL of its database `postgres`."""
    binaries = _binaries()
    if binaries is None:
        pytest.skip("PostgreSQL's server is not installed (apt-get install postgresql)")
    home = Path(tempfile.mkdtemp(prefix="qdt-pg-"))
    owner: dict[str, Any] = {}
    if os.geteuid() == 0:  # the server refuses to run as root
        try:
            user = pwd.getpwnam("postgres")
        except KeyError:
            user = pwd.getpwnam("nobody")
        os.chown(home, user.pw_uid, user.pw_gid)
        owner = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}

    def run(program: str, *words: str) -> None:
        command = [str(binaries / program), "--pgdata", str(home / "data"), *words]
        done = subprocess.run(
            command, cwd=home, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, text=True, check=False, **owner,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr

    with socket.socket() as probe:  # names the socket's file; nothing listens on the network
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    try:
        run("initdb", "--username=qd", "--auth=trust", "--encoding=UTF8", "--no-sync")
        options = f"-c listen_addresses='' -c unix_socket_directories={home} -c port={port}"
        log = f"--log={home / 'log'}"
        run("pg_ctl", "--wait", f"--options={options}", log, "start")
        try:
            yield f"postgresql+psycopg://qd@/postgres?host={home}&port={port}"
        finally:
            run("pg_ctl", "--wait", "--mode=immediate", "stop")
    finally:
        shutil.rmtree(home)


def make_empty(url: str) -> None:
    """Take everything away that a test has left in a PostgreSQL database."""
    engine = sqlalchemy.create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql("DROP SCHEMA public CASCADE")
        connection.exec_driver_sql("CREATE SCHEMA public")
    engine.dispose()
