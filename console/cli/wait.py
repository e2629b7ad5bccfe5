"""`qd wait`, and how a job's end becomes an exit code."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, cast

import typer

from console.cli.format import elapsed, seconds
from console.cli.ids import Target, target
from console.cli.options import JobIds, Json
from console.cli.output import emit, paint_state, say
from console.cli.patience import Patience
from console.client import Client
from console.text import neutralise
from jobs.base.errors import TimedOut, Unreachable
from jobs.base.signals import signal_number
from jobs.base.states import TERMINAL

if TYPE_CHECKING:
    from jobs.wire.views import JobDetail, JobView

_POLL = 25.0
"""Seconds that the controller holds one call before it answers that nothing has happened."""


def wait(
    ids: JobIds,
    timeout: Annotated[
        str | None,
        typer.Option(metavar="SPAN", help="Give up after 90s, 10m, 2h ...; exit code 124."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Wait for jobs to end, and exit with their exit code.

    The exit code is 0 when every job succeeded, else that of the first failing rank of the first
    job, in the order given, that did not (128 + n for signal n; 1 for a cancelled job).
    """
    client = Client.from_environment()
    limit = seconds(timeout, "--timeout") if timeout is not None else None
    deadline = None if limit is None else client.clock() + limit
    pinned = [Target(look(client, target(text).path())["id"]) for text in ids]
    ended: list[JobView] = []
    for job in pinned:
        view = until_ended(client, job, Patience(client), deadline)
        if view is None:
            raise TimedOut(
                f"{job.job} had not ended after {timeout}", f"`qd job {job.job}` shows it."
            )
        ended.append(view)
        if not as_json:
            took = elapsed(view["submitted_at"], view["ended_at"], time.time())
            say(f"{view['id']} {paint_state(view['state'])} {took} {neutralise(view['reason'])}")
    if as_json:
        emit(ended)
    codes = [exit_code(client, view) for view in ended]
    raise typer.Exit(next((code for code in codes if code), 0))


def look(client: Client, path: str) -> JobView:
    """The state of a job now."""
    return cast("JobView", client.get(f"{path}/wait", timeout=0))


def until_ended(
    client: Client, job: Target, patience: Patience, deadline: float | None = None
) -> JobView | None:
    """Wait until a job has ended, through restarts of the control plane.

    Args:
        deadline: on the client's clock; None waits for as long as it takes.

    Returns:
        The job as it ended, or None when the deadline passed before.
    """
    patient = client.with_timeout(_POLL + client.timeout)
    while True:
        left = _POLL if deadline is None else min(_POLL, deadline - client.clock())
        try:
            view = cast("JobView", patient.get(job.path("wait"), timeout=round(max(left, 0), 3)))
            patience.worked()
            if view["state"] in TERMINAL:
                return view
        except Unreachable as error:
            patience.failed(error)
        if deadline is not None and client.clock() >= deadline:
            return None


def exit_code(client: Client, view: JobView) -> int:
    """The exit code that tells how a job ended.

    0 after success, the first failing rank's own code, 128 + n when signal n ended it, and 1 when
    there is no such rank (cancelled, never started).
    """
    if view["state"] == "SUCCEEDED":
        return 0
    if view["state"] == "CANCELLED":
        return 1
    code = view["exit_code"]
    if code is None:
        detail = cast("JobDetail", client.get(Target(view["id"]).path()))
        return _signal_code(detail) or 1
    if code < 0:
        return 128 - code
    return code if 0 < code < 256 else 1


def _signal_code(detail: JobDetail) -> int:
    failures = [attempt["first_failure"] for attempt in detail["attempts"]]
    last = next((failure for failure in reversed(failures) if failure is not None), None)
    name = last["signal"] if last else None
    number = signal_number(name) if name else None
    return 128 + number if number is not None else 0
