"""`qd strays`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, cast

import typer

from console.cli.format import size
from console.cli.options import Json
from console.cli.output import Column, emit, narrate, show
from console.client import Client
from jobs.base.errors import InvalidInput
from jobs.base.words import counted

if TYPE_CHECKING:
    from jobs.wire.views import StrayView

COLUMNS = [
    Column("NODE", flex=True),
    Column("KEY", flex=True),
    Column("STATE", states=True),
    Column("RANKS", right=True),
    Column("GPUS", right=True),
    Column("LOGS", right=True),
    Column("OF", flex=True),
]


def strays(
    keys: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY]...", show_default=False)
    ] = None,
    forget: Annotated[
        bool, typer.Option("--forget", help="Remove those that have ended, with their logs.")
    ] = False,
    stop: Annotated[
        bool, typer.Option("--stop", help="With --forget: also stop those that run.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
    as_json: Json = False,
) -> None:
    """List attempts that nodes hold and the registry does not know.

    They belong to another cluster, or began after the backup that the registry was restored from. They
    run until their leases expire; their files stay on the node until you remove them here.
    """
    client = Client.from_environment()
    found = cast("list[StrayView]", client.get("/v1/strays"))
    wanted = set(keys or ())
    found = [stray for stray in found if not wanted or stray["key"] in wanted]
    if stop and not forget:
        raise InvalidInput("--stop needs --forget")
    if not forget:
        _show(found, as_json)
        return
    going = [stray for stray in found if stop or stray["state"] == "ended"]
    if going and not yes:
        if as_json or not sys.stdin.isatty():
            raise InvalidInput(
                f"{counted(len(going), 'stray')} would be removed", "Confirm with --yes."
            )
        question = f"{counted(len(going), 'stray')} will be removed, with their logs. Continue?"
        typer.confirm(question, abort=True, err=True)
    body = {"keys": sorted(wanted), "stop": stop}
    gone = cast("list[StrayView]", client.post("/v1/strays/forget", body))
    _show(gone, as_json)
    if not as_json:
        stopped = [stray for stray in gone if stray["state"] != "ended"]
        narrate(f"{counted(len(gone) - len(stopped), 'stray')} removed, {len(stopped)} stopped")


def _show(found: list[StrayView], as_json: bool) -> None:
    if as_json:
        emit(found)
    elif found:
        show(COLUMNS, [_row(stray) for stray in found])
    else:
        narrate("nodes hold nothing that the registry does not know")


def _row(stray: StrayView) -> list[str]:
    return [
        stray["node"],
        stray["key"],
        stray["outcome"] or stray["state"],
        str(stray["ranks"]),
        str(len(stray["gpus"])),
        size(stray["log_bytes"]),
        "before the restore" if stray["ours"] else f"cluster {stray['cluster']}",
    ]
