"""The registry's contract, over SQLite and PostgreSQL alike."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import Session, col, func, select

from agents.controller.stores.database import Database
from jobs.life import lifecycle
from jobs.life.lifecycle import Granted, Placed, Reported, Staged
from jobs.store import audit, entering, metricpoints, reading, writing
from jobs.store.entering import Submission
from jobs.store.tables import ArtifactRow, AuditRow, JobRow
from jobs.store.writing import Caller
from jobs.wire.views import JobPage
from tests.agents.controller.registries import make_empty

ANN, BOB = Caller("ann", 1001), Caller("bob", 1002)


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def db(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """An empty registry."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'state.db'}"
    else:
        url = request.getfixturevalue("postgres")
        make_empty(url)
    database = Database.open(url)
    yield database
    database.close()


def submission(**fields: Any) -> Submission:
    values: dict[str, Any] = {
        "name": "digits", "kind": "gang", "spec": {"command": "true"}, "nodes": 1, "ranks": 2,
        "gpus": 0.5, "cpus": 2.0, "priority": 50, "max_restarts": 1, "tags": {"team": "ü"},
    }  # fmt: skip
    return Submission(**(values | fields))


async def create(db: Database, who: Caller = ANN, **fields: Any) -> tuple[int, bool]:
    return await db.write(lambda s: entering.create_job(s, submission(**fields), who, 100.25))


async def story(db: Database, job: int, *events: Callable[[int], Any]) -> int:
    """Place the job and let events happen to it; they are made of its epoch, which is returned."""

    def write(session: Session) -> int:
        before = writing.load_job(session, reading.get_job(session, job))
        epoch = writing.new_epoch(session, job, before.attempts + 1, 101.0)
        for event in (Placed(("n1",), epoch), *(make(epoch) for make in events)):
            result = lifecycle.handle(before, event, 102.0)
            writing.save(session, before, result, event, 102.0)
            before = result.job
        return epoch

    return await db.write(write)


def report(ranks: int = 2, exit_codes: tuple[int | None, ...] = (None, None)) -> Any:
    return {
        "key": "k", "epoch": 1, "state": "running", "gpus": [],
        "ranks": [
            {"rank": n, "local_rank": n, "pid": 10 + n, "exit_code": exit_codes[n], "signal": None}
            for n in range(ranks)
        ],
    }  # fmt: skip


async def test_a_job_comes_back_as_it_was_created(db: Database) -> None:
    number, created = await create(db, key="k")
    assert created
    view = await db.read(lambda s: reading.job_view(reading.get_job(s, number)))
    assert (view["id"], view["state"], view["user"]) == (f"j{number}", "QUEUED", "ann")
    assert (view["gpus"], view["tags"]) == (0.5, {"team": "ü"})
    assert view["submitted_at"] == "1970-01-01T00:01:40.250Z"
    (event,) = await db.read(lambda s: reading.events(s, 0, 10))
    assert (event["kind"], event["job"]) == ("job.submitted", f"j{number}")


async def test_a_key_is_one_job_for_each_caller(db: Database) -> None:
    first, _ = await create(db, key="k")
    assert await create(db, key="k", name="other") == (first, False)
    assert (await create(db, BOB, key="k"))[1]
    assert (await create(db))[1]
    assert (await create(db))[1]
    assert (await db.read(lambda s: reading.jobs_page(s, reading.JobFilter())))["total"] == 4


async def _page(db: Database, **wanted: Any) -> JobPage:
    return await db.read(lambda session: reading.jobs_page(session, reading.JobFilter(**wanted)))


async def test_pages_hold_every_job_once(db: Database) -> None:
    numbers = [(await create(db, ANN if n % 2 else BOB, name=f"job-{n}"))[0] for n in range(25)]
    seen: list[str] = []
    before: int | None = None
    while True:
        page = await _page(db, before=before, limit=10)
        assert page["total"] == 25
        seen += [job["id"] for job in page["jobs"]]
        if page["next"] is None:
            break
        before = int(page["next"][1:])
    assert seen == [f"j{number}" for number in reversed(numbers)]
    page = await _page(db, user="bob")
    assert page["total"] == 13
    page = await _page(db, text="JOB-7")
    assert [job["name"] for job in page["jobs"]] == ["job-7"]
    page = await _page(db, states=["active"])
    assert page["total"] == 25


async def test_what_the_lifecycle_decides_is_stored_and_loaded(db: Database) -> None:
    number, _ = await create(db)
    epoch = await story(db, number)
    job = await db.read(lambda s: writing.load_job(s, reading.get_job(s, number)))
    assert job.state == "PLACING"
    assert job.attempt is not None
    assert (job.attempt.epoch, job.attempt.number) == (epoch, 1)
    assert [one.node for one in job.attempt.allocations] == ["n1"]
    unfinished = await db.read(lambda s: [loaded for _, loaded in writing.load_unfinished(s)])
    assert unfinished == [job]


async def test_a_failure_keeps_its_rank_and_its_code(db: Database) -> None:
    number, _ = await create(db, max_restarts=0, spec={"command": "x", "max_restarts": 0})

    def ended(epoch: int) -> Reported:
        return Reported(
            epoch=epoch, node="n1", phase="ended", outcome="failed", reason="exit code 7",
            first_failed=1, first_failed_at=1.5,
        )  # fmt: skip

    epoch = await story(db, number, lambda _: Granted(), lambda epoch: Staged(epoch, "n1"))
    # A rank's own code is known before the job ends by it.
    await db.write(lambda s: writing.save_ranks(s, epoch, "n1", report(exit_codes=(None, 7))))

    def end(session: Session) -> None:
        before = writing.load_job(session, reading.get_job(session, number))
        event = ended(epoch)
        writing.save(session, before, lifecycle.handle(before, event, 103.0), event, 103.0)

    await db.write(end)
    detail = await db.read(lambda s: reading.job_detail(s, number, {}))
    assert (detail["state"], detail["exit_code"]) == ("FAILED", 7)
    failure = detail["attempts"][0]["first_failure"]
    assert failure is not None
    assert (failure["rank"], failure["node"], failure["exit_code"]) == (1, "n1", 7)


def points(*steps: int) -> bytes:
    return b"".join(
        json.dumps({"n": "loss", "s": step, "t": 1.0, "v": 1 / (step + 1)}).encode() + b"\n"
        for step in steps
    )


async def test_metrics_are_stored_exactly_once(db: Database) -> None:
    number, _ = await create(db)
    epoch = await story(db, number)
    await db.write(lambda s: writing.save_ranks(s, epoch, "n1", report()))
    data = points(0, 1, 2, 3)
    half = len(points(0, 1))

    async def ingest(offset: int, chunk: bytes) -> int:
        stored = await db.write(lambda s: metricpoints.ingest_metrics(s, epoch, 0, offset, chunk))
        return sum(map(len, stored.points.values()))

    assert await ingest(0, data[:half]) == 2
    assert await ingest(0, data[:half]) == 0, "the same chunk again"
    assert await ingest(half + 1, b"x") == 0, "a gap"
    assert await ingest(0, data) == 2, "only what is new of it"
    assert await ingest(0, data) == 0

    def stored(session: Session) -> tuple[int, dict[str, Any]]:
        count = len(metricpoints.series(session, epoch, [])["loss"])
        return count, dict(reading.latest_metrics(session, epoch))

    count, latest = await db.read(stored)
    assert count == 4
    assert (latest["loss"]["step"], latest["loss"]["value"]) == (3, 0.25)
    found, after = await db.read(lambda s: metricpoints.metric_points(s, epoch, [], 0, 3))
    assert [point["step"] for point in found] == [0, 1, 2]
    rest, _ = await db.read(lambda s: metricpoints.metric_points(s, epoch, [], after, 3))
    assert [point["step"] for point in rest] == [3]


async def test_metrics_of_a_job_are_those_of_the_lowest_rank_that_logs_them(db: Database) -> None:
    """Of ranks, and of processes that a launcher inside of one has started."""
    objective = {"metric": "loss", "goal": "minimize"}
    number, _ = await create(db, spec={"command": "true", "objective": objective})
    epoch = await story(db, number)
    await db.write(lambda s: writing.save_ranks(s, epoch, "n1", report()))

    async def ingest(rank: int, at: int, data: bytes) -> float | None:
        def write(session: Session) -> float | None:
            stored = metricpoints.ingest_metrics(session, epoch, rank, at, data)
            metricpoints.note_objective(session, number, epoch, stored.points)
            shown = reading.job_view(reading.get_job(session, number))["objective"]
            return shown and shown["value"]

        return await db.write(write)

    assert await ingest(1, 0, points(1)) == 1 / 2
    mine = points(3)
    child = points(9).replace(b"}", b', "c": 1}')
    assert await ingest(0, 0, child + mine + child) == 1 / 4
    assert await ingest(0, len(child + mine + child), child) == 1 / 4
    assert await ingest(1, len(points(1)), points(5)) == 1 / 4
    lines = await db.read(lambda s: metricpoints.series(s, epoch, []))
    assert [point["step"] for point in lines["loss"]] == [3]
    every, _ = await db.read(lambda s: metricpoints.metric_points(s, epoch, [], 0, 99))
    assert sorted((p["rank"], p["step"]) for p in every) == [
        (0, 3), (1, 1), (1, 5), (1, 9), (1, 9), (1, 9),
    ]  # fmt: skip


async def test_infinite_values_are_stored(db: Database) -> None:
    objective = {"metric": "loss", "goal": "minimize"}
    number, _ = await create(db, spec={"command": "true", "objective": objective})
    epoch = await story(db, number)
    await db.write(lambda s: writing.save_ranks(s, epoch, "n1", report()))
    data = b'{"n":"loss","s":0,"t":1,"v":null,"x":"-Infinity"}\n{"n":"loss","s":1,"t":1,"v":Infinity}\n'

    def write(session: Session) -> None:
        stored = metricpoints.ingest_metrics(session, epoch, 0, 0, data)
        metricpoints.note_objective(session, number, epoch, stored.points)

    await db.write(write)

    def read(session: Session) -> list[Any]:
        shown = reading.job_view(reading.get_job(session, number))["objective"]
        line = metricpoints.series(session, epoch, [])["loss"]
        latest = reading.latest_metrics(session, epoch)["loss"]["value"]
        return [shown and shown["value"], latest, [point["value"] for point in line]]

    assert await db.read(read) == [math.inf, math.inf, [-math.inf, math.inf]]


async def test_lines_that_are_no_points_stop_nothing(db: Database) -> None:
    number, _ = await create(db)
    epoch = await story(db, number)
    await db.write(lambda s: writing.save_ranks(s, epoch, "n1", report()))
    odd = [
        b"junk", b"\xff\xfe", b"[]", b"[" * 5000, b'{"n":"s","s":%d,"t":1,"v":1}' % 2**70,
        b'{"n":"\\ud800","s":1,"t":1,"v":1}', b'{"n":"t","s":1,"t":Infinity,"v":1}',
    ]  # fmt: skip
    kept = [b'{"n":"nul\\u0000","s":1,"t":1,"v":2}', b'{"n":"v","s":1,"t":1,"v":NaN}']
    data = b"\n".join([*odd, *kept, points(5)])
    found = await db.write(lambda s: metricpoints.ingest_metrics(s, epoch, 0, 0, data))
    assert [(point.name, point.value) for point in found.points[0]] == [
        ("nul\ufffd", 2.0), ("v", None), ("loss", 1 / 6),
    ]  # fmt: skip
    again = await db.write(lambda s: metricpoints.ingest_metrics(s, epoch, 0, 0, data))
    assert (list(again.points), again.offset) == ([], len(data))


def _artifact(epoch: int, job: int, size: int) -> ArtifactRow:
    return ArtifactRow(
        attempt_id=epoch, name="m", job_id=job, path="m", digest="sha256:a", size=size
    )


async def test_an_artifact_that_is_told_twice_is_one(db: Database) -> None:
    number, _ = await create(db)
    epoch = await story(db, number)
    await db.write(lambda s: writing.save_artifact(s, _artifact(epoch, number, 1)))
    await db.write(lambda s: writing.save_artifact(s, _artifact(epoch, number, 5_000_000_000)))
    detail = await db.read(lambda s: reading.job_detail(s, number, {}))
    assert [artifact["size"] for artifact in detail["artifacts"]] == [5_000_000_000]


async def test_every_submission_is_in_the_audit_chain(db: Database) -> None:
    for _ in range(3):
        await create(db)

    def rows(session: Session) -> list[AuditRow]:
        return list(session.exec(select(AuditRow).order_by(col(AuditRow.id))).all())

    found = await db.read(rows)
    assert len(found) == 3
    assert audit.verify(found) is None


async def test_a_write_that_fails_leaves_no_trace(db: Database) -> None:
    def write(session: Session) -> None:
        entering.create_job(session, submission(), ANN, 1.0)
        raise KeyError("in the middle")

    with pytest.raises(KeyError):
        await db.write(write)
    assert await db.read(lambda s: s.exec(select(func.count()).select_from(JobRow)).one()) == 0
    assert await db.read(lambda s: reading.events(s, 0, 10)) == []


async def test_revisions_grow(db: Database) -> None:
    numbers = [await db.write(writing.next_revision) for _ in range(3)]
    assert numbers == sorted(set(numbers))
