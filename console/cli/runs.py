"""`qd runs`, `qd compare`, `qd reproduce`: runs as experiments."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from console.cli.format import elapsed, number
from console.cli.ids import Target, target
from console.cli.options import JobId, Json
from console.cli.output import Column, emit, narrate, paint, say, show, table, terminal_width
from console.client import Client, segment
from console.report.gather import code_differences, commit_of
from console.text import neutralise
from jobs.base.errors import Conflict, InvalidInput
from jobs.base.states import TERMINAL
from jobs.base.words import counted
from jobs.runs.differences import (
    Difference,
    metric_differences,
    spec_differences,
)

if TYPE_CHECKING:
    from jobs.wire.runviews import RunPage, RunView
    from jobs.wire.views import JobDetail, SubmitView

_COLUMNS = [
    Column("RUN"),
    Column("NAME", flex=True),
    Column("STATE", states=True),
    Column("RAN", right=True),
]
_SHOWN = 8
"""Parameters and metrics that get a column of their own when none is asked for."""
_MAX_DIFF = 1 << 20
"""Bytes of a file whose lines are compared."""
_LINES = 200


def runs(
    filter_: Annotated[
        str | None,
        typer.Option("--filter", "-f", metavar="EXPR", help="'val_acc > 0.9 and param.lr < 0.1'"),
    ] = None,
    sort: Annotated[
        str | None,
        typer.Option(metavar="[-]NAME", help="By a metric or param.NAME; - for the largest first."),
    ] = None,
    columns: Annotated[
        list[str] | None,
        typer.Option(
            "--column", "-c", metavar="NAME", help="Show this parameter or metric; repeatable."
        ),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=500, help="How many runs to show.")] = 30,
    before: Annotated[
        str | None, typer.Option(metavar="ID", help="The page of runs older than this one.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List runs with parameters and metrics; filter and sort them."""
    page = cast(
        "RunPage",
        Client.from_environment().get(
            "/v1/runs", filter=filter_, sort=sort, before=before, limit=limit
        ),
    )
    found = page["runs"]
    if as_json:
        emit(found)
    elif found:
        names = columns or _worth_a_column(found)
        headings = [*_COLUMNS, *(Column(neutralise(name), right=True) for name in names)]
        show(headings, [_row(run, names) for run in found])
    else:
        narrate("no such runs" if filter_ else "no runs yet; try `qd submit -- echo hi`")
    if page["next"]:
        narrate(
            f"{len(found)} of {counted(page['total'], 'run')}; older ones: the same with "
            f"--before {page['next']}"
        )


def _worth_a_column(found: Sequence[RunView]) -> list[str]:
    """Parameters that differ between the runs, then metrics, as many as fit a screen."""
    params = dict.fromkeys(name for run in found for name in run["params"])
    differing = [
        f"param.{name}"
        for name in params
        if len(found) == 1 or len({repr(run["params"].get(name)) for run in found}) > 1
    ]
    metrics = dict.fromkeys(name for run in found for name in run["metrics"])
    few = differing[: _SHOWN // 2]
    return [*few, *list(metrics)[: _SHOWN - len(few)]]


def _row(run: RunView, names: Sequence[str]) -> list[str]:
    values = []
    for name in names:
        kind, _, rest = name.partition(".")
        if kind in ("param", "tag", "data") and rest:
            source: Mapping[str, Any] = {
                "param": run["params"],
                "tag": run["tags"],
                "data": run["data"],
            }[kind]
            values.append(_shown(source.get(rest)))
        else:
            metric = name.removeprefix("metric.")
            known = metric in run["metrics"]
            values.append(number(run["metrics"][metric]) if known else "-")
    ran = elapsed(run["started_at"], run["ended_at"], time.time())
    return [run["id"], neutralise(run["name"]), run["state"], ran, *values]


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:g}" if isinstance(value, float) else neutralise(str(value))


def compare(
    ids: Annotated[list[str], typer.Argument(metavar="RUN...", help="Two or more jobs.")],
    code: Annotated[bool, typer.Option("--code", help="Show the lines that differ.")] = False,
    as_json: Json = False,
) -> None:
    """Show how runs differ: code, parameters, data, metrics."""
    if len(ids) < 2:
        raise InvalidInput("one run has nothing to be compared with", "Give two ids or more.")
    client = Client.from_environment()
    details = [_detail(client, text) for text in ids]
    asked = spec_differences([detail["spec"] for detail in details])
    changed = code_differences(client, details)
    results, same = metric_differences([detail["metrics"] for detail in details])
    commits = tuple(commit_of(detail) for detail in details)
    names = [detail["id"] for detail in details]
    if as_json:
        emit(
            {
                "runs": names,
                "commits": list(commits),
                "code": [_plain(one) for one in changed],
                "spec": [_plain(one) for one in asked],
                "metrics": [_plain(one) for one in results],
            }
        )
        return
    if len(set(commits)) > 1:
        asked = [Difference("commit", commits), *asked]
    _tell_code(client, details, changed, names, lines=code)
    _tell("what was asked", names, asked)
    _tell("metrics", names, results)
    if not (asked or changed):
        narrate("the same code, parameters, data and settings")
    if same:
        narrate(f"{counted(same, 'metric')} with the same last value")


def _plain(difference: Difference) -> dict[str, Any]:
    return {"what": difference.what, "values": list(difference.values)}


def _tell(title: str, names: Sequence[str], found: Sequence[Difference]) -> None:
    if not found:
        return
    say(paint(title, "bold"))
    headings = [Column("", flex=True), *(Column(name, flex=True) for name in names)]
    rows = [[neutralise(one.what), *map(_value, one.values)] for one in found]
    for line in table(headings, rows, terminal_width()):
        say(line)
    say()


def _value(value: Any) -> str:
    if value is None:
        return "-"
    return number(value) if isinstance(value, float) else neutralise(str(value))


def _tell_code(
    client: Client,
    details: Sequence[JobDetail],
    changed: Sequence[Difference],
    names: Sequence[str],
    *,
    lines: bool,
) -> None:
    if not changed:
        return
    say(paint(f"code: {counted(len(changed), 'file')}", "bold"))
    for one in changed:
        kinds = ["-" if digest is None else str(digest)[:8] for digest in one.values]
        say(f"  {neutralise(one.what)}  {'  '.join(kinds)}")
        if lines and len(one.values) == 2:
            for line in _line_differences(client, details, one):
                say(f"    {line}")
    if not lines:
        say("  (--code shows the lines)")
    say()


def _line_differences(
    client: Client, details: Sequence[JobDetail], one: Difference
) -> Iterator[str]:
    """A unified diff of one file of two runs; said where it is no text, or large."""
    import difflib

    texts: list[list[str]] = []
    for detail, digest in zip(details, one.values, strict=True):
        if digest is None or str(digest).startswith("link "):
            texts.append([] if digest is None else [str(digest)])
            continue
        data, _ = client.raw(f"/v1/jobs/{segment(detail['id'])}/code/{digest}")
        try:
            text = data.decode() if len(data) <= _MAX_DIFF else None
        except UnicodeDecodeError:
            text = None
        if text is None or "\0" in text:
            yield "not text, or more than 1 MiB"
            return
        texts.append(text.splitlines())
    found = list(difflib.unified_diff(texts[0], texts[1], lineterm="", n=2))[2:]
    for line in found[:_LINES]:
        colour = {"+": "green", "-": "red"}.get(line[:1], "")
        yield paint(neutralise(line), colour) if colour else neutralise(line)
    if len(found) > _LINES:
        yield f"and {counted(len(found) - _LINES, 'more line')}"


def reproduce(
    run: JobId,
    python: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="Use this interpreter instead of the original one."),
    ] = None,
    ignore: Annotated[
        list[str] | None,
        typer.Option(
            metavar="METRIC", help="Do not compare this metric, such as a time; repeatable."
        ),
    ] = None,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Only submit it.")] = False,
    as_json: Json = False,
) -> None:
    """Run a job again as it was, and compare the metrics.

    The exit code is 1 when the last value of a metric is not bit-for-bit the same, and that of the
    new run when it failed.
    """
    from console.cli.patience import Patience
    from console.cli.submit import secret_values
    from console.cli.wait import exit_code, until_ended

    client = Client.from_environment()
    old = _detail(client, run)
    if old["state"] not in TERMINAL:
        raise Conflict(
            f"{old['id']} has not ended", "Its metrics may still change; wait for it first."
        )
    spec = dict(old["spec"])
    spec["tags"] = {**(spec.get("tags") or {}), "reproduces": old["id"]}
    if python is not None:
        spec["python"] = python
    body = {
        "spec": spec,
        "key": str(uuid.uuid4()),
        "snapshot": old["snapshot"],
        "git": old["git"],
        "secrets": secret_values(spec.get("secrets") or [], os.environ),
    }
    view = cast("SubmitView", client.act("/v1/jobs", body))
    if no_wait:
        emit(view) if as_json else say(view["id"])
        return
    narrate(f"{view['id']} runs what {old['id']} ran")
    try:
        ended = until_ended(client, Target(view["id"]), Patience(client))
    except KeyboardInterrupt:
        narrate(f"{view['id']} runs on; `qd compare {old['id']} {view['id']}` compares them later")
        raise
    assert ended is not None
    new = _detail(client, view["id"])
    if code := exit_code(client, ended):
        emit({"id": new["id"], "state": new["state"]}) if as_json else say(
            f"{new['id']} {new['state']}: {neutralise(new['reason'])}"
        )
        raise typer.Exit(code)
    _report(old, new, frozenset(ignore or ()), as_json)


def _report(old: JobDetail, new: JobDetail, ignored: frozenset[str], as_json: bool) -> None:
    """The metrics side by side; ends the command with 1 when one differs."""
    sides = [
        {name: value for name, value in detail["metrics"].items() if name not in ignored}
        for detail in (old, new)
    ]
    differing, same = metric_differences(sides)
    names = [old["id"], new["id"]]
    if as_json:
        emit(
            {
                "id": new["id"],
                "reproduces": old["id"],
                "same": same,
                "metrics": [_plain(one) for one in differing],
            }
        )
    else:
        _tell("metrics that differ", names, differing)
        total = same + len(differing)
        say(f"{same} of {counted(total, 'metric')} the same to the bit")
    if differing:
        if not as_json and old["spec"].get("seed") is None:
            narrate("the job has no seed: give it one (`seed:`), and let the script use it")
        raise typer.Exit(1)
    if not same:
        narrate("neither run logged a metric" + (" but what is ignored" if ignored else ""))


def _detail(client: Client, text: str) -> JobDetail:
    return cast("JobDetail", client.get(target(text).path()))
