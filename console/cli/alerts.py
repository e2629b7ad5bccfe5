"""`qd alert` and `qd alerts`: what is worth knowing, and who is told."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, cast

import typer

from console.cli.format import elapsed, local_moment, seconds
from console.cli.options import Json
from console.cli.output import Column, emit, narrate, say, show
from console.client import Client
from console.text import neutralise

if TYPE_CHECKING:
    from jobs.wire.alertviews import AlertView, ChannelTest, SilenceView

_ALERTS = [
    Column("STATE", states=True),
    Column("SEVERITY"),
    Column("RULE"),
    Column("ABOUT", flex=True),
    Column("SINCE", right=True),
    Column("ACK"),
    Column("TEXT", flex=True),
]
RuleName = Annotated[
    str, typer.Argument(metavar="RULE", help="A rule, as `qd alerts` shows it.", show_default=False)
]


def alert(as_json: Json = False) -> None:
    """Manage alerts: acknowledge, silence, test channels.

    Without a command it lists the alerts.
    """
    alerts(False, as_json)


def alerts(
    every: Annotated[bool, typer.Option("--all", help="Include resolved alerts.")] = False,
    as_json: Json = False,
) -> None:
    """List open alerts, newest first."""
    rows = cast("list[AlertView]", Client.from_environment().get("/v1/alerts", over=int(every)))
    if as_json:
        emit(rows)
    elif rows:
        show(_ALERTS, [_row(view, time.time()) for view in rows])
    else:
        narrate("no alerts")


def _row(view: AlertView, now: float) -> list[str]:
    return [
        view["state"],
        view["severity"],
        view["rule"],
        view["subject"],
        elapsed(view["since"], None, now),
        _held(view),
        view["text"],
    ]


def _held(view: AlertView) -> str:
    """Why nobody is told of it again."""
    if view["silence"] is not None:
        return f"silent until {local_moment(view['silence']['until'])}"
    return view["acked_by"] or "-"


def ack(
    rule: RuleName,
    subject: Annotated[
        str, typer.Argument(metavar="ABOUT", help="What the alert is about.", show_default=False)
    ],
    reason: Annotated[str, typer.Option(help="What is being done about it.")] = "",
    as_json: Json = False,
) -> None:
    """Acknowledge an alert, so that it is not repeated."""
    body = {"rule": rule, "subject": subject, "reason": reason}
    view = cast("AlertView", Client.from_environment().post("/v1/alerts/ack", body))
    if as_json:
        emit(view)
    else:
        say(neutralise(f"{view['rule']} {view['subject']} acknowledged by {view['acked_by']}"))


def silence(
    rule: RuleName,
    subject: Annotated[
        str, typer.Argument(metavar="ABOUT", help="What the alert is about; * matches everything.")
    ] = "*",
    span: Annotated[str, typer.Option("--for", metavar="SPAN", help="For how long.")] = "1h",
    reason: Annotated[str, typer.Option(help="Why it is silenced.")] = "",
    as_json: Json = False,
) -> None:
    """Silence matching alerts for a while; shell patterns are allowed."""
    body = {
        "rule": rule,
        "subject": subject,
        "seconds": seconds(span, "--for"),
        "reason": reason,
    }
    view = cast("SilenceView", Client.from_environment().post("/v1/alerts/silence", body))
    if as_json:
        emit(view)
    else:
        until = local_moment(view["until"])
        say(neutralise(f"{view['rule']} {view['subject']} silenced until {until}"))


def test(
    channel: Annotated[
        str | None,
        typer.Argument(metavar="CHANNEL", help="All channels by default.", show_default=False),
    ] = None,
    as_json: Json = False,
) -> None:
    """Send a test message to one channel, or to all."""
    client = Client.from_environment().with_timeout(60.0)
    rows = cast("list[ChannelTest]", client.post("/v1/alerts/test", {"channel": channel}))
    if as_json:
        emit(rows)
    elif not rows:
        narrate("there are no channels; docs/alerts.md says how to add one")
    else:
        for row in rows:
            told = "delivered" if row["delivered"] else "not delivered"
            say(neutralise(f"{row['channel']} {told}"))
    if any(not row["delivered"] for row in rows):
        raise typer.Exit(1)
