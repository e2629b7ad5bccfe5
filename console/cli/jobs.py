"""`qd jobs`, `qd job`, `qd cancel`, `qd retry`."""

from __future__ import annotations

import time
from difflib import get_close_matches
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from console.cli.details import show_job
from console.cli.format import count, elapsed, seconds
from console.cli.ids import run_path
from console.cli.options import JobId, JobIds, Json
from console.cli.output import Column, emit, narrate, paint_state, say, show
from console.client import Client
from console.text import neutralise
from jobs.base.errors import InvalidInput, QuarterdeckError
from jobs.base.states import JOB_STATES, TERMINAL

if TYPE_CHECKING:
    from jobs.wire.views import JobDetail, JobPage, JobView

_PAGE = 200
"""Jobs asked for at a time when all are wanted."""

_GROUPS = {
    "active": [state for state in JOB_STATES if state not in TERMINAL],
    "finished": [state for state in JOB_STATES if state in TERMINAL],
}
_COLUMNS = [
    Column("ID"),
    Column("NAME", flex=True),
    Column("USER", flex=True),
    Column("STATE", states=True),
    Column("RANKS", right=True),
    Column("GPUS", right=True),
    Column("AGE", right=True),
    Column("RAN", right=True),
    Column("REASON", flex=True),
]


def jobs(
    all_: Annotated[bool, typer.Option("--all", "-a", help="List all jobs.")] = False,
    state: Annotated[
        list[str] | None,
        typer.Option(help="Only jobs in this state, or active, or finished; repeatable."),
    ] = None,
    user: Annotated[str | None, typer.Option(help="Only jobs of this user.")] = None,
    name: Annotated[str | None, typer.Option(help="Only jobs with this name.")] = None,
    query: Annotated[
        str | None, typer.Option("-q", "--query", help="Only jobs with this text.")
    ] = None,
    limit: Annotated[
        int, typer.Option(min=1, max=1000, help="How many finished jobs to show, or jobs per page.")
    ] = 20,
    before: Annotated[
        str | None, typer.Option(metavar="ID", help="The page of jobs older than this one.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List jobs, newest first.

    Shows every job that has not ended and the newest that have. --state, --all and --before list
    jobs in order of submission instead.
    """
    client = Client.from_environment()
    filters: dict[str, Any] = {"user": user, "name": name, "q": query}
    if all_ or state or before:
        filters["state"] = _states(state) if state else None
        rows, older, total = _pages(client, filters, before, None if all_ else limit)
    else:
        rows, older, total = _recent(client, filters, limit)
    if as_json:
        emit(rows)
    elif rows:
        show(_COLUMNS, [_row(job, time.time()) for job in rows])
    elif any(filters.values()) or before:
        narrate("no such jobs")
    else:
        narrate("no jobs yet; try `qd submit -- echo hi`")
    if older is not None:
        narrate(
            f"{len(rows)} of {total} jobs; older ones: the same with --before {older}, "
            "all of them: --all"
        )


def _states(given: list[str]) -> list[str]:
    states: list[str] = []
    for text in given:
        if text.lower() in _GROUPS:
            states += _GROUPS[text.lower()]
        elif text.upper() in JOB_STATES:
            states.append(text.upper())
        else:
            near = get_close_matches(text.upper(), JOB_STATES, n=1)
            hint = f"Did you mean {near[0]}?" if near else f"There are {', '.join(JOB_STATES)}."
            raise InvalidInput(f"--state: there is no state '{text}'", hint)
    return list(dict.fromkeys(states))


def _pages(
    client: Client, filters: dict[str, Any], before: str | None, limit: int | None
) -> tuple[list[JobView], str | None, int]:
    """Jobs in order of age, `limit` of them or all; where the next page begins; how many match."""
    rows: list[JobView] = []
    while True:
        asked = _PAGE if limit is None else min(_PAGE, limit - len(rows))
        page = cast("JobPage", client.get("/v1/jobs", limit=asked, before=before, **filters))
        rows += page["jobs"]
        before = page["next"]
        if before is None or (limit is not None and len(rows) >= limit):
            return rows, before, page["total"]


def _recent(
    client: Client, filters: dict[str, Any], limit: int
) -> tuple[list[JobView], str | None, int]:
    """Every active job and the newest finished ones; the rest as `_pages` says it."""
    active, _, _ = _pages(client, {**filters, "state": _GROUPS["active"]}, None, None)
    finished, older, total = _pages(client, {**filters, "state": _GROUPS["finished"]}, None, limit)
    # A job may end between the two answers: the later one is right.
    rows = {job["id"]: job for job in [*active, *finished]}
    newest = sorted(rows.values(), key=lambda job: int(job["id"][1:]), reverse=True)
    return newest, older, total + len(rows) - len(finished)


def _row(job: JobView, now: float) -> list[str]:
    return [
        job["id"],
        job["name"],
        job["user"],
        job["state"],
        str(job["ranks"]),
        count(job["gpus"]),
        elapsed(job["submitted_at"], None, now),
        elapsed(job["started_at"], job["ended_at"], now),
        job["reason"],
    ]


def job(job: JobId, as_json: Json = False) -> None:
    """Show everything about one job."""
    client = Client.from_environment()
    detail = cast("JobDetail", client.get(run_path(job)))
    if as_json:
        emit(detail)
    else:
        show_job(detail, time.time())


def cancel(
    ids: JobIds,
    grace: Annotated[
        str | None,
        typer.Option(
            metavar="SPAN", help="Time between SIGTERM and SIGKILL, instead of the job's."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Cancel jobs: SIGTERM, then SIGKILL after the grace time.

    A job that has already ended stays as it is. If one cannot be cancelled, the others still are,
    and the exit code is that of the first error.
    """
    client = Client.from_environment()
    body = {} if grace is None else {"grace": seconds(grace, "--grace")}
    views: list[JobView] = []
    failures: list[QuarterdeckError] = []
    for text in ids:
        try:
            views.append(cast("JobView", client.act(run_path(text, "cancel"), body)))
        except QuarterdeckError as error:
            failures.append(error)
            continue
        if not as_json:
            say(f"{views[-1]['id']} {paint_state(views[-1]['state'])}")
    if as_json and views:
        emit(views)
    for failure in failures[1:]:
        narrate(failure.message)
    if failures:
        raise failures[0]


def retry(job: JobId, as_json: Json = False) -> None:
    """Run an ended job again.

    With the same spec and code, as a new attempt of the same job.
    """
    client = Client.from_environment()
    view = cast("JobView", client.post(run_path(job, "retry")))
    if as_json:
        emit(view)
    else:
        say(f"{view['id']} {paint_state(view['state'])} {neutralise(view['reason'])}".rstrip())
