"""`qd join` and `qd leave`: a host that gives its CPUs and GPUs to a cluster whose head is elsewhere.

The host runs Ray under a supervisor, as the head does, and no controller. Everything else happens on
the head: it finds the new node by itself.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from console.cli.cluster import (
    POLL,
    be_supervisor,
    option_words,
    show_logs,
    size_words,
    supervisor,
)
from console.cli.options import Cpus, Foreground, Gpus, Json, Name, Ports, SimulateGpus
from console.cli.output import emit, narrate, say
from jobs.base.errors import Conflict, InvalidInput, NotAllowed, Unreachable
from jobs.base.places import Places, places

JOIN_TIMEOUT = 90.0
"""Seconds for Ray to be started and known to the head. It takes about 5; a busy host may need more."""

JOINED = b"Ray runtime started"
"""What `ray start` says once the head has taken the node in."""

REFUSED = b"InvalidAuthToken"
"""What it says, again and again, when the token is not the head's."""


def join(
    head: Annotated[
        str | None,
        typer.Argument(
            metavar="HOST:PORT",
            help="The head, as `qd up --listen` prints it; by default the one joined last.",
            show_default=False,
        ),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option("--token-file", metavar="FILE", help="A copy of the head's token."),
    ] = None,
    name: Name = None,
    gpus: Gpus = None,
    simulate_gpus: SimulateGpus = None,
    cpus: Cpus = None,
    address: Annotated[
        str | None,
        typer.Option(
            "--address",
            metavar="A",
            help="This host's address, if it has several; by default the one that faces the head.",
        ),
    ] = None,
    ports: Ports = None,
    foreground: Foreground = False,
    as_json: Json = False,
) -> None:
    """Add this host to a cluster.

    It runs jobs until `qd leave`. If it has already joined, nothing changes.
    """
    began, where = time.monotonic(), places()
    before = record_of(where)
    head = head or head_of(before)
    if head is None:
        raise InvalidInput(
            "which cluster?", "Give the head's HOST:PORT; `qd up --listen` on the head prints it."
        )
    if token_file is None and not (head_of(before) and where.ray_token.exists()):
        raise InvalidInput(
            "a cluster takes only hosts that have its token",
            "Copy the head's token file here and give it as --token-file.",
        )
    words = ["--head", head, *size_words(gpus, simulate_gpus, cpus)]
    words += option_words(name=name, address=address, ports=ports, token_file=token_file)
    if foreground:
        be_supervisor(*words)
    log = where.daemon_logs / "ray.log"
    seen = log.stat().st_size if log.exists() else 0
    answer = supervisor("start", *words)
    if answer["started"]:
        narrate(f"joining {head}…")
        try:
            wait_joined(where, log, seen, JOIN_TIMEOUT, time.monotonic, time.sleep)
        except Unreachable:
            show_logs(where.daemon_logs)
            raise
        except NotAllowed:
            supervisor("stop")  # trying on would be guessing
            raise
    node = answer["cluster"]["node"]
    if as_json:
        emit(answer | {"node": node, "head": head, "took": round(time.monotonic() - began, 1)})
    elif answer["started"]:
        say(f"{node} has joined {head}.")
    else:
        say(f"{node} had joined {head} already.")


def leave(
    force: Annotated[
        bool, typer.Option("--force", help="Stop the ranks that run here, then leave.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Remove this host from its cluster.

    Refuses while jobs run here, unless forced. To let its jobs finish, run `qd drain` on the
    head first.
    """
    record = record_of(places())
    if record and head_of(record) is None:
        raise Conflict("this machine runs a cluster of its own", "Run `qd down` to stop it.")
    answer = supervisor("stop", *(["--ranks"] if force else []))
    for attempt in answer["ranks"]:
        narrate(f"stopped the ranks of {attempt}; the cluster restarts it elsewhere")
    for problem in answer["problems"]:
        narrate(problem)
    head = head_of(record)
    if as_json:
        emit(answer | {"head": head})
    else:
        say(f"This host has left {head}." if answer["stopped"] else "This host had joined nothing.")


def record_of(where: Places) -> dict[str, Any] | None:
    """What the supervisor of this host has written, if one runs or ran."""
    try:
        record: dict[str, Any] = json.loads(where.cluster_file.read_text())
    except (OSError, ValueError):
        return None
    return record


def head_of(record: dict[str, Any] | None) -> str | None:
    """The "host:port" that a host has joined; None for one that has not."""
    head = (record or {}).get("asked", {}).get("head")
    return None if head is None else str(head)


def wait_joined(
    where: Places,
    log: Path,
    seen: int,
    timeout: float,
    clock: Callable[[], float],
    sleep: Callable[[float], None],
) -> None:
    """Wait until the head has taken this host in, and narrate what keeps it waiting.

    Args:
        log: Ray's log; `seen` bytes of it are of the past.

    Raises NotAllowed when the head refuses the token, Unreachable after `timeout` seconds.
    """
    deadline, told = clock() + timeout, ""
    while clock() < deadline:
        text = log.read_bytes() if log.exists() else b""
        text = text[seen if len(text) >= seen else 0 :]  # shorter: a new file was begun
        if JOINED in text:
            return
        if REFUSED in text:
            raise NotAllowed(
                "the head refuses this token",
                "Copy the token file again: `qd up` on the head prints its path.",
            )
        ray = (record_of(where) or {}).get("ray", {})
        problem = "" if ray.get("process") else ray.get("exit", "")
        if problem and problem != told:
            told = problem
            narrate(f"not yet: {problem}")
        sleep(POLL)
    raise Unreachable(
        f"this host has not joined after {timeout:g} s" + (f": {told}" if told else ""),
        "It is tried again until `qd leave`. Check the address, the token and the firewall.",
    )
