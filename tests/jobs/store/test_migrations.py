"""The schema by migrations is the schema of the tables, and what was stored stays."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, text
from sqlmodel import Session, SQLModel

from jobs.store import migrations
from jobs.store.tables import NodeRow


def test_migrations_make_the_tables(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'r.db'}")
    with engine.begin() as connection:
        migrations.upgrade(connection)
        ours = {"include_name": lambda name, kind, _: kind != "table" or "_schema" not in name}
        context = MigrationContext.configure(connection, opts={"compare_type": True, **ours})
        assert compare_metadata(context, SQLModel.metadata) == []
    engine.dispose()


def test_revisions_are_what_the_files_are_named_for(tmp_path: Path) -> None:
    """So that a controller which comes back need not load Alembic to see that nothing is to be done."""
    engine = create_engine(f"sqlite:///{tmp_path / 'r.db'}")
    with engine.begin() as connection:
        assert migrations.current(connection) is None
        script = ScriptDirectory.from_config(migrations._config(connection))
        known = [revision.revision for revision in script.walk_revisions()]
        assert migrations.revisions() == known[::-1]
        migrations.upgrade(connection)
        assert migrations.current(connection) == migrations.head() == script.get_current_head()
    engine.dispose()
    program = (
        "import sys\nfrom sqlalchemy import create_engine\nfrom jobs.store import migrations\n"
        f"with create_engine('sqlite:///{tmp_path / 'r.db'}').begin() as connection:\n"
        "    migrations.upgrade(connection)\n"
        "assert 'alembic' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def to(connection: Connection, revision: str) -> None:
    config = migrations._config(connection)
    known = migrations.current(connection) or "0000"
    (command.upgrade if revision > known else command.downgrade)(config, revision)


def test_nodes_of_the_first_version_are_well(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'r.db'}")
    with engine.begin() as connection:
        to(connection, "0001")
        connection.execute(
            text(
                "INSERT INTO nodes (name, address, drained, reason, facts, boot_id, first_seen, seen_at)"
                " VALUES ('n1', 'a', 1, 'new fan', '{}', 'b', 1, 2)"
            )
        )
        to(connection, "0002")
    with Session(engine) as session:
        row = session.get(NodeRow, "n1")
        assert row is not None
        assert (row.reason, row.quarantine, row.acknowledged) == ("new fan", "", None)
        row.acknowledged = {"at": 1.0, "gpus": {}}
        session.add(row)
        session.commit()
    with engine.begin() as connection:
        to(connection, "0001")
        assert connection.execute(text("SELECT reason FROM nodes")).scalar_one() == "new fan"
    engine.dispose()


def test_points_become_chunks_and_points_again(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'r.db'}")
    every = "SELECT attempt_id, rank, name, step, at, value FROM metric_points ORDER BY id"
    with engine.begin() as connection:
        to(connection, "0004")
        insert = "INSERT INTO metric_points (attempt_id, rank, name, step, at, value) VALUES "
        connection.execute(
            text(
                f"{insert} (1, 0, 'loss', 0, 1.5, 0.25), (1, 1, 'loss', 0, 1.5, NULL),"
                " (1, 0, 'acc', 0, 1.5, 0.5), (1, 0, 'loss', 1, 2.5, 0.125), (2, 0, 'loss', 7, 9, 1)"
            )
        )
        before = connection.execute(text(every)).all()
        to(connection, "0005")
        assert connection.execute(text("SELECT count(*) FROM metric_chunks")).scalar_one() == 3
        to(connection, "0004")
        assert set(connection.execute(text(every)).all()) == set(before)
    engine.dispose()
