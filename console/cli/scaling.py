"""`qd scale`: how many replicas a service has."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from console.cli.options import Json
from console.cli.output import emit, narrate, say
from console.cli.services import Name, Target
from console.client import Client, segment
from console.scalewords import scaled
from console.text import neutralise
from jobs.base.errors import InvalidInput

if TYPE_CHECKING:
    from jobs.wire.serviceviews import DeploymentView

_EVERY = 0.2
"""Seconds between two looks."""


def scale(
    name: Name,
    count: Annotated[
        str | None,
        typer.Argument(
            metavar="REPLICAS",
            help="A number (3), or bounds to scale between (1-4, 0-2).",
            show_default=False,
        ),
    ] = None,
    concurrency: Annotated[
        float | None, typer.Option(help="Requests in progress to aim for in each replica.")
    ] = None,
    latency: Annotated[
        str | None,
        typer.Option(metavar="SPAN", help="Also grow when the p95 is longer; off: do not."),
    ] = None,
    quiet: Annotated[
        str | None,
        typer.Option(metavar="SPAN", help="How long fewer must have sufficed before it shrinks."),
    ] = None,
    idle: Annotated[
        str | None,
        typer.Option(metavar="SPAN", help="Time without a request before it goes to zero."),
    ] = None,
    hold: Annotated[
        str | None,
        typer.Option(metavar="SPAN", help="How long a request waits for the first replica."),
    ] = None,
    queue: Annotated[
        int | None, typer.Option(metavar="N", help="How many requests may wait for it.")
    ] = None,
    wait: Annotated[
        str | None, typer.Option(metavar="SPAN", help="Wait until the replicas are ready.")
    ] = None,
    to: Target = None,
    as_json: Json = False,
) -> None:
    """Set the number of replicas, or bounds to scale between.

    \b
      qd scale digits 3                     always three
      qd scale digits 1-4 --concurrency 8   as many as the requests in progress need
      qd scale digits 0-2 --idle 10m        none while nobody asks
      qd scale digits                       how it is scaled now

    It takes effect at once, without a rollout, and holds for later versions too.
    """
    options: dict[str, Any] = {
        "concurrency": concurrency,
        "latency": latency,
        "quiet": quiet,
        "idle": idle,
        "hold": hold,
        "queue": queue,
    }
    given = {key: value for key, value in options.items() if value is not None}
    if given.get("latency") == "off":
        given["latency"] = None
    client = Client.from_environment()
    path = f"/v1/deployments/{segment(name)}"
    if count is not None and count.isdecimal():
        if given:
            raise InvalidInput(
                f"{count} replicas are not scaled: there is no {next(iter(given))} to it",
                f"Give bounds, such as 1-{count}.",
            )
        view = _changed(client, path, to, {"replicas": int(count)})
    elif count is not None or given:
        view = _changed(client, path, to, {"scale": _bounds(count) | given})
    else:
        view = cast("DeploymentView", client.get(path, target=to))
    if wait is not None:
        view = _waited(client, path, view, wait)
    if as_json:
        emit(view)
    else:
        say(f"{neutralise(view['name'])} {view['target']} {_told(view)}")


def _bounds(text: str | None) -> dict[str, int]:
    from jobs.services.scaling import bounds

    if text is None:
        return {}
    try:
        return bounds(text)
    except ValueError as error:
        raise InvalidInput(f"REPLICAS: {error}") from None


def _changed(client: Client, path: str, to: str | None, body: dict[str, Any]) -> DeploymentView:
    return cast("DeploymentView", client.post(f"{path}/scale", body, target=to))


def _told(view: DeploymentView) -> str:
    if view["scaling"] is not None:
        return scaled(view["scaling"])
    live = next((one for one in view["versions"] if one["state"] == "live"), None)
    if live is None:
        return "has no version that serves"
    return f"{live['healthy']} of {live['replicas']} replicas ready, a fixed number"


def _waited(client: Client, path: str, view: DeploymentView, text: str) -> DeploymentView:
    from console.cli.format import seconds

    until = time.monotonic() + seconds(text, "--wait")
    while True:
        live = next((one for one in view["versions"] if one["state"] == "live"), None)
        if live is not None and view["settled"] and live["healthy"] == live["replicas"]:
            return view
        if time.monotonic() > until:
            narrate(f"not all replicas are ready after {text}")
            raise typer.Exit(124)
        time.sleep(_EVERY)
        view = cast("DeploymentView", client.get(path, target=view["target"]))
