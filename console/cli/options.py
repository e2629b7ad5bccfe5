"""Options and arguments that several commands share, with their shell completion."""

from __future__ import annotations

from typing import Annotated, Any

import typer

_COMPLETION_TIMEOUT = 0.5
"""Seconds: a shell that waits longer for its Tab key feels broken."""


def _ask(path: str, **query: Any) -> Any:
    """What the control plane says, or None: completion never fails and never waits long."""
    from console.client import Client
    from jobs.base.errors import QuarterdeckError

    try:
        client = Client.from_environment(_COMPLETION_TIMEOUT, patience=_COMPLETION_TIMEOUT)
        return client.get(path, **query)
    except QuarterdeckError:
        return None


def complete_job(incomplete: str) -> list[tuple[str, str]]:
    """Ids of the newest jobs, with their name and state."""
    page = _ask("/v1/jobs", limit=100)
    if page is None:
        return []
    rows = [(job["id"], f"{job['name']} {job['state']}") for job in page["jobs"]]
    return [row for row in [*rows, ("last", "the newest job")] if row[0].startswith(incomplete)]


def complete_version(incomplete: str) -> list[tuple[str, str]]:
    """Versions of models, with their state."""
    rows = _ask("/v1/models", limit=200) or []
    return [(row["id"], row["state"]) for row in rows if row["id"].startswith(incomplete)]


def complete_node(incomplete: str) -> list[tuple[str, str]]:
    """Names of the nodes, with their state."""
    nodes = _ask("/v1/nodes") or []
    return [(n["name"], n["state"]) for n in nodes if n["name"].startswith(incomplete)]


Json = Annotated[
    bool, typer.Option("--json", help="Write JSON on stdout: one document, or one per line.")
]
JobId = Annotated[
    str,
    typer.Argument(
        metavar="ID",
        help="A job: j12, 12, an attempt j12.2, or last.",
        autocompletion=complete_job,
        show_default=False,
    ),
]
JobIds = Annotated[
    list[str],
    typer.Argument(
        metavar="ID...",
        help="Jobs: j12, 12, or last.",
        autocompletion=complete_job,
        show_default=False,
    ),
]
NodeName = Annotated[
    str,
    typer.Argument(
        metavar="NAME", help="A node.", autocompletion=complete_node, show_default=False
    ),
]

Gpus = Annotated[
    int | None, typer.Option("--gpus", metavar="N", help="Use only N of this machine's GPUs.")
]
SimulateGpus = Annotated[
    int | None,
    typer.Option("--simulate-gpus", metavar="N", help="Simulate N GPUs, to try it out."),
]
Cpus = Annotated[
    int | None, typer.Option("--cpus", metavar="N", help="CPUs to offer; all by default.")
]

Name = Annotated[
    str | None,
    typer.Option("--name", metavar="NAME", help="The node's name; the host's by default."),
]
Ports = Annotated[
    int | None,
    typer.Option("--ports", metavar="FIRST", help="Listen on FIRST to FIRST + 99 only."),
]
Foreground = Annotated[
    bool, typer.Option("--foreground", help="Run until SIGTERM, for a service manager.")
]
