"""`qd nodes`, `qd node`, `qd drain`, `qd undrain`, `qd confirm-dead`, `qd forget`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, cast

import typer

from console.cli.details import facts
from console.cli.format import count, percent, size, span
from console.cli.options import Json, NodeName
from console.cli.output import Column, emit, narrate, paint, paint_state, say, show
from console.client import Client, segment
from console.text import neutralise
from jobs.base.errors import InvalidInput

if TYPE_CHECKING:
    from jobs.wire.views import GpuView, NodeView

NODE_COLUMNS = [
    Column("NODE", flex=True),
    Column("STATE", states=True),
    Column("GPUS", right=True),
    Column("UTIL", right=True),
    Column("GPU MEM", right=True),
    Column("CPU", right=True),
    Column("MEMORY", right=True),
    Column("SEEN", right=True),
    Column("JOBS", flex=True),
    Column("REASON", flex=True),
]
GPU_COLUMNS = [
    Column("GPU", right=True),
    Column("MODEL", flex=True),
    Column("UTIL", right=True),
    Column("MEM", right=True),
    Column("OF", right=True),
    Column("POWER", right=True),
    Column("TEMP", right=True),
    Column("JOB"),
    Column("RANK", right=True),
    Column("NOTES", flex=True),
]


def nodes(as_json: Json = False) -> None:
    """List the nodes and their GPUs."""
    found = cast("list[NodeView]", Client.from_environment().get("/v1/nodes"))
    if as_json:
        emit(found)
    elif found:
        show(NODE_COLUMNS, [node_row(node) for node in found])
    else:
        narrate("no nodes; `qd up` makes this machine one")


def node(name: NodeName, as_json: Json = False) -> None:
    """Show one node, GPU by GPU."""
    found = cast("NodeView", Client.from_environment().get(f"/v1/nodes/{segment(name)}"))
    if as_json:
        emit(found)
        return
    say(f"{paint(neutralise(found['name']), 'bold')}  {paint_state(found['state'])}")
    facts(
        [
            ("reason", neutralise(found["reason"])),
            ("address", neutralise(found["address"])),
            ("seen", f"{span(found['age'])} ago" if found["seen_at"] else "never"),
            ("CPU", f"{count(found['cpu']['count'])} cores, {percent(found['cpu']['util'])} busy"),
            ("memory", f"{size(found['memory']['used'])} of {size(found['memory']['total'])}"),
            ("disk", f"{size(found['disk']['used'])} of {size(found['disk']['total'])}"),
            ("free", f"{count(found['free_gpus'])} GPUs, {count(found['free_cpus'])} CPUs"),
            ("jobs", neutralise(", ".join(found["jobs"]))),
            ("labels", neutralise(", ".join(f"{k}={v}" for k, v in found["labels"].items()))),
        ]
    )
    if found["gpus"]:
        say()
        show(GPU_COLUMNS, [gpu_row(gpu) for gpu in found["gpus"]])


def drain(
    name: NodeName,
    reason: Annotated[str | None, typer.Option(help="Why it is drained.")] = None,
    as_json: Json = False,
) -> None:
    """Start no new jobs on a node; running ones continue."""
    body = {} if reason is None else {"reason": reason}
    _show_change(Client.from_environment().act(f"/v1/nodes/{segment(name)}/drain", body), as_json)


def undrain(name: NodeName, as_json: Json = False) -> None:
    """Start jobs on a node again; also lifts a quarantine."""
    _show_change(Client.from_environment().act(f"/v1/nodes/{segment(name)}/undrain"), as_json)


def confirm_dead(
    name: NodeName,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
    as_json: Json = False,
) -> None:
    """Confirm that a LOST node is down; its jobs restart now.

    Only if its power is off, or it was started again: if its ranks still run, for instance
    behind a network failure, a second copy of each job will write to the same places.
    """
    client = Client.from_environment()
    path = f"/v1/nodes/{segment(name)}"
    node = cast("NodeView", client.get(path))
    jobs = ", ".join(node["jobs"])
    if not yes:
        risk = f"if ranks of {jobs or 'its jobs'} still run there, a second copy of them will start"
        if as_json or not sys.stdin.isatty():
            raise InvalidInput(
                neutralise(risk), "If it certainly has gone down, confirm with --yes."
            )
        silent = f", silent for {span(node['age'])}" if node["state"] == "LOST" else ""
        narrate(neutralise(f"{node['name']} is {node['state']}{silent}. Caution: {risk}."))
        typer.confirm("Is it certain that it has gone down?", abort=True, err=True)
    after = cast("NodeView", client.post(f"{path}/confirm-dead"))
    if as_json:
        emit(after)
    else:
        say(
            f"{neutralise(after['name'])} counts as dead; {neutralise(jobs) or 'its jobs'} may restart"
        )


def forget(
    name: NodeName,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
    as_json: Json = False,
) -> None:
    """Remove a node that will not come back.

    A node that joins under this name later is a new one.
    """
    client = Client.from_environment()
    path = f"/v1/nodes/{segment(name)}"
    node = cast("NodeView", client.get(path))
    if not yes:
        if as_json or not sys.stdin.isatty():
            raise InvalidInput(
                f"{name} would be forgotten, with its drain and quarantine", "Confirm with --yes."
            )
        question = f"{neutralise(node['name'])} is {node['state']}. Forget it?"
        typer.confirm(question, abort=True, err=True)
    gone = cast("NodeView", client.post(f"{path}/forget"))
    if as_json:
        emit(gone)
    else:
        say(f"{neutralise(gone['name'])} is forgotten")


def _show_change(node: NodeView, as_json: bool) -> None:
    if as_json:
        emit(node)
        return
    if note := node.get("note"):
        narrate(neutralise(note))
    running = ", ".join(node["jobs"])
    rest = f"  still runs {running}" if running and node["state"] == "DRAINING" else ""
    say(f"{neutralise(node['name'])} {paint_state(node['state'])}{neutralise(rest)}")


def node_row(node: NodeView) -> list[str]:
    """One row below `NODE_COLUMNS`."""
    gpus = node["gpus"]
    utils = [gpu["util"] for gpu in gpus if gpu["util"] is not None]
    used = [gpu["mem_used"] for gpu in gpus if gpu["mem_used"] is not None]
    simulated = " sim" if any(gpu["simulated"] for gpu in gpus) else ""
    return [
        node["name"],
        node["state"],
        f"{count(len(gpus) - node['free_gpus'])}/{len(gpus)}{simulated}" if gpus else "-",
        percent(sum(utils) / len(utils)) if utils else "-",
        size(sum(used)) if used else "-",
        percent(node["cpu"]["util"]),
        size(node["memory"]["used"]),
        span(node["age"]) if node["seen_at"] else "never",
        " ".join(node["jobs"]) or "-",
        node["reason"],
    ]


def gpu_row(gpu: GpuView) -> list[str]:
    """One row below `GPU_COLUMNS`."""
    notes = [*(["simulated"] if gpu["simulated"] else []), *gpu["throttle"]]
    if gpu["ecc_errors"]:
        notes.append(f"{gpu['ecc_errors']} ECC errors")
    return [
        str(gpu["index"]),
        gpu["model"],
        percent(gpu["util"]),
        size(gpu["mem_used"]),
        size(gpu["mem_total"]),
        "-" if gpu["power"] is None else f"{gpu['power']:.0f}W",
        "-" if gpu["temp"] is None else f"{gpu['temp']:.0f}°",
        gpu["job"] or "-",
        "-" if gpu["rank"] is None else f"r{gpu['rank']}",
        ", ".join(notes),
    ]
