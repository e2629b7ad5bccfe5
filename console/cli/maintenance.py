"""`qd maintenance`: the head is away for a while, and everything runs on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, cast

import typer

from console.cli.format import local_moment, seconds, span
from console.cli.options import Json
from console.cli.output import emit, narrate, paint, say
from console.client import Client
from console.text import neutralise
from jobs.base.words import counted, joined

if TYPE_CHECKING:
    from jobs.wire.views import MaintenanceView

_PATIENCE = 20.0
"""Seconds for an answer: the controller waits for the nodes first."""


def maintenance(as_json: Json = False) -> None:
    """Keep everything running while the head is away.

    Without a command it shows the maintenance that is in force.
    """
    found = cast("MaintenanceView | None", Client.from_environment().get("/v1/maintenance"))
    if as_json:
        emit(found)
    elif found is None:
        narrate("the head is not in maintenance; `qd maintenance head --for 30m` begins one")
    else:
        say(maintenance_line(found))
        _warn(found)


def head(
    length: Annotated[
        str, typer.Option("--for", metavar="SPAN", help="How long the head may be away.")
    ],
    reason: Annotated[str, typer.Option(help="Why, for `qd status` and the audit log.")] = "",
    as_json: Json = False,
) -> None:
    """Let everything run on while the head is away, for instance during a restart.

    Extends the leases of all running jobs to the end of that time, and waits for the nodes to
    confirm it. Until then, or until `qd maintenance end`, no job is started, restarted or
    stopped because a node does not answer. The exit code is 1 if a node has not confirmed.
    """
    body = {"seconds": seconds(length, "--for"), "reason": reason}
    client = Client.from_environment().with_timeout(_PATIENCE)
    view = cast("MaintenanceView", client.post("/v1/maintenance", body))
    if as_json:
        emit(view)
    else:
        say(f"The head may be away until {local_moment(view['until'])}.")
        if view["attempts"] and not view["unanswered"]:
            say(f"All nodes have confirmed it; {counted(view['attempts'], 'job')} will run on.")
        _warn(view)
    raise typer.Exit(1 if view["unanswered"] else 0)


def end(as_json: Json = False) -> None:
    """End the maintenance: jobs are started again.

    Leases that were extended remain: a job that loses a node restarts when they end, or
    once that node is known to be dead.
    """
    view = cast("MaintenanceView", Client.from_environment().post("/v1/maintenance/end"))
    if as_json:
        emit(view)
    else:
        say("The head's maintenance is over.")


def maintenance_line(view: MaintenanceView) -> str:
    """In one line: `until 14:30:00 (24m left), by ada: new kernel`."""
    why = f": {view['reason']}" if view["reason"] else ""
    told = (
        f"until {local_moment(view['until'])} ({span(view['left'])} left), by {view['user']}{why}"
    )
    return neutralise(told)


def _warn(view: MaintenanceView) -> None:
    for node in view["unanswered"]:
        jobs = joined(node["jobs"])
        narrate(
            f"{paint('warning', 'yellow')}: {neutralise(node['node'])} has not confirmed it: ranks of "
            f"{jobs} there stop when their ordinary lease ends. It is asked again when it answers; "
            "`qd maintenance` shows whether it has."
        )
