"""Parameters and tags that a job's program logs, beside those that it was submitted with.

They come as lines of a rank's metrics file, between points, so they are stored with its offset in one
transaction, exactly once. As in `jobs/store/writing.py`, functions take an open Session and never commit.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Table, func, text
from sqlmodel import Session, col, select

from jobs.store.tables import RunFactRow

MAX_FACTS = 4000
"""Of one job."""
MAX_NAME, MAX_VALUE = 400, 8000
"""Characters that are kept."""

_MARK = b'{"f":'
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
_FACTS: Table = RunFactRow.__table__  # type: ignore[attr-defined]
_PUT = text(
    "INSERT INTO run_facts (job_id, kind, name, rank, value, number)"
    " VALUES (:job, :kind, :name, :rank, :value, :number)"
    " ON CONFLICT (job_id, kind, name)"
    " DO UPDATE SET rank = excluded.rank, value = excluded.value, number = excluded.number"
    " WHERE excluded.rank <= run_facts.rank"
)


@dataclass(frozen=True, slots=True)
class Fact:
    kind: str  # "param" or "tag"
    name: str
    value: str | None  # None: it is removed


def split(data: bytes) -> tuple[bytes, list[Fact]]:
    """Whole lines of a metrics file without those that are facts, and the facts."""
    if _MARK not in data:
        return data, []
    points, facts = [], []
    for line in data.splitlines(keepends=True):
        if line.startswith(_MARK):
            facts += _parsed(line)
        else:
            points.append(line)
    return b"".join(points), facts


def _parsed(line: bytes) -> list[Fact]:
    """A fact, or none: a rank may have written anything."""
    try:
        item = json.loads(line)
        kind, name, value = item["f"], item["k"], item["x"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return []
    if kind not in ("param", "tag") or not isinstance(name, str) or not name:
        return []
    if value is not None:
        value = _kept(str(value), MAX_VALUE)
    return [Fact(kind, _printable(_kept(name, MAX_NAME)), value)]


def _kept(words: str, limit: int) -> str:
    """What every database stores: no NUL, no half of a surrogate pair."""
    return words[:limit].replace("\0", "\ufffd").encode("utf-8", "replace").decode()


def _printable(name: str) -> str:
    return "".join(char if char.isprintable() else "\ufffd" for char in name)


def number_of(value: str) -> float | None:
    """The number that a value is, if it is one."""
    if len(value) > 40 or not _NUMBER.fullmatch(value):
        return None
    number = float(value)
    return number if math.isfinite(number) else None


def save(session: Session, job: int, rank: int, facts: Sequence[Fact]) -> None:
    """Store what a rank logged. The lowest rank that logs a name has its value; above `MAX_FACTS` nothing is
    kept."""
    if not facts:
        return
    connection = session.connection()
    known = select(func.count()).select_from(RunFactRow).where(col(RunFactRow.job_id) == job)
    room = max(0, MAX_FACTS - session.exec(known).one())
    for fact in facts[: max(room, 0)]:
        if fact.value is None:
            mine = (_FACTS.c.job_id == job, _FACTS.c.kind == fact.kind, _FACTS.c.name == fact.name)
            connection.execute(_FACTS.delete().where(*mine, _FACTS.c.rank == rank))
            continue
        values = {"job": job, "kind": fact.kind, "name": fact.name, "rank": rank}
        values |= {"value": fact.value, "number": number_of(fact.value)}
        connection.execute(_PUT, values)


def of_jobs(session: Session, jobs: Iterable[int]) -> dict[int, dict[str, dict[str, Any]]]:
    """What jobs logged: job -> kind -> name -> value. Parameters that are numbers are numbers."""
    found: dict[int, dict[str, dict[str, Any]]] = {}
    query = select(RunFactRow).where(col(RunFactRow.job_id).in_(list(jobs)))
    for row in session.exec(query.order_by(col(RunFactRow.name))).all():
        value: Any = row.value
        if row.kind == "param" and row.number is not None:
            value = int(row.value) if row.value.lstrip("-+").isdecimal() else row.number
        found.setdefault(row.job_id, {}).setdefault(row.kind, {})[row.name] = value
    return found
