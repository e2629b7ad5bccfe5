"""A registry that moves, when a disk or a server fails in the middle: said in words."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import Column, Integer, LargeBinary, MetaData, Table, create_engine
from sqlalchemy.exc import OperationalError

from agents.controller.stores import moving
from jobs.base.errors import StorageFull, Unreachable


def test_a_disk_that_is_full_is_no_fault_of_a_row(tmp_path: Path) -> None:
    table = Table(
        "t", MetaData(), Column("id", Integer, primary_key=True), Column("b", LargeBinary)
    )
    source = create_engine("sqlite://")
    try:
        with source.connect() as there:
            table.create(there)
            there.execute(table.insert(), [{"id": 1, "b": bytes(100_000)}])
            with (
                pytest.raises(StorageFull, match="disk is full"),
                moving._filling(tmp_path / "file") as target,
            ):
                table.create(target)
                target.exec_driver_sql("PRAGMA max_page_count=10")
                moving._Mover(there, target, table).move(lambda text: None)
    finally:
        source.dispose()


def test_a_connection_that_is_lost_on_the_way_is_said() -> None:
    lost = OperationalError("SELECT", {}, Exception("server closed the connection unexpectedly"))
    with pytest.raises(Unreachable, match="closed the connection"), moving._connected("sqlite://"):
        raise lost
