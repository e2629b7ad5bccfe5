"""`qd service key`: who may call a service, and how often."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, cast

import typer

from console.cli.format import local_moment
from console.cli.options import Json
from console.cli.output import Column, emit, narrate, say, show
from console.cli.services import Name, Target, deployments
from console.client import Client, segment
from console.text import neutralise

if TYPE_CHECKING:
    from jobs.wire.serviceviews import DeploymentView, KeyView, NewKeyView

_PATIENCE = 5.0
"""Seconds that a command waits for the front to know."""
_EVERY = 0.05
_COLUMNS = [
    Column("SERVICE", flex=True),
    Column("KEY", flex=True),
    Column("STATE", states=True),
    Column("LIMIT", right=True),
    Column("BY", flex=True),
    Column("SINCE"),
    Column("REVOKED"),
]
KeyName = Annotated[str, typer.Argument(metavar="KEY", help="Name of the key.", show_default=False)]


def service(as_json: Json = False) -> None:
    """Manage a service's API keys.

    Without a command it lists the services, as `qd deployments` does.
    """
    deployments(None, as_json)


def key(as_json: Json = False) -> None:
    """Create, list and revoke API keys of a service.

    Without a command it lists those of all services.
    """
    client = Client.from_environment()
    found: list[KeyView] = []
    for view in cast("list[DeploymentView]", client.get("/v1/deployments")):
        path = f"/v1/deployments/{segment(view['name'])}/keys"
        found += cast("list[KeyView]", client.get(path, target=view["target"]))
    if as_json:
        emit(found)
    elif found:
        show(_COLUMNS, [_row(view) for view in found])
    else:
        narrate("no service has keys; `qd service key add NAME KEY` makes one")


def add(
    name: Name,
    key: KeyName,
    rate: Annotated[
        str | None,
        typer.Option(metavar="RATE", help="Rate limit: 100/s or 600/min; none by default."),
    ] = None,
    to: Target = None,
    as_json: Json = False,
) -> None:
    """Create a key, and print it, this once.

    \b
      qd service key add digits ada --rate 100/s
      curl -H "X-API-Key: $KEY" ...        or: -H "Authorization: Bearer $KEY"

    From its first key on, a service answers 401 to requests without one.
    """
    client = Client.from_environment()
    body = {"name": key, "rate": rate}
    path = f"/v1/deployments/{segment(name)}"
    view = cast("NewKeyView", client.post(f"{path}/keys", body, target=to))
    _settle(client, path, view["target"])
    if as_json:
        emit(view)
    else:
        say(view["key"])
        narrate("it is not shown again; requests send it as X-API-Key, or as a bearer token")


def list_keys(name: Name, to: Target = None, as_json: Json = False) -> None:
    """List keys, including revoked ones."""
    client = Client.from_environment()
    path = f"/v1/deployments/{segment(name)}/keys"
    views = cast("list[KeyView]", client.get(path, target=to))
    if as_json:
        emit(views)
    elif views:
        show(_COLUMNS, [_row(view) for view in views])
    else:
        narrate(f"{name} has no keys; `qd service key add {name} KEY` makes one")


def _row(view: KeyView) -> list[str]:
    revoked = view["revoked_at"]
    return [
        f"{view['service']}@{view['target']}",
        view["name"],
        "valid" if revoked is None else "revoked",
        view["rate"] or "-",
        view["user"],
        local_moment(view["created_at"]),
        "-" if revoked is None else local_moment(revoked),
    ]


def revoke(name: Name, key: KeyName, to: Target = None, as_json: Json = False) -> None:
    """Revoke a key at once.

    The service still requires one, even if this was the last.
    """
    client = Client.from_environment()
    path = f"/v1/deployments/{segment(name)}"
    view = cast("KeyView", client.post(f"{path}/keys/{segment(key)}/revoke", target=to))
    _settle(client, path, view["target"])
    if as_json:
        emit(view)
    else:
        say(f"{neutralise(view['name'])} revoked")


def _settle(client: Client, path: str, target: str) -> None:
    """Wait until the front does what was decided, and say so when it does not."""
    until = time.monotonic() + _PATIENCE
    while True:
        view = cast("DeploymentView", client.get(path, target=target))
        if view["settled"] or not view["versions"]:
            return
        if time.monotonic() > until:
            narrate("it is recorded; the front has not said yet that it does it")
            return
        time.sleep(_EVERY)
