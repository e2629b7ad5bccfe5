"""`qd predict --batch`: a model over files, followed until it is done."""

from __future__ import annotations

import sys
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypedDict, cast

import typer

from console.cli.format import count, span
from console.cli.ids import target
from console.cli.output import emit, narrate, paint_state, say
from console.cli.wait import exit_code
from console.client import Client
from console.text import neutralise
from jobs.base.errors import InvalidInput
from jobs.base.states import TERMINAL

if TYPE_CHECKING:
    from jobs.wire.views import JobDetail, SubmitView

_EVERY = 0.5
"""Seconds between two looks."""
_SAY_EVERY = 10.0
"""Seconds between two lines where no terminal takes them."""
_CLEAR_LINE = "\r\x1b[K"


class BatchView(TypedDict):
    """What a batch came to. Rows are None when its job ended before it said."""

    id: str
    state: str
    out: str
    rows: int | None
    bad: int | None


def predict_files(
    model: str, files: Sequence[Path], out: Path | None, options: dict[str, Any], *, as_json: bool
) -> NoReturn:
    """Submit, follow, and end with the job's exit code."""
    if out is None:
        raise InvalidInput("--batch needs --out, a folder for the results")
    client = Client.from_environment()
    here = client.remote is None  # else the paths are those of the nodes

    def whole(path: Path) -> str:
        return str(path.absolute() if here else path)

    body = {"model": model, "files": [whole(file) for file in files], "out": whole(out)}
    body |= {name: value for name, value in options.items() if value is not None}
    body["key"] = str(uuid.uuid4())
    made = cast("SubmitView", client.act("/v1/predictions", body))
    if not as_json:
        narrate(f"{made['id']} predicts into {body['out']}")
    view = _follow(client, made["id"], quiet=as_json)
    told = _told(view, str(body["out"]))
    if as_json:
        emit(told)
    else:
        say(f"{view['id']} {paint_state(view['state'])} {neutralise(view['reason'])}".rstrip())
        if told["rows"] is not None:
            bad = f"; {told['bad']} bad ones are in bad/" if told["bad"] else ""
            narrate(f"{told['rows']} rows in {told['out']}{bad}")
    raise typer.Exit(exit_code(client, view))


def _told(view: JobDetail, out: str) -> BatchView:
    rows, bad = _value(view, "batch_rows"), _value(view, "batch_bad")
    return {
        "id": view["id"],
        "state": view["state"],
        "out": out,
        "rows": None if rows is None else int(rows - (bad or 0)),
        "bad": None if bad is None else int(bad),
    }


def _follow(client: Client, job: str, *, quiet: bool) -> JobDetail:
    terminal, said, at = sys.stderr.isatty(), "", 0.0
    try:
        while True:
            view = cast("JobDetail", client.get(target(job).path()))
            line = progress(view)
            if not quiet and line != said:
                if terminal:
                    print(_CLEAR_LINE + neutralise(line), end="", file=sys.stderr, flush=True)
                elif client.clock() >= at:
                    narrate(line)
                    at = client.clock() + _SAY_EVERY
                said = line
            if view["state"] in TERMINAL:
                return view
            time.sleep(_EVERY)
    except KeyboardInterrupt:
        narrate(f"{job} goes on; `qd wait {job}`, `qd cancel {job}`")
        raise
    finally:
        if terminal and said and not quiet:
            print(_CLEAR_LINE, end="", file=sys.stderr, flush=True)


def progress(view: JobDetail) -> str:
    """How far a batch is, in a line."""
    percent = _value(view, "batch_percent")
    if percent is None:
        reason = f": {view['reason']}" if view["reason"] else ""
        return f"{view['id']} is {view['state'].lower()}{reason}"
    rows, rate = _value(view, "batch_rows") or 0.0, _value(view, "batch_rows_per_s") or 0.0
    line = f"{percent:.0f} %, {rows:,.0f} rows, {rate:,.0f} rows/s"
    bad, left = _value(view, "batch_bad"), _value(view, "batch_left_s")
    if bad:
        line += f", {count(bad)} bad"
    if left is not None and percent < 100:
        line += f", {span(left)} left"
    return line


def _value(view: JobDetail, name: str) -> float | None:
    found = view["metrics"].get(name)
    return None if found is None else found["value"]
