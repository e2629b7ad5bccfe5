"""`qd monitor` and `qd feedback`: what a service sees, compared with a reference, and with the truth."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from console.cli.format import local_moment, seconds, span, sparkline
from console.cli.options import Json
from console.cli.output import Column, emit, narrate, paint_state, say, show
from console.client import Client, segment
from console.text import neutralise
from jobs.base.errors import InvalidInput

if TYPE_CHECKING:
    from jobs.wire.monitorviews import FeedbackView, MonitorRunView, MonitorView, OnlineView

_EVERY = 0.3
_AT_ONCE = 5000
"""Truths in one request."""
_SHOWN = 10
"""Features without drift that are shown beside those with it."""
_FEATURES = [
    Column("FEATURE", flex=True),
    Column("OF"),
    Column("DRIFT", states=True),
    Column("SIZE", right=True),
    Column("PSI", right=True),
    Column("Q", right=True),
    Column("MISSING", right=True),
    Column("BEFORE"),
    Column("AFTER"),
    Column("NEW", flex=True),
]
_WINDOWS = [
    Column("WINDOW", right=True),
    Column("VERSION"),
    Column("SINCE"),
    Column("UNTIL"),
    Column("REQUESTS", right=True),
    Column("RESULT", states=True),
    Column("BY"),
    Column("DRIFTED", flex=True),
]


def monitor(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A service.", show_default=False)],
    last: Annotated[
        str | None,
        typer.Option(
            metavar="SPAN", help="Length of the window; by default the monitor's interval."
        ),
    ] = None,
    rebase: Annotated[
        bool, typer.Option("--rebase", help="Make this window the reference instead.")
    ] = False,
    history: Annotated[
        bool, typer.Option("--history", help="List the windows so far, and compare none.")
    ] = False,
    window: Annotated[
        int | None, typer.Option(metavar="N", help="Show the result of window N, and compare none.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Show every feature.")] = False,
    to: Annotated[
        str | None,
        typer.Option("--to", metavar="TARGET", help="staging or production, if deployed to both."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare a service's requests with a reference, to find drift.

    \b
      qd monitor digits --last 1h
      qd monitor digits --history

    The exit code is 0 only when the window was compared and nothing drifts. It raises
    no alert. `monitor: 1d` in the service file compares windows automatically.
    """
    client = Client.from_environment()
    path = f"/v1/deployments/{segment(name)}/monitor"
    if history:
        _history(cast("MonitorView", client.get(path, target=to)), as_json)
        return
    if window is not None:
        run = cast("MonitorRunView", client.get(f"/v1/monitor-runs/{window}"))
    else:
        body: dict[str, Any] = {"rebase": rebase}
        if last is not None:
            body["last"] = seconds(last, "--last")
        query = "" if to is None else f"?target={segment(to)}"
        run = _over(client, cast("MonitorRunView", client.act(path + query, body)))
    if as_json:
        emit(run)
    else:
        _told(run, every)
    raise typer.Exit(0 if run["status"] in ("ok", "reference") else 1)


def feedback(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A service.", show_default=False)],
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help='Lines such as {"id": "a1-7", "truth": 3}; - for stdin.',
            show_default=False,
        ),
    ],
    output: Annotated[
        str | None,
        typer.Option(metavar="OUTPUT", help="The model's output that is the prediction."),
    ] = None,
    kind: Annotated[
        str, typer.Option("--as", metavar="KIND", help="class, number, or auto.")
    ] = "auto",
    to: Annotated[
        str | None,
        typer.Option("--to", metavar="TARGET", help="staging or production, if deployed to both."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Record the ground truth of requests, by their ids.

    Each is compared with the answer in the inference log. The exit code is 1 when some
    were not found or could not be compared; you can send those again.
    """
    if kind not in ("auto", "class", "number"):
        raise InvalidInput(f"--as: found '{kind}'; allowed: class, number or auto")
    truths = _truths(sys.stdin.read() if str(file) == "-" else file.read_text())
    client = Client.from_environment()
    query = "" if to is None else f"?target={segment(to)}"
    path, items = f"/v1/deployments/{segment(name)}/feedback{query}", list(truths.items())
    view: FeedbackView | None = None
    for start in range(0, len(items), _AT_ONCE):
        body = {"truths": dict(items[start : start + _AT_ONCE]), "output": output, "kind": kind}
        part = cast("FeedbackView", client.post(path, body))
        if view is not None:
            part["joined"] += view["joined"]
            part["unknown_count"] += view["unknown_count"]
            part["unknown"] = (view["unknown"] + part["unknown"])[:100]
            part["refused"] = (view["refused"] + part["refused"])[:100]
        view = part
    assert view is not None
    if as_json:
        emit(view)
    else:
        say(f"{view['joined']} of {len(items)} joined")
        for text in (*view["refused"][:5], *view["missing"][:5]):
            narrate(text)
        if view["unknown_count"]:
            named = ", ".join(view["unknown"][:3])
            narrate(
                f"{view['unknown_count']} are in no log, such as {named}: not sampled, or rotated"
            )
        for version, seen in view["versions"].items():
            say(f"{neutralise(name)} {neutralise(version)} {right(seen)}")
    raise typer.Exit(0 if view["joined"] == len(items) else 1)


def right(view: OnlineView) -> str:
    """How right a version was, in words."""
    if view["accuracy"] is not None:
        found = view["accuracy"]
        return (
            f"right in {found['value']:.1%} ({found['low']:.1%} to {found['high']:.1%}) of "
            f"{view['truths']} answers with feedback"
        )
    error = view["error"]
    assert error is not None
    return (
        f"off by {error['value']:.3g} ({error['low']:.3g} to {error['high']:.3g}) on average, in "
        f"{view['truths']} answers with feedback"
    )


def _truths(text: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            item = json.loads(line)
            identity = item["id"]
            if not isinstance(identity, str) or not identity:
                raise TypeError
            found[identity] = item["truth"]
        except (ValueError, KeyError, TypeError):
            raise InvalidInput(
                f'line {number}: found {line[:60]!r}; allowed: {{"id": "...", "truth": ...}}'
            ) from None
    if not found:
        raise InvalidInput("it contains no truths", 'Lines such as {"id": "a1-7", "truth": 3}.')
    return found


def _over(client: Client, run: MonitorRunView) -> MonitorRunView:
    """The window once its job is over."""
    try:
        while run["state"] == "RUNNING":
            time.sleep(_EVERY)
            run = cast("MonitorRunView", client.get(f"/v1/monitor-runs/{run['id']}"))
    except KeyboardInterrupt:
        narrate(f"it goes on; `qd monitor {run['service']} --window {run['id']}` shows it")
        raise
    return run


def _history(view: MonitorView, as_json: bool) -> None:
    if as_json:
        emit(view)
        return
    how = "only when asked" if view["every"] is None else f"every {span(view['every'])}"
    reference = view["reference"] or "the first window with enough requests"
    narrate(
        f"{view['service']}@{view['target']} version {view['version']}: {how}, against {reference}; "
        f"{'it drifts' if view['drifting'] else 'no drift is known'}"
    )
    if view["runs"]:
        show(_WINDOWS, [_window(run) for run in view["runs"]])
    else:
        narrate(f"no window yet; try `qd monitor {view['service']}`")


def _window(run: MonitorRunView) -> list[str]:
    return [
        str(run["id"]),
        run["version"],
        local_moment(run["since"]),
        local_moment(run["until"]),
        str(run["requests"]),
        run["status"] or run["state"].lower(),
        "schedule" if run["scheduled"] else run["user"],
        ", ".join(run["drifted"][:5]) + (" ..." if len(run["drifted"]) > 5 else "")
        or run["reason"],
    ]


def _told(run: MonitorRunView, every: bool) -> None:
    name = neutralise(f"{run['service']}@{run['target']}")
    result = run["status"] or run["state"].lower()
    say(f"{name} {neutralise(run['version'])} {paint_state(result)}")
    if run["reason"]:
        narrate(run["reason"])
    report = run["report"]
    if not report or not report.get("features"):
        return
    features = report["features"]
    shown = [f for f in features if every or f["drift"]]
    shown += [] if every else [f for f in features if not f["drift"]][:_SHOWN]
    show(_FEATURES, [_feature(feature) for feature in shown])
    if len(shown) < len(features):
        narrate(f"{len(features) - len(shown)} more without drift (--all)")
    joint = report.get("joint")
    if joint:
        drift = "they differ" if joint["drift"] else "no more than chance would have it"
        narrate(
            f"a classifier tells {joint['accuracy']:.1%} of {joint['rows']} rows of window and reference "
            f"apart: {drift}"
        )
    narrate(
        f"{report['rows']} rows against {report['reference_rows']}; a false alarm in "
        f"{1 / report['level']:.0f} looks at most"
    )


def _feature(feature: dict[str, Any]) -> list[str]:
    before, after = feature["missing"]
    number = feature["kind"] == "number"
    size = feature["size"]
    return [
        feature["name"],
        "input" if feature["family"] == "inputs" else "output",
        "drift" if feature["drift"] else "not enough data" if feature["p"] is None else "-",
        "-" if size is None else f"{size:.2f} SD" if number else f"{size:.2f} JS",
        "-" if feature["psi"] is None else f"{feature['psi']:.2f}",
        "-" if feature["q"] is None else f"{feature['q']:.2g}",
        "-" if not before and not after else f"{before:.1%} > {after:.1%}",
        *_bars(feature["histogram"]),
        ", ".join(f"{item['value']} {item['share']:.0%}" for item in feature["new"][:3]),
    ]


def _bars(histogram: dict[str, Any] | None) -> tuple[str, str]:
    """Before and after, on one scale."""
    if histogram is None:
        return "", ""
    top = max([*histogram["before"], *histogram["after"], 1e-9])
    return sparkline(histogram["before"], 0, top), sparkline(histogram["after"], 0, top)
