"""Schema migrations (Alembic). `upgrade` brings a database to the newest revision."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, inspect, text

from jobs.base.errors import Conflict

if TYPE_CHECKING:  # a controller that comes back finds its schema as it left it, nearly always
    from alembic.config import Config

VERSION_TABLE = "quarterdeck_schema"
"""Not Alembic's default name: Optuna keeps its studies in the same database, and its own revision in
`alembic_version`."""


def _config(connection: Connection) -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.attributes["connection"] = connection
    return config


def current(connection: Connection) -> str | None:
    """The revision that the database is at; None for a new one."""
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    row = connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).first()  # noqa: S608
    return str(row[0]) if row is not None else None


def revisions() -> list[str]:
    """All that this version of the code knows, oldest first: their files are named for them."""
    files = (Path(__file__).parent / "versions").glob("[0-9]*_*.py")
    return sorted(path.name.partition("_")[0] for path in files)


def head() -> str:
    """The newest revision that this version of the code knows."""
    return revisions()[-1]


def upgrade(connection: Connection) -> None:
    """Bring the schema to `head`.

    Raises:
        Conflict: the database was written by a newer version, which this one could misread.
    """
    at = current(connection)
    if at == head():
        return
    if at is not None and at not in revisions():
        raise Conflict(
            f"the registry is at schema {at}, which this version does not know",
            "It was written by a newer Quarterdeck: upgrade, or restore the backup beside the database.",
        )
    from alembic import command

    command.upgrade(_config(connection), "head")


def autogenerate(connection: Connection, message: str, revision: str) -> None:
    """Write a migration for what `jobs/store/tables.py` has and the database lacks (for developers)."""
    from alembic import command

    command.revision(_config(connection), message=message, autogenerate=True, rev_id=revision)
