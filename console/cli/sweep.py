"""`qd sweep`: an Optuna study on the cluster, from a file."""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from console import guest
from console.cli.format import number
from console.cli.options import Json
from console.cli.output import emit, emit_line, narrate, paint_state, say
from console.cli.patience import Patience, send
from console.cli.submit import find_python, secret_values
from console.client import Client, segment
from console.text import neutralise
from jobs.base.errors import Unreachable
from jobs.wire.sweepviews import SWEEP_ENDED

if TYPE_CHECKING:
    from jobs.sweeps.spec import SweepSpec
    from jobs.wire.sweepviews import SweepSubmitView, SweepView, TrialView

_OPEN = ("QUEUED", "RUNNING", "STOPPING")


def sweep(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A sweep file (YAML).", show_default=False)
    ],
    key: Annotated[
        str | None,
        typer.Option(help="A name for this submission: the same key never makes a second sweep."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check, and start nothing.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Follow it until it ends.")] = False,
    as_json: Json = False,
) -> None:
    """Start a sweep: many trials of one job.

    Each trial has different parameters. Prints the sweep's id. With --watch it prints each trial as it
    ends, and the exit code is 1 when the sweep failed. Ctrl-C leaves it running.
    """
    from jobs.sweeps.spec import load_sweep

    client = Client.from_environment()
    spec, folder = load_sweep(_own(file))
    folder = folder / spec.job.workdir
    if client.remote is None:  # the interpreters of this machine are of no use elsewhere
        spec = _with_python(spec, folder)
    body: dict[str, Any] = {
        "spec": spec.asked(),
        "key": key or str(uuid.uuid4()),
        "secrets": secret_values(spec.job.secrets, os.environ),
    }
    if dry_run:
        body["dry_run"] = True
    else:
        body |= _code(client, guest.inside(folder), spec.job.include)
    view = cast("SweepSubmitView", send(client, "/v1/sweeps", body))
    if as_json and not watch:
        emit(view)
    elif as_json:
        emit_line(view)
    elif not dry_run:
        say(view["id"])
    if dry_run:
        narrate("the sweep is well-formed; nothing was started")
    if view["reason"]:
        narrate(view["reason"])
    if not view["created"] and not dry_run:
        narrate(f"{view['id']} was started with this key before; it is {view['state']}")
    if watch and not dry_run:
        _see_through(client, view["id"], as_json)


def _own(file: Path) -> Path:
    """The file; for a guest what came on standard input, with its job in it."""
    own = guest.folder()
    if own is None:
        return file
    from jobs.spec import yamlfile

    if file == Path("-"):
        file = own / "sweep.yaml"
        file.write_text(sys.stdin.read(yamlfile.MAX_BYTES + 1), encoding="utf-8")
    data = yamlfile.load(guest.inside(file)).data
    if isinstance(data, dict) and isinstance(data.get("job"), str):
        guest.inside(file.parent / data["job"])
    return file


def _with_python(spec: SweepSpec, folder: Path) -> SweepSpec:
    """The sweep with the interpreter that its job would get from `qd submit`."""
    from jobs.spec.job import from_options
    from jobs.sweeps.spec import SweepSpec

    interpreter = find_python(spec.job, folder, os.environ)
    if interpreter == spec.job.python:
        return spec
    job = from_options([], spec.job, python=interpreter)
    return SweepSpec.from_json(spec.to_json() | {"job": job.to_json()})


def _code(client: Client, folder: Path, include: Sequence[str]) -> dict[str, Any]:
    from console.cli.upload import scanned, send_folder

    found = scanned(folder, include)
    return {} if found.is_empty else send_folder(client, found, folder, include)


def _see_through(client: Client, name: str, as_json: bool) -> None:
    try:
        ended = _follow(client, name, as_json)
    except KeyboardInterrupt:
        narrate(f"{name} runs on; `qd trials {name}` shows it, `qd sweep-stop {name}` stops it")
        raise
    narrate(f"{name} {ended['state']}: {ended['reason']}")
    best = ended["best"]
    if best is not None:
        metric = ended["objectives"][0]["metric"]
        narrate(f"  best: trial {best['number']}, {metric} = {number(best['values'][0])}")
        narrate(f"  {parameters(best['params'])}")
    raise typer.Exit(0 if ended["state"] == "FINISHED" else 1)


def _follow(client: Client, name: str, as_json: bool) -> SweepView:
    """Tell of each trial once, as it ends; gives the sweep when it has ended."""
    told: set[int] = set()
    patience = Patience(client)
    while True:
        try:
            with client.stream("/v1/watch", topics=f"sweep:{name}") as stream:
                for delta in stream:
                    patience.worked()
                    if delta["op"] != "put":
                        continue
                    if delta["key"] != name:
                        _tell(cast("TrialView", delta["value"]), told, as_json)
                    elif delta["value"]["state"] in SWEEP_ENDED:
                        trials = client.get(f"/v1/sweeps/{segment(name)}/trials")
                        for trial in cast("list[TrialView]", trials):
                            _tell(trial, told, as_json)
                        return cast("SweepView", delta["value"])
        except Unreachable as error:
            patience.failed(error)


def _tell(trial: TrialView, told: set[int], as_json: bool) -> None:
    if trial["state"] in _OPEN or trial["number"] in told:
        return
    told.add(trial["number"])
    if as_json:
        emit_line(trial)
        return
    values = " ".join(number(value) for value in trial["values"] or [])
    if trial["state"] == "PRUNED" and trial["last"] is not None:
        values = f"{number(trial['last'])} at step {trial['step']}"
    why = f"  {neutralise(trial['reason'])}" if trial["state"] in ("FAILED", "CANCELLED") else ""
    say(
        f"trial {trial['number']} {paint_state(trial['state'])} {values}  "
        f"{parameters(trial['params'])}{why}"
    )


def parameters(params: dict[str, Any]) -> str:
    """A point in one line: `lr=0.01 width=64`."""
    return neutralise(" ".join(f"{name}={shown(value)}" for name, value in params.items()))


def shown(value: Any) -> str:
    """A parameter's value, as short as it can be read."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)
