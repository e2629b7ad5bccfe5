"""Alembic's entry. The connection is handed in by `jobs.store.migrations.upgrade` through the config."""

from __future__ import annotations

from alembic import context
from sqlmodel import SQLModel

from jobs.store import (  # noqa: F401 - they fill the metadata
    alerttables,
    copytables,
    datatables,
    edgetables,
    evaluationtables,
    featuretables,
    flowtables,
    modeltables,
    monitortables,
    servicetables,
    sweeptables,
    tables,
)
from jobs.store.migrations import VERSION_TABLE

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=SQLModel.metadata,
    render_as_batch=True,  # SQLite can alter a table only by copying it
    compare_type=True,
    version_table=VERSION_TABLE,
)
with context.begin_transaction():
    context.run_migrations()
