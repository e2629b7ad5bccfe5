"""`qd audit`: who did what to what."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from console import guest
from console.cli.format import local_moment, since
from console.cli.options import Json
from console.cli.output import Column, emit, emit_line, narrate, paint, say, show
from console.client import Client
from console.text import neutralise
from jobs.base.errors import InvalidInput
from jobs.base.words import counted

if TYPE_CHECKING:
    from jobs.wire.modelviews import AuditVerifyView, AuditView

_ACTIONS = ("list", "verify", "export")
_COLUMNS = [
    Column("ID", right=True),
    Column("AT"),
    Column("WHO", flex=True),
    Column("ACTION"),
    Column("TARGET", flex=True),
    Column("WHAT", flex=True),
]
_TIMEOUT = 120.0


def audit(
    action: Annotated[
        str,
        typer.Argument(
            metavar="ACTION",
            help="list, verify or export.",
            autocompletion=lambda incomplete: [a for a in _ACTIONS if a.startswith(incomplete)],
        ),
    ] = "list",
    user: Annotated[
        str | None, typer.Option(metavar="USER", help="Only what this user did.")
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option(
            "--action",
            metavar="NAME",
            help="Only this action: model.approve; model means all of its actions.",
        ),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(metavar="TARGET", help="Only what was done to this: digits:3, j12."),
    ] = None,
    since_: Annotated[
        str | None,
        typer.Option(
            "--since", metavar="TIME", help="From then on: 10m (ago), 14:05, or a date and time."
        ),
    ] = None,
    until: Annotated[
        str | None, typer.Option("--until", metavar="TIME", help="Until then.")
    ] = None,
    limit: Annotated[
        int, typer.Option("-n", min=1, max=100_000, help="With list: how many of the newest.")
    ] = 50,
    heads: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="With verify: a copy of audit-heads.jsonl to compare with."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show who did what, from a tamper-evident log.

    \b
      qd audit                 the newest entries
      qd audit verify          whether rows were changed or removed, or the end cut off
      qd audit export > FILE   all of it, one JSON document per line, oldest first
    """
    if action not in _ACTIONS:
        raise InvalidInput(f"qd audit: there is no '{action}'", f"There are {', '.join(_ACTIONS)}.")
    client = Client.from_environment().with_timeout(_TIMEOUT)
    if action == "verify":
        _verify(client, heads, as_json)
        return
    if heads is not None:
        raise InvalidInput("--heads applies only to `qd audit verify`")
    now = time.time()
    query: dict[str, Any] = {
        "user": user,
        "action": kind,
        "target": target,
        "since": None if since_ is None else since(since_, now),
        "until": None if until is None else since(until, now),
        "limit": limit if action == "list" else None,
    }
    with client.stream("/v1/audit", **query) as rows:
        if as_json or action == "export":
            for row in rows:
                emit_line(row, flush=False)
            return
        found = [_row(cast("AuditView", row)) for row in cast("Iterable[Any]", rows)]
    if found:
        show(_COLUMNS, found)
    else:
        narrate("no such changes")


def _row(row: AuditView) -> list[str]:
    return [
        str(row["id"]),
        local_moment(row["at"]),
        row["user"],
        row["action"],
        row["target"],
        ", ".join(f"{name} {_value(value)}" for name, value in row["data"].items() if value),
    ]


def _value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _verify(client: Client, heads: Path | None, as_json: bool) -> None:
    path = "/v1/audit/verify"
    if heads is None:
        view = cast("AuditVerifyView", client.get(path))
    else:
        try:
            text = guest.inside(heads).read_text("utf-8", "replace")
        except OSError as error:
            raise InvalidInput(f"{heads} cannot be read: {error.strerror}") from None
        view = cast("AuditVerifyView", client.post(path, {"heads": text}))
    if as_json:
        emit(view)
    elif view["ok"]:
        say(
            f"{paint('ok', 'green')}  {counted(view['rows'], 'row')}, "
            f"{counted(view['checkpoints'], 'checkpoint')}, head {view['head'][:12]}"
        )
    else:
        say(f"{paint('FAILED', 'red')} at row {view['broken_at']}: {neutralise(view['reason'])}")
    if not view["ok"]:
        raise typer.Exit(1)
