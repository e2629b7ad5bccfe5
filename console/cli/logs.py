"""`qd logs`: what the ranks of a job wrote."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from console.cli.copy import copy_raw, copy_text
from console.cli.follow import follow_logs
from console.cli.format import local_time, since
from console.cli.ids import Target, target
from console.cli.options import JobId, Json
from console.cli.output import emit_line, narrate, paint
from console.cli.patience import Patience
from console.client import Client
from console.text import last_state, neutralise
from jobs.base.errors import InvalidInput

if TYPE_CHECKING:
    from jobs.wire.views import JobDetail, LogLine

_RANK_COLOURS = ("cyan", "yellow", "green", "magenta", "blue", "red")


def logs(
    job: JobId,
    follow: Annotated[
        bool, typer.Option("-f", "--follow", help="Follow until the job has ended.")
    ] = False,
    rank: Annotated[int | None, typer.Option(min=0, help="Only this rank.")] = None,
    since_: Annotated[
        str | None,
        typer.Option(
            "--since",
            metavar="TIME",
            help="Only lines from then on: 10m (ago), 14:05, or a date and time.",
        ),
    ] = None,
    grep: Annotated[
        str | None,
        typer.Option(metavar="RE", help="Only lines that match this regular expression."),
    ] = None,
    tail: Annotated[int | None, typer.Option(min=0, help="Only the last N lines.")] = None,
    timestamps: Annotated[
        bool, typer.Option("-t", "--timestamps", help="Print the time before each line.")
    ] = False,
    raw: Annotated[
        bool, typer.Option("--raw", help="The unchanged bytes of one rank's log.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Print the logs of a job, or follow them.

    Lines of several ranks are merged by time, each prefixed with its rank. Control characters are made
    visible, so that a log cannot act on your terminal; --raw prints the bytes as they are.
    """
    client = Client.from_environment()
    wanted = target(job)
    detail = cast("JobDetail", client.get(wanted.path()))
    rank = wanted.rank if rank is None else rank
    if rank is not None and rank >= detail["ranks"]:
        raise InvalidInput(
            f"{detail['id']} has no rank {rank}", f"Its ranks are 0 to {detail['ranks'] - 1}."
        )
    pinned = Target(detail["id"], wanted.attempt)
    if raw:
        if as_json or since_ or grep or tail is not None or timestamps:
            raise InvalidInput("--raw can only be combined with --rank, --follow and an attempt")
        copy_raw(client, pinned, detail, rank, follow=follow)
        return
    ranks = list(range(detail["ranks"])) if rank is None else [rank]
    if len(ranks) == 1 and not (as_json or since_ or grep or tail is not None or timestamps):
        copy_text(client, pinned, detail, ranks[0], follow=follow)
        return
    query: dict[str, Any] = {
        "attempt": wanted.attempt,
        "rank": rank,
        "since": None if since_ is None else since(since_, time.time()),
        "grep": grep,
        "tail": tail,
    }
    lines = log_lines(client, pinned, query, ranks, follow=follow)
    if as_json:
        for line in lines:
            emit_line(line, flush=follow)
    else:
        print_lines(lines, named=len(ranks) > 1, timestamps=timestamps, live=follow)


def log_lines(
    client: Client, job: Target, query: dict[str, Any], ranks: list[int], *, follow: bool
) -> Iterator[LogLine]:
    """Lines of a job's log as the query asks for them; with `follow` until the job has ended."""
    if follow:
        yield from follow_logs(client, job, query, ranks, Patience(client))
        return
    with client.stream(job.path("logs"), **query) as stream:
        for document in stream:
            yield cast("LogLine", document)


def print_lines(
    lines: Iterable[LogLine], *, named: bool, timestamps: bool = False, live: bool = True
) -> None:
    """Write log lines for people.

    Args:
        named: put the rank before each line.
        timestamps: put the time before each line, in the reader's zone.
        live: write each line at once, for someone who follows them.
    """
    attempt = None
    for line in lines:
        if attempt not in (None, line["attempt"]):
            narrate(f"attempt {line['attempt']} starts")
        attempt = line["attempt"]
        text = neutralise(last_state(line["line"]))
        if named:
            mark = paint(f"[r{line['rank']}]", _RANK_COLOURS[line["rank"] % len(_RANK_COLOURS)])
            text = f"{mark} {text}"
        if timestamps:
            text = f"{paint(local_time(line['at']), 'dim')} {text}"
        print(text, flush=live)
