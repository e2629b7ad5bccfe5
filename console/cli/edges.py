"""Hosts at the edge: what they are to have, what they have, and going back."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from console import guest
from console.cli.format import span
from console.cli.options import Json
from console.cli.output import Column, emit, narrate, paint_state, say, show
from console.client import Client, segment
from console.text import neutralise
from jobs.base.errors import InvalidInput
from jobs.base.times import parse_time

if TYPE_CHECKING:
    from jobs.wire.edgeviews import EdgeHostView, EdgeView

OVER = ("done", "failed", "returned")
_EVERY = 0.3
Name = Annotated[str, typer.Argument(metavar="FLEET", help="A fleet.", show_default=False)]
_FLEETS = [
    Column("FLEET", flex=True), Column("VERSION", flex=True), Column("STATE", states=True),
    Column("WAVE", right=True), Column("HOSTS", right=True), Column("BY"), Column("AGE", right=True),
]  # fmt: skip
_HOSTS = [
    Column("HOST", flex=True), Column("WAVE", right=True), Column("STATE", states=True),
    Column("SENT", right=True), Column("HAS", flex=True), Column("WHAT", flex=True),
]  # fmt: skip


def is_edge(target: str) -> bool:
    """Whether `--to` of a deployment is a host or a fleet's file."""
    return target.startswith("ssh://") or target.endswith((".yaml", ".yml"))


def deploy(
    client: Client,
    what: str,
    target: str,
    health: str | None,
    *,
    wait: bool,
    as_json: bool,
) -> None:
    """Send a version of a model to hosts."""
    from jobs.edge.fleet import load_fleet, of_one

    if Path(what).is_file() or what.endswith((".yaml", ".yml")):
        raise InvalidInput("--to ssh://... sends a version of a model", "Such as digits:3.")
    if target.startswith("ssh://"):
        fleet = of_one(target, health)
    else:
        path = guest.inside(Path(target))
        if not path.is_file():
            raise InvalidInput(f"there is no file {target}", "Fleet files: docs/edge.md.")
        if health is not None:
            raise InvalidInput("--health goes with ssh://...", "A fleet's file has `health:`.")
        fleet = load_fleet(path)
    body: dict[str, Any] = {"model": what, "fleet": fleet.to_json()}
    view = cast("EdgeView", client.act("/v1/edge", body))
    if not wait:
        _shown(view, as_json)
        return
    _follow(client, view, as_json)


def edge(as_json: Json = False) -> None:
    """Hosts that get models over ssh.

    Without a command it lists fleets with the version that each is to have.
    """
    views = cast("list[EdgeView]", Client.from_environment().get("/v1/edge"))
    if as_json:
        emit(views)
        return
    if not views:
        narrate("there is no fleet; try `qd deploy NAME:VER --to ssh://HOST/PATH` (docs/edge.md)")
        return
    show(_FLEETS, [_row(view) for view in views])


def status(fleet: Name, as_json: Json = False) -> None:
    """Ask each host what it has; exit code 1 for drift.

    Files whose hash is another, that are missing, or that no push brought are named.
    """
    client = Client.from_environment()
    view = cast("EdgeView", client.act(f"/v1/edge/{segment(fleet)}/look", {}))
    _shown(view, as_json)
    if any(host["has"]["drift"] for host in view["hosts"] if "has" in host):
        raise typer.Exit(1)


def rollback(fleet: Name, wait: Annotated[
    bool, typer.Option("--wait", help="Wait until all hosts have returned.")
] = False, as_json: Json = False) -> None:  # fmt: skip
    """Return all hosts of a fleet to what they had before."""
    client = Client.from_environment()
    view = cast("EdgeView", client.act(f"/v1/edge/{segment(fleet)}/rollback", {}))
    if wait:
        _follow(client, view, as_json)
    else:
        _shown(view, as_json)


def _row(view: EdgeView) -> list[str]:
    done = sum(host["phase"] == "done" for host in view["hosts"])
    age = span(max(0.0, time.time() - parse_time(view["changed_at"])))
    wave = f"{view['wave']}/{view['waves']}"
    return [
        view["fleet"], view["version"], view["phase"], wave, f"{done}/{len(view['hosts'])}",
        view["user"], age,
    ]  # fmt: skip


def _shown(view: EdgeView, as_json: bool) -> None:
    if as_json:
        emit(view)
        return
    show(_HOSTS, [_host(view, host) for host in view["hosts"]])
    narrate(_said(view))


def _host(view: EdgeView, host: EdgeHostView) -> list[str]:
    share = f"{100 * host['sent'] // view['size']}%" if view["size"] else "-"
    has, what = "-", [host["reason"]]
    if "has" in host:
        seen = host["has"]
        has = seen["version"] or seen["release"] or "-"
        what += [f"not reached: {seen['error']}"] if seen["error"] else []
        what += ["drift"] if seen["drift"] else []
        what += [f"altered: {_few(seen['altered'])}"] if seen["altered"] else []
        what += [f"unknown: {_few(seen['unknown'])}"] if seen["unknown"] else []
    url = host["url"].removeprefix("ssh://")
    return [url, str(host["wave"]), host["phase"], share, has, "; ".join(filter(None, what))]


def _few(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _said(view: EdgeView) -> str:
    done = sum(host["phase"] == "done" for host in view["hosts"])
    text = (
        f"{view['fleet']}: {view['version']} is {view['phase']}, wave {view['wave']} of {view['waves']}, "
        f"{done} of {len(view['hosts'])} hosts"
    )
    return text + (f": {view['reason']}" if view["reason"] else "")


def _follow(client: Client, view: EdgeView, as_json: bool) -> None:
    """Stay until it is over, and say each thing once."""
    told = ""
    try:
        while True:
            line = _said(view)
            if line != told and not as_json:
                narrate(line)
            told = line
            if view["phase"] in OVER:
                break
            time.sleep(_EVERY)
            view = cast("EdgeView", client.get(f"/v1/edge/{segment(view['fleet'])}"))
    except KeyboardInterrupt:
        narrate(f"it goes on; `qd edge status {view['fleet']}` shows it")
        raise
    if as_json:
        emit(view)
    else:
        back = [h["url"] for h in view["hosts"] if h["phase"] in ("returned", "failed")]
        if back:
            narrate(f"with what they had before: {', '.join(back)}")
        say(f"{neutralise(view['fleet'])} {paint_state(view['phase'])}")
    good = view["phase"] == "done" or view["reason"].startswith("rolled back by")
    raise typer.Exit(0 if good else 1)
