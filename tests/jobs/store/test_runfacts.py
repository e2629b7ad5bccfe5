"""Parameters and tags in the lines of a metrics file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine
from sqlmodel import Session

from jobs.store import migrations, runfacts
from jobs.store.runfacts import Fact, number_of, save, split
from jobs.store.tables import JobRow


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    engine = create_engine(f"sqlite:///{tmp_path / 'r.db'}")
    with engine.begin() as connection:
        migrations.upgrade(connection)
    with Session(engine) as made:
        job = {"name": "x", "user": "u", "uid": 1, "kind": "gang", "state": "RUNNING", "spec": {}}
        shape = {"priority": 0, "nodes": 1, "ranks": 1, "gpus": 0, "cpus": 1, "submitted_at": 0.0}
        made.add(JobRow(id=1, **job, **shape))  # type: ignore[arg-type]
        made.flush()
        yield made
    engine.dispose()


def params(session: Session) -> dict[str, object]:
    return runfacts.of_jobs(session, [1]).get(1, {}).get("param", {})


def test_facts_are_taken_from_between_points() -> None:
    point = b'{"n":"a","s":0,"v":1,"t":1}\n'
    assert split(point) == (point, [])
    odd = b'{"f":"param","k":"a","x":"1"\n{"f":"param"}\n{"f":[],"k":"a","x":"1"}\n'
    data = b'{"f":"param","k":"a\\u001bb","x":1.5}\n' + point + odd + point
    assert split(data) == (point * 2, [Fact("param", "a\ufffdb", "1.5")])


@pytest.mark.parametrize(
    ("text", "number"),
    [("1", 1.0), ("-1e-3", -0.001), (".5", 0.5), ("1e999", None), ("nan", None), ("1_0", None),
     ("0x10", None), ("1" * 41, None), (" 1", None), ("True", None), ("", None)],
)  # fmt: skip
def test_what_is_a_number(text: str, number: float | None) -> None:
    assert number_of(text) == number


def test_the_lowest_rank_has_its_say(session: Session) -> None:
    save(session, 1, 1, [Fact("param", "rank", "1"), Fact("param", "only", "x")])
    save(session, 1, 0, [Fact("param", "rank", "0")])
    save(session, 1, 2, [Fact("param", "rank", "2"), Fact("param", "only", None)])
    assert params(session) == {"rank": 0, "only": "x"}
    save(session, 1, 0, [Fact("param", "rank", "7")])  # a later attempt
    assert params(session)["rank"] == 7


def test_a_job_has_so_many_of_them(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runfacts, "MAX_FACTS", 3)
    save(session, 1, 0, [Fact("param", f"p{number}", "1") for number in range(5)])
    save(session, 1, 0, [Fact("param", "q", "1")])
    assert list(params(session)) == ["p0", "p1", "p2"]
