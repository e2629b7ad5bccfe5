"""`qd metrics`: what the ranks of a job logged."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, cast

import typer

from console.cli.format import local_time, number
from console.cli.ids import run_path
from console.cli.options import JobId, Json
from console.cli.output import Column, emit_line, narrate, show
from console.client import Client
from console.text import neutralise
from jobs.metrics.series import in_order

if TYPE_CHECKING:
    from jobs.wire.views import JobDetail, MetricPoint


def metrics(
    job: JobId,
    name: Annotated[str | None, typer.Option(help="Only this metric.")] = None,
    points: Annotated[
        bool, typer.Option("--points", help="Every point instead of a summary.")
    ] = False,
    follow: Annotated[
        bool, typer.Option("-f", "--follow", help="Print points until the job has ended.")
    ] = False,
    try_: Annotated[
        list[str] | None,
        typer.Option(
            "--try",
            metavar="SET|NAME=RE",
            help="What these patterns would find in its log; repeatable.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show the metrics that a job has logged.

    One line per metric with its last value and its range; --json prints one point per line. With --try,
    what patterns would find in its log: a named set (nanogpt, keras, lightning, hf) or NAME=EXPRESSION,
    where the name `step` gives the step of a line.
    """
    client = Client.from_environment()
    if try_:
        from console.cli.trying import tried

        found = tried(client, job, try_, name)
        if as_json:
            for point in found:
                emit_line(point)
        else:
            _summary(found, None, "no such numbers in its log")
        return
    found = _points(client, run_path(job, "metrics"), name, follow)
    if as_json:
        for point in found:
            emit_line(point)
    elif points or follow:
        for point in found:
            at = local_time(point["at"])
            head = f"{at} r{point['rank']} step {point['step']:>6}"
            print(f"{head}  {neutralise(point['name'])} {number(point['value'])}", flush=True)
    else:
        detail = cast("JobDetail", client.get(run_path(job)))
        _summary(found, (detail["spec"].get("objective") or {}).get("metric"))


def _points(client: Client, path: str, name: str | None, follow: bool) -> Iterator[MetricPoint]:
    with client.stream(path, name=name, follow=follow or None) as stream:
        for document in stream:
            yield cast("MetricPoint", document)


_NONE = "no metrics: a script logs them with `quarterdeck.log(loss=..., step=...)`"


def _summary(points: Iterator[MetricPoint], objective: str | None, none: str = _NONE) -> None:
    last: dict[str, MetricPoint] = {}
    low: dict[str, float] = {}
    high: dict[str, float] = {}
    counts: dict[str, int] = {}
    for point in points:
        name, value = point["name"], point["value"]
        if name in last and point["rank"] != last[name]["rank"]:
            if point["rank"] > last[name]["rank"]:
                continue
            for of_name in (low, high, counts):  # all is of the lowest rank that logs it
                of_name.pop(name, None)
        last[name] = point
        counts[name] = counts.get(name, 0) + 1
        if value is not None:
            low[name] = min(low.get(name, value), value)
            high[name] = max(high.get(name, value), value)
    if not last:
        narrate(none)
        return
    columns = [Column("METRIC", flex=True)] + [
        Column(title, right=True) for title in ("LAST", "STEP", "MIN", "MAX", "POINTS")
    ]
    show(
        columns,
        [
            [
                name,
                number(point["value"]),
                str(point["step"]),
                number(low.get(name)),
                number(high.get(name)),
                str(counts[name]),
            ]
            for name, point in ((name, last[name]) for name in in_order(last, objective))
        ],
    )
