"""A registry with one sweep of very many finished trials, made without running them."""

from __future__ import annotations

import asyncio
import random
import threading
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState, create_trial
from sqlalchemy import Table
from sqlmodel import Session

from agents.controller.stores.database import Database
from agents.controller.sweeps.studystorage import open_storage
from jobs.store import sweepwriting
from jobs.store.sweeptables import SweepTrialRow
from jobs.store.tables import JobRow
from jobs.store.writing import Caller
from jobs.sweeps.spec import SweepSpec

NAME = "s1-big"


def spec(trials: int) -> SweepSpec:
    return SweepSpec.from_json(
        {
            "name": "big",
            "job": {"command": "true"},
            "space": {"x": {"low": 0.0, "high": 1.0}, "y": {"low": 0.0, "high": 1.0}},
            "objective": {"metric": "loss", "goal": "minimize"},
            "trials": trials,
            "parallel": 4,
            "seed": 3,
        }
    )


def make(folder: Path, trials: int) -> str:
    """Write `state.db` into a state folder; gives its URL. The sweep is paused."""
    url = f"sqlite:///{folder / 'state.db'}"
    drawn = random.Random(7)
    points = [{"x": drawn.random(), "y": drawn.random()} for _ in range(trials)]
    asyncio.run(_registry(url, points))
    _study(url, points)
    return url


async def _registry(url: str, points: list[dict[str, float]]) -> None:
    asked_for = spec(len(points) + 100)

    def write(session: Session) -> None:
        row, _ = sweepwriting.create(
            session, asked_for, Caller("bench", 0), 1.7e9, key=None, snapshot=None, git=None
        )
        row.state, row.paused_at = "PAUSED", 1.7e9
        session.add(row)
        session.flush()
        _insert(session, JobRow, [_job(asked_for, n, point) for n, point in enumerate(points)])
        _insert(session, SweepTrialRow, [_trial(n, point) for n, point in enumerate(points)])

    database = Database.open(url)
    await database.write(write)
    database.close()


def _insert(session: Session, model: Any, rows: list[Any]) -> None:
    table: Table = model.__table__
    names = [column.name for column in table.columns]
    session.execute(table.insert(), [{name: getattr(row, name) for name in names} for row in rows])


def _job(asked_for: SweepSpec, number: int, point: dict[str, float]) -> JobRow:
    job = asked_for.job_of("s1", number, {**point})
    return JobRow(
        id=number + 1,
        name=job.name,
        user="bench",
        uid=0,
        key=f"sweep:s1:{number}:0",
        kind=job.kind,
        state="SUCCEEDED",
        priority=job.priority,
        nodes=1,
        ranks=1,
        gpus=0.0,
        cpus=1.0,
        spec=job.to_json(),
        tags=dict(job.tags),
        submitted_at=1.7e9 + number,
        started_at=1.7e9 + number,
        ended_at=1.7e9 + number + 1,
        attempts=1,
        placed_on=["n1"],
        objective={"value": _loss(point), "step": 0, "at": 1.7e9 + number},
    )


def _trial(number: int, point: dict[str, float]) -> SweepTrialRow:
    return SweepTrialRow(
        sweep_id=1,
        number=number,
        params=point,
        state="COMPLETE",
        job_id=number + 1,
        values=[_loss(point)],
        value=_loss(point),
        asked_at=1.7e9 + number,
        started_at=1.7e9 + number,
        ended_at=1.7e9 + number + 1,
    )


def _loss(point: dict[str, float]) -> float:
    return (point["x"] - 0.3) ** 2 + point["y"]


def _study(url: str, points: list[dict[str, float]]) -> None:
    storage = open_storage(url, threading.Lock())
    study = optuna.create_study(study_name=NAME, storage=storage)
    at, unit = datetime(2026, 1, 1), FloatDistribution(0.0, 1.0)  # noqa: DTZ001 - as Optuna's
    with storage.together():
        for point in points:
            trial = create_trial(
                state=TrialState.COMPLETE,
                value=_loss(point),
                params=point,
                distributions=dict.fromkeys(point, unit),
                intermediate_values={0: _loss(point)},
            )
            trial.datetime_start = trial.datetime_complete = at
            study.add_trial(trial)
    storage.close()
