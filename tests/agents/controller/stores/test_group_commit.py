"""Writes that share a transaction: each stands or falls alone, and none is told before it is kept."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event
from sqlmodel import Session, col, select

from agents.controller.stores.database import Database
from jobs.base.errors import NotFound
from jobs.store.tables import MetaRow


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    database = Database.open(f"sqlite:///{tmp_path / 'r.db'}")
    yield database
    database.close()


def put(name: str, value: str = "x") -> Any:
    def write(session: Session) -> str:
        session.add(MetaRow(name=name, value=value))
        session.flush()
        return name

    return write


def names(session: Session) -> list[str]:
    return list(session.exec(select(MetaRow.name).order_by(col(MetaRow.name))).all())


async def test_one_that_fails_leaves_the_others_standing(db: Database) -> None:
    def broken(session: Session) -> None:
        session.add(MetaRow(name="half", value="done"))
        session.flush()
        raise NotFound("no such thing")

    results = await asyncio.gather(
        db.write(put("a")), db.write(broken), db.write(put("a")), db.write(put("b")),
        return_exceptions=True,
    )  # fmt: skip
    assert results[0] == "a"
    assert isinstance(results[1], NotFound)
    assert isinstance(results[2], Exception)  # the same primary key again
    assert results[3] == "b"
    assert await db.read(names) == ["a", "b"]


async def test_many_writes_share_few_transactions(db: Database) -> None:
    commits: list[int] = []
    event.listen(db._writer, "commit", lambda _: commits.append(1))
    await asyncio.gather(*(db.write(put(f"n{number:03}")) for number in range(100)))
    assert len(await db.read(names)) == 100
    assert len(commits) < 20


async def test_a_failing_commit_fails_every_write_of_it(db: Database) -> None:
    def refuse(_: Any) -> None:
        raise OSError("the disk is gone")

    event.listen(db._writer, "commit", refuse)
    results = await asyncio.gather(db.write(put("a")), db.write(put("b")), return_exceptions=True)
    event.remove(db._writer, "commit", refuse)
    assert all(isinstance(result, OSError) for result in results)
    assert await db.read(names) == []
    assert await db.write(put("c")) == "c"  # and it goes on


async def test_a_caller_that_leaves_does_not_undo_its_write(db: Database) -> None:
    writing = asyncio.create_task(db.write(put("a")))
    await asyncio.sleep(0)
    writing.cancel()
    await db.write(put("b"))
    assert await db.read(names) == ["a", "b"]


# -- writes that share a call ---------------------------------------------------------------------


class Taker:
    """Puts names, and remembers how many came at once."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []

    def take(self, session: Session, items: list[str]) -> list[str]:
        self.calls.append(items)
        for item in items:
            session.add(MetaRow(name=item, value="x"))
            session.flush()
            if item.startswith("bad"):
                raise NotFound(item)
        return [f"put {item}" for item in items]


async def test_items_that_wait_together_share_a_call(db: Database) -> None:
    taker = Taker()
    wanted = [f"n{number:03}" for number in range(50)]
    told = await asyncio.gather(*(db.write_each(taker.take, name) for name in wanted))
    assert told == [f"put {name}" for name in wanted]
    assert [name for call in taker.calls for name in call] == wanted
    assert len(taker.calls) <= 2
    assert await db.read(names) == wanted


async def test_an_item_that_fails_takes_no_other_with_it(db: Database) -> None:
    taker = Taker()
    told = await asyncio.gather(
        db.write(put("first")),
        *(db.write_each(taker.take, name) for name in ("a", "bad", "b")),
        db.write(put("last")),
        return_exceptions=True,
    )
    assert [told[0], told[1], told[3], told[4]] == ["first", "put a", "put b", "last"]
    assert isinstance(told[2], NotFound)
    assert taker.calls[-3:] == [["a"], ["bad"], ["b"]]  # alone, once they had failed together
    assert await db.read(names) == ["a", "b", "first", "last"]


async def test_one_item_that_fails_alone_leaves_nothing(db: Database) -> None:
    taker = Taker()
    with pytest.raises(NotFound):
        await db.write_each(taker.take, "bad")
    assert taker.calls == [["bad"]]
    assert await db.read(names) == []


async def test_a_database_that_fails_takes_all_items_back(db: Database) -> None:
    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    taker = Taker()
    event.listen(db._writer, "commit", full)
    told = await asyncio.gather(
        *(db.write_each(taker.take, name) for name in "abc"), return_exceptions=True
    )
    assert not any(isinstance(answer, str) for answer in told), "nothing was acknowledged"
    event.remove(db._writer, "commit", full)
    assert await db.read(names) == []
    assert await db.write_each(taker.take, "a") == "put a"
