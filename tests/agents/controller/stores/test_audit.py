"""The audit log's chain: what was done to it shows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from sqlalchemy import text
from sqlmodel import Session, SQLModel, col, create_engine, select

from jobs.store import audit
from jobs.store.tables import AuditRow


@dataclass(frozen=True)
class Chain:
    session: Session

    def rows(self) -> list[AuditRow]:
        self.session.expire_all()
        return list(self.session.exec(select(AuditRow).order_by(col(AuditRow.id))).all())

    def add(self, action: str) -> None:
        audit.append(
            self.session,
            at=1.5,
            user="ann",
            uid=7,
            action=action,
            target="j1",
            data={"ü": [1, None]},
        )

    def tamper(self, statement: str) -> int | None:
        self.session.connection().execute(text(statement))
        return audit.verify(self.rows())


@pytest.fixture
def chain() -> Iterator[Chain]:
    engine = create_engine("sqlite://")
    SQLModel.metadata.create_all(engine)
    with Session(engine) as session:
        chain = Chain(session)
        for action in ("submit", "cancel", "retry"):
            chain.add(action)
        yield chain
    engine.dispose()


def test_an_untouched_log_is_whole(chain: Chain) -> None:
    assert audit.verify(chain.rows()) is None
    assert audit.verify([]) is None
    assert chain.rows()[0].previous == audit.GENESIS


@pytest.mark.parametrize(
    "change",
    ["user = 'bob'", "uid = 8", "at = 1.25", "action = 'x'", "target = 'j2'", "data = '{}'"],
)
def test_a_changed_row_is_named(chain: Chain, change: str) -> None:
    assert chain.tamper(f"UPDATE audit SET {change} WHERE id = 2") == 2


def test_a_row_that_was_removed_shows_at_the_next(chain: Chain) -> None:
    assert chain.tamper("DELETE FROM audit WHERE id = 2") == 3
    assert chain.tamper("DELETE FROM audit WHERE id = 1") == 3


def test_a_row_whose_hash_was_made_to_fit_shows_at_the_next(chain: Chain) -> None:
    second = chain.rows()[1]
    forged = audit._digest(second.previous, 1.5, "bob", 7, "cancel", "j1", second.data)
    assert chain.tamper(f"UPDATE audit SET user = 'bob', hash = '{forged}' WHERE id = 2") == 3


def test_a_row_that_names_another_predecessor_is_named(chain: Chain) -> None:
    assert chain.tamper(f"UPDATE audit SET previous = '{audit.GENESIS}' WHERE id = 2") == 2


def test_the_loss_of_the_newest_rows_does_not_show(chain: Chain) -> None:
    """Which is why its last hash is written down elsewhere."""
    heads = [(row.id or 0, row.hash) for row in chain.rows()[1:]]
    assert audit.verify_all(chain.session, heads).broken_at is None
    assert chain.tamper("DELETE FROM audit WHERE id = 3") is None
    found = audit.verify_all(chain.session, heads)
    assert (found.rows, found.broken_at) == (2, 3)
    chain.add("after")
    assert audit.verify_all(chain.session, heads).broken_at == 3
    now = [*heads, (3, chain.rows()[-1].hash)]
    assert audit.verify_all(chain.session, now).broken_at == 3, "both were the newest once"


def test_a_chain_that_was_written_anew_is_not_the_one_of_its_checkpoints(chain: Chain) -> None:
    noted = [(row.id or 0, row.hash) for row in chain.rows()]
    chain.session.connection().execute(text("DELETE FROM audit"))
    for action in ("submit", "nothing", "retry", "more"):
        chain.add(action)
    assert audit.verify(chain.rows()) is None
    assert audit.verify_all(chain.session, noted[:1]).broken_at is None
    assert audit.verify_all(chain.session, noted).broken_at == 2
