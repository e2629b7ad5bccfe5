"""`qd status`."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, cast

import typer

from console.cli.details import facts
from console.cli.format import count, size, span
from console.cli.options import Json
from console.cli.output import emit, paint, paint_state, say
from console.client import Client
from console.text import neutralise
from jobs.base.errors import Unreachable
from jobs.base.words import counted, joined

if TYPE_CHECKING:
    from jobs.wire.views import Problem, StatusView


def status(as_json: Json = False) -> None:
    """Show the cluster's health at a glance.

    The exit code is 0 when the control plane answers, even if it reports problems, and 5 when it
    does not.
    """
    client = Client.from_environment()
    remote = client.remote
    code = 0
    try:
        found = cast("StatusView", client.get("/v1/status"))
    except Unreachable as error:
        code = error.exit_code
        found = _absent(error)
    if as_json:
        emit({**found, **_where(client)})
    else:
        _show(found, remote.words if remote else "")
    raise typer.Exit(code)


def _where(client: Client) -> dict[str, str]:
    """The socket of the control plane, and the host on which that is when it is another one."""
    if client.link is None:
        return {"socket": str(client.socket)}
    told = client.link.told
    return {"socket": str(told.get("socket", "")), "host": client.link.target.address}


def _absent(error: Unreachable) -> StatusView:
    problem: Problem = {"what": error.message, "fix": error.hint, "severity": "error"}
    return {
        "state": "unreachable",
        "version": version("quarterdeck"),
        "cluster": {"nodes": 0, "gpus": 0, "simulated": False, "cpus": 0, "jobs": {}},
        "problems": [problem],
    }


def cluster_line(status: StatusView) -> str:
    """The cluster in one line: `2 nodes, 16 GPUs (sim), 64 CPUs`."""
    cluster = status["cluster"]
    simulated = " (sim)" if cluster["simulated"] else ""
    return (
        f"{counted(cluster['nodes'], 'node')}, {counted(cluster['gpus'], 'GPU')}{simulated}, "
        f"{count(cluster['cpus'])} CPUs"
    )


def jobs_line(status: StatusView) -> str:
    """How many jobs are in each state that is not an end: `3 running, 1 queued`."""
    return ", ".join(f"{n} {state.lower()}" for state, n in status["cluster"]["jobs"].items() if n)


def _storage(status: StatusView) -> str:
    """How much the store of blobs holds: `1.5GiB in 210 blobs, 80GiB free`."""
    found = status.get("storage")
    if found is None:
        return ""
    held = f"{size(found['bytes'])} in {counted(found['blobs'], 'blob')}"
    return f"{held}, {size(found['free'])} free"


def _maintenance(status: StatusView) -> str:
    """For how long the head may still be away."""
    found = status.get("maintenance")
    if found is None:
        return ""
    from console.cli.maintenance import maintenance_line

    open_ = [node["node"] for node in found["unanswered"]]
    return maintenance_line(found) + (
        f"; not confirmed by {neutralise(joined(open_))}" if open_ else ""
    )


def _show(status: StatusView, host: str) -> None:
    say(f"{paint_state(status['state'])}  quarterdeck {neutralise(status['version'])}")
    if status["state"] != "unreachable":
        facts(
            [
                ("host", neutralise(host)),
                ("cluster", cluster_line(status)),
                ("jobs", jobs_line(status) or "none active"),
                ("ray", neutralise(status.get("ray", ""))),
                ("up", span(status["uptime"]) if "uptime" in status else ""),
                ("memory", size(status["memory"]) if "memory" in status else ""),
                ("storage", _storage(status)),
                ("maintenance", _maintenance(status)),
            ]
        )
    for problem in status["problems"]:
        colour = "red" if problem["severity"] == "error" else "yellow"
        say(f"{paint(problem['severity'], colour)}: {neutralise(problem['what'])}")
        if problem["fix"]:
            say(f"  fix: {neutralise(problem['fix'])}")
