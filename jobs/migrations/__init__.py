"""Schema migrations (Alembic). `upgrade` brings a database to the newest revision."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from jobs.errors import Conflict

VERSION_TABLE = "quarterdeck_schema"
"""Not Alembic's default name: Optuna keeps its studies in the same database, and its own revision in
`alembic_version`."""


def _config(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.attributes["connection"] = connection
    return config


def current(connection: Connection) -> str | None:
    """The revision that the database is at; None for a new one."""
    context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
    return context.get_current_revision()


def head() -> str | None:
    """The newest revision that this version of the code knows."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    return ScriptDirectory.from_config(config).get_current_head()


def upgrade(connection: Connection) -> None:
    """Bring the schema to `head`.

    Raises:
        Conflict: the database was written by a newer version, which this one could misread.
    """
    config = _config(connection)
    at = current(connection)
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if at is not None and at not in known:
        raise Conflict(
            f"the registry is at schema {at}, which this version does not know",
            "It was written by a newer Quarterdeck: upgrade, or restore the backup beside the database.",
        )
    command.upgrade(config, "head")


def autogenerate(connection: Connection, message: str, revision: str) -> None:
    """Write a migration for what `jobs/tables.py` has and the database lacks (for developers)."""
    command.revision(_config(connection), message=message, autogenerate=True, rev_id=revision)
