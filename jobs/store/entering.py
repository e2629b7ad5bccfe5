"""How jobs enter the registry: many at once, since they come by the hundred.

As in `jobs/store/writing.py`, functions take an open Session and never commit. A job, its event and its audit
row land together or not at all, and the statements are as many for a hundred jobs as for one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Row, Table, bindparam
from sqlmodel import Session

from jobs.base import names
from jobs.life.lifecycle import Note
from jobs.store import audit
from jobs.store import writing as registry
from jobs.store.tables import JobRow
from jobs.store.writing import Caller
from jobs.wire.views import EventView

__all__ = ["Entered", "Entry", "Submission", "create_job", "enter_jobs"]


Owner = tuple[int, str]
"""A caller's uid, and the key under which it submitted."""


@dataclass(frozen=True, slots=True)
class Submission:
    """A job as it is asked for; `spec` is a checked spec in JSON form."""

    name: str
    kind: str
    spec: Mapping[str, Any]
    nodes: int
    ranks: int
    gpus: float
    cpus: float
    priority: int
    max_restarts: int
    tags: Mapping[str, str] = field(default_factory=dict)
    key: str | None = None
    snapshot: str | None = None
    git: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """Who asks for a job, and when (unix time). `snapshot_size` is how many files and bytes its
    snapshot has, where that is to be recorded too."""

    submission: Submission
    caller: Caller
    now: float
    snapshot_size: tuple[int, int] | None = None

    @property
    def owner(self) -> Owner | None:
        """What names the job: the same caller with the same key gets the same one."""
        key = self.submission.key
        return None if key is None else (self.caller.uid, key)


@dataclass(frozen=True, slots=True)
class Entered:
    """A job that was asked for. `row` is all columns of the table `jobs`, and `events` what is told
    of it; None and empty when it was known already."""

    number: int
    row: Row[Any] | None = None
    events: Sequence[EventView] = ()

    @property
    def created(self) -> bool:
        return self.row is not None


_JOBS: Table = JobRow.__table__  # type: ignore[attr-defined]
_ADD_JOBS = _JOBS.insert().returning(*_JOBS.c, sort_by_parameter_order=True)
_BY_KEY = (
    _JOBS.select()
    .with_only_columns(_JOBS.c.key, _JOBS.c.id)
    .where(_JOBS.c.uid == bindparam("uid"), _JOBS.c.key.in_(bindparam("keys", expanding=True)))
)


def create_job(
    session: Session, submission: Submission, caller: Caller, now: float
) -> tuple[int, bool]:
    """Insert a job, or find the one that this caller submitted under the same key.

    Returns:
        The job's number, and whether it is new.
    """
    (entered,) = enter_jobs(session, [Entry(submission, caller, now)])
    return entered.number, entered.created


def enter_jobs(session: Session, entries: Sequence[Entry]) -> list[Entered]:
    """Insert jobs, each unless its caller has submitted it under the same key before.

    Returns:
        One for each entry, in their order.
    """
    owners = [entry.owner or place for place, entry in enumerate(entries)]
    numbers = _known(session, [entry.owner for entry in entries if entry.owner])
    fresh: dict[Owner | int, Entry] = {}
    for name, entry in zip(owners, entries, strict=True):
        if name not in numbers:
            fresh.setdefault(name, entry)
    made = dict(zip(fresh, _insert(session, list(fresh.values())), strict=True))
    numbers |= {name: entered.number for name, entered in made.items()}
    return [made.pop(name) if name in made else Entered(numbers[name]) for name in owners]


def _known(session: Session, owners: Sequence[Owner]) -> dict[Owner | int, int]:
    """The numbers of the jobs that there are already."""
    found: dict[Owner | int, int] = {}
    for uid in sorted({uid for uid, _ in owners}):
        keys = [key for one, key in owners if one == uid]
        rows = session.connection().execute(_BY_KEY, {"uid": uid, "keys": keys})
        found |= {(uid, key): number for key, number in rows}
    return found


def _insert(session: Session, entries: Sequence[Entry]) -> list[Entered]:
    if not entries:
        return []
    sizes = {entry.submission.snapshot: (entry.snapshot_size, entry.now) for entry in entries}
    for digest, (size, now) in sizes.items():
        if digest is not None and size is not None:
            registry.save_snapshot(session, digest, *size, now)
    session.flush()
    newest = registry.next_revision(session, len(entries))
    first, number = newest - len(entries) + 1, registry.next_job(session)
    values = [{"id": number + n, **_values(e, first + n)} for n, e in enumerate(entries)]
    rows = session.connection().execute(_ADD_JOBS, values).all()
    notes = [
        registry.event_values(
            row.id, Note("job.submitted", f"submitted by {row.user}", user=row.user), entry.now
        )
        for row, entry in zip(rows, entries, strict=True)
    ]
    events = registry.insert_events(session, notes)
    audit.extend(
        session,
        [
            audit.Act(
                at=entry.now,
                user=row.user,
                uid=row.uid,
                action="job.submit",
                target=f"j{row.id}",
                data={"name": row.name, "snapshot": row.snapshot},
            )
            for row, entry in zip(rows, entries, strict=True)
        ],
    )
    return [Entered(row.id, row, [event]) for row, event in zip(rows, events, strict=True)]


def _values(entry: Entry, revision: int) -> dict[str, Any]:
    submission, caller = entry.submission, entry.caller
    return {
        "name": submission.name,
        "user": caller.user,
        "uid": caller.uid,
        "key": submission.key,
        "kind": submission.kind,
        "state": "QUEUED",
        "reason": "",
        "intent": "run",
        "priority": submission.priority,
        "nodes": submission.nodes,
        "ranks": submission.ranks,
        "gpus": submission.gpus,
        "cpus": submission.cpus,
        "spec": dict(submission.spec),
        "tags": dict(submission.tags),
        "snapshot": submission.snapshot,
        "image": "",
        "git": dict(submission.git) if submission.git else None,
        "submitted_at": entry.now,
        "not_before": 0.0,
        "attempts": 0,
        "restarts_left": submission.max_restarts,
        "losses": 0,
        "placed_on": [],
        "revision": revision,
        "token": names.new_identity(),
    }
