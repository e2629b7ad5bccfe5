"""`qd top`: nodes, GPUs and jobs in a table that refreshes. No curses, no Textual."""

from __future__ import annotations

import shutil
import sys
import time
from typing import TYPE_CHECKING, Annotated, TypedDict, cast

import typer

from console.cli.format import count, elapsed
from console.cli.nodes import GPU_COLUMNS, NODE_COLUMNS, gpu_row, node_row
from console.cli.options import Json
from console.cli.output import (
    Column,
    emit,
    emit_line,
    paint,
    paint_state,
    say,
    table,
    terminal_width,
)
from console.cli.status import cluster_line, jobs_line
from console.client import Client
from console.text import neutralise
from jobs.base.errors import Unreachable
from jobs.base.states import JOB_STATES, TERMINAL
from jobs.base.times import rfc3339

if TYPE_CHECKING:
    from jobs.wire.views import JobPage, JobView, NodeView, StatusView

_JOBS_SHOWN = 50
_HOME, _CLEAR_LINE, _CLEAR_BELOW = "\x1b[H", "\x1b[K", "\x1b[J"
_CLEAR = "\x1b[2J"
_JOB_COLUMNS = [
    Column("JOB"),
    Column("NAME", flex=True),
    Column("USER", flex=True),
    Column("STATE", states=True),
    Column("GPUS", right=True),
    Column("RAN", right=True),
    Column("ON", flex=True),
    Column("REASON", flex=True),
]


class Frame(TypedDict):
    """What one refresh shows, and one line of `qd top --json`."""

    at: str
    status: StatusView
    nodes: list[NodeView]
    jobs: list[JobView]  # that have not ended, newest first, the first 50


def top(
    once: Annotated[bool, typer.Option("--once", help="Print it once.")] = False,
    interval: Annotated[
        float, typer.Option(min=0.2, max=3600, help="Seconds between two refreshes.")
    ] = 2.0,
    as_json: Json = False,
) -> None:
    """Watch nodes, GPUs and jobs in a plain table.

    Ctrl-C ends it. If stdout is not a terminal, it prints once.
    """
    client = Client.from_environment()
    frame = _look(client)
    if once or not (as_json or sys.stdout.isatty()):
        if as_json:
            emit(frame)
        else:
            say("\n".join(lines(frame, terminal_width())))
        return
    if not as_json:
        sys.stdout.write(_CLEAR)
    note = ""
    while True:
        if not as_json:
            _draw(frame, note)
        elif not note:
            emit_line(frame)
        client.sleep(interval)
        try:
            frame, note = _look(client), ""
        except Unreachable as error:
            note = f"{error.message}; this is how it was at {frame['at']}"


def _look(client: Client) -> Frame:
    active = [state for state in JOB_STATES if state not in TERMINAL]
    page = cast("JobPage", client.get("/v1/jobs", state=active, limit=_JOBS_SHOWN))
    return {
        "at": rfc3339(time.time()),
        "status": cast("StatusView", client.get("/v1/status")),
        "nodes": cast("list[NodeView]", client.get("/v1/nodes")),
        "jobs": page["jobs"],
    }


def lines(frame: Frame, room: int | None) -> list[str]:
    """A frame as lines of text, `room` columns wide at most."""
    status = frame["status"]
    head = f"{paint_state(status['state'])}  {cluster_line(status)}"
    jobs = jobs_line(status)
    text = [f"{head}  jobs: {jobs}" if jobs else head, ""]
    text += table(NODE_COLUMNS, [node_row(node) for node in frame["nodes"]], room)
    gpus = [[node["name"], *gpu_row(gpu)] for node in frame["nodes"] for gpu in node["gpus"]]
    if gpus:
        text += ["", *table([Column("NODE", flex=True), *GPU_COLUMNS], gpus, room)]
    if frame["jobs"]:
        now = time.time()
        text += ["", *table(_JOB_COLUMNS, [_job_row(job, now) for job in frame["jobs"]], room)]
    return text


def _job_row(job: JobView, now: float) -> list[str]:
    return [
        job["id"],
        job["name"],
        job["user"],
        job["state"],
        count(job["gpus"]),
        elapsed(job["started_at"], job["ended_at"], now),
        " ".join(job["placed_on"]) or "-",
        job["reason"],
    ]


def _draw(frame: Frame, note: str) -> None:
    """Paint over the last frame, so that nothing flickers; what does not fit is counted."""
    size = shutil.get_terminal_size()
    text = lines(frame, size.columns)
    if note:
        text = [paint(neutralise(note), "red"), *text]
    room = max(size.lines - 1, 1)
    if len(text) > room:
        text = [*text[: room - 1], paint(f"… {len(text) - room + 1} more lines", "dim")]
    body = "".join(f"{line}{_CLEAR_LINE}\n" for line in text)
    sys.stdout.write(f"{_HOME}{body}{_CLEAR_BELOW}")
    sys.stdout.flush()
