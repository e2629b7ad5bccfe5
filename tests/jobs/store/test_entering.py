"""Jobs that enter together are as they would be had each come alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import create_engine
from sqlalchemy import text as sql
from sqlalchemy.pool import StaticPool
from sqlmodel import Session, col, select

from jobs.store import audit, migrations, reading, writing
from jobs.store.entering import Entry, Submission, create_job, enter_jobs
from jobs.store.loading import new_job
from jobs.store.tables import AuditRow, EventRow, SnapshotRow
from jobs.store.writing import Caller

ANN, BOB = Caller("ann", 1000), Caller("bob", 1001)


@pytest.fixture
def session() -> Iterator[Session]:
    engine = create_engine("sqlite://", poolclass=StaticPool)
    with engine.begin() as connection:
        migrations.upgrade(connection)
    with Session(engine) as opened:
        yield opened
    engine.dispose()


def entry(key: str | None = None, who: Caller = ANN, at: float = 1.0, **fields: Any) -> Entry:
    values: dict[str, Any] = {
        "name": key or "job", "kind": "gang", "spec": {"command": "true", "max_restarts": 2},
        "nodes": 1, "ranks": 1, "gpus": 0.0, "cpus": 1.0, "priority": 50, "max_restarts": 2,
    }  # fmt: skip
    sizes = fields.pop("snapshot_size", None)
    return Entry(Submission(**(values | fields), key=key), who, at, sizes)


def test_each_gets_its_own_number_event_and_link_of_the_chain(session: Session) -> None:
    entered = enter_jobs(session, [entry(f"k{n}", at=float(n)) for n in range(300)])
    assert [one.number for one in entered] == list(range(1, 301))
    for n, one in enumerate(entered):
        assert one.row is not None
        assert (one.row.key, one.row.submitted_at) == (f"k{n}", float(n))
        assert [(told["job"], told["kind"]) for told in one.events] == [
            (f"j{one.number}", "job.submitted")
        ]
    stored = session.exec(select(EventRow).order_by(col(EventRow.id))).all()
    assert [row.job_id for row in stored] == list(range(1, 301))
    acts = session.exec(select(AuditRow).order_by(col(AuditRow.id))).all()
    assert [row.target for row in acts] == [f"j{n}" for n in range(1, 301)]
    assert audit.verify(acts) is None
    revisions = [reading.get_job(session, n).revision for n in range(1, 301)]
    assert revisions == list(range(revisions[0], revisions[0] + 300))
    assert writing.next_revision(session) == revisions[-1] + 1


def test_together_or_alone_the_rows_are_the_same(session: Session) -> None:
    (one,) = enter_jobs(session, [entry("a", git={"commit": "c0ffee"})])
    two, three = enter_jobs(session, [entry("b"), entry("c", git={"commit": "c0ffee"})])
    assert one.row is not None and two.row is not None and three.row is not None
    for row in (one.row, two.row, three.row):
        stored = reading.get_job(session, row.id)
        assert reading.job_view(row) == reading.job_view(stored)
        assert new_job(row) == new_job(stored)
    one_, three_ = reading.job_view(one.row), reading.job_view(three.row)
    assert {**one_, "id": "", "name": "", "revision": 0} == {
        **three_, "id": "", "name": "", "revision": 0
    }  # fmt: skip
    nothing = sql("SELECT id FROM jobs WHERE git IS NULL")
    assert session.connection().execute(nothing).scalars().all() == [two.number]


def test_a_key_names_one_job_of_one_caller(session: Session) -> None:
    first, _ = create_job(session, entry("again").submission, ANN, 1.0)
    entered = enter_jobs(
        session,
        [
            entry("again"),  # known since before,
            entry("new"),
            entry("new"),  # or for a moment only
            entry("new", BOB),
            entry(None),
            entry(None),  # without a key each is another job
        ],
    )
    numbers = [one.number for one in entered]
    assert numbers[0] == first
    assert numbers[1] == numbers[2]
    assert len(set(numbers)) == 5
    assert [one.created for one in entered] == [False, True, False, True, True, True]
    assert all(not one.events for one in entered if not one.created)
    assert create_job(session, entry("new").submission, ANN, 9.0) == (numbers[1], False)


def test_nothing_is_written_where_all_are_known(session: Session) -> None:
    enter_jobs(session, [entry("a")])
    before = writing.next_revision(session)
    (known,) = enter_jobs(session, [entry("a")])
    assert not known.created
    assert writing.next_revision(session) == before + 1
    assert enter_jobs(session, []) == []


def test_a_snapshot_is_noted_once(session: Session) -> None:
    both: dict[str, Any] = {"snapshot": "sha256:1", "snapshot_size": (3, 99)}
    enter_jobs(session, [entry("a", **both), entry("b", **both)])
    enter_jobs(session, [entry("c", **both), entry("d")])
    rows = session.exec(select(SnapshotRow)).all()
    assert [(row.digest, row.files, row.size) for row in rows] == [("sha256:1", 3, 99)]
