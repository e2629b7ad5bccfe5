"""`qd events`: what happened on the cluster."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, cast

import typer

from console.cli.format import local_moment
from console.cli.ids import target
from console.cli.options import Json, complete_job
from console.cli.output import emit_line, paint
from console.cli.patience import Patience
from console.client import Client
from console.text import neutralise
from jobs.base.errors import Unreachable

if TYPE_CHECKING:
    from jobs.wire.views import EventView

_PAGE = 200
_COLOURS = {"warning": "yellow", "error": "red"}


def events(
    follow: Annotated[
        bool, typer.Option("-f", "--follow", help="Keep printing new events.")
    ] = False,
    limit: Annotated[
        int,
        typer.Option(
            "-n", "--limit", min=0, max=1000, help="How many of the newest to print first."
        ),
    ] = 50,
    after: Annotated[
        int | None,
        typer.Option(metavar="NUMBER", min=1, help="Print everything after this event instead."),
    ] = None,
    job: Annotated[
        str | None,
        typer.Option(metavar="ID", help="Only events of this job.", autocompletion=complete_job),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show what happened, newest last."""
    client = Client.from_environment()
    name = None if job is None else target(job).job
    last = 0
    for event in _newest(client, limit, name) if after is None else _since(client, after, name):
        last = event["id"]
        if after is not None or limit:
            _write(event, as_json)
    if follow:
        for event in follow_events(client, last or after or 0, name, Patience(client)):
            _write(event, as_json)


def _newest(client: Client, limit: int, job: str | None) -> Iterator[EventView]:
    """The newest events, oldest first; one at least, to follow from."""
    with client.stream("/v1/events", limit=max(limit, 1), job=job) as stream:
        for document in stream:
            yield cast("EventView", document)


def _since(client: Client, after: int, job: str | None) -> Iterator[EventView]:
    """All events after one, page by page."""
    while True:
        with client.stream("/v1/events", after=after, limit=_PAGE, job=job) as stream:
            page = [cast("EventView", document) for document in stream]
        yield from page
        if len(page) < _PAGE:
            return
        after = page[-1]["id"]


def follow_events(
    client: Client, after: int, job: str | None, patience: Patience
) -> Iterator[EventView]:
    """Events after one, as they happen, through restarts of the control plane. It never ends by
    itself; raises Unreachable when the control plane stayed away."""
    while True:
        try:
            with client.stream("/v1/events", after=after, job=job, follow=True) as stream:
                patience.worked()
                for document in stream:
                    event = cast("EventView", document)
                    after = event["id"]
                    yield event
                return
        except Unreachable as error:
            patience.failed(error)


def _write(event: EventView, as_json: bool) -> None:
    if as_json:
        emit_line(event)
        return
    about = " ".join(part for part in (event["job"], event["node"]) if part)
    message = paint(neutralise(event["message"]), _COLOURS.get(event["severity"], ""))
    line = f"{local_moment(event['at'])}  {neutralise(about):<12}  {message}"
    print(line, flush=True)
