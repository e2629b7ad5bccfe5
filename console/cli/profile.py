"""`qd profile`: where a rank spends its time, sampled from outside by py-spy."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, cast

import typer

from console import flames, guest
from console.cli.options import JobId, Json
from console.cli.output import emit, narrate, say
from console.client import Client, segment
from console.text import neutralise
from jobs.base.errors import Conflict, InvalidInput, QuarterdeckError
from jobs.base.words import counted
from jobs.wire.views import ShellView

_WAIT = 5.0
_HEAD = 5
_TOP = 15
_STDOUT = Path("-")


def profile(
    job: JobId,
    rank: Annotated[int, typer.Option("--rank", min=0, metavar="N", help="Which rank.")] = 0,
    seconds: Annotated[
        int, typer.Option("--seconds", "-d", min=1, max=3600, help="How long to sample.")
    ] = 10,
    rate: Annotated[int, typer.Option(min=1, max=1000, help="Samples per second.")] = 100,
    svg: Annotated[
        Path | None, typer.Option("--svg", metavar="FILE", help="Write a flame graph.")
    ] = None,
    speedscope: Annotated[
        Path | None,
        typer.Option("--speedscope", metavar="FILE", help="Write JSON for speedscope.app."),
    ] = None,
    folded: Annotated[
        Path | None, typer.Option("--folded", metavar="FILE", help="Write the folded stacks.")
    ] = None,
    top: Annotated[int, typer.Option(min=1, max=1000, help="How many functions to list.")] = _TOP,
    gil: Annotated[bool, typer.Option("--gil", help="Only threads that hold the GIL.")] = False,
    native: Annotated[bool, typer.Option("--native", help="Include C and C++ frames.")] = False,
    idle: Annotated[bool, typer.Option("--idle", help="Include waiting threads.")] = False,
    children: Annotated[
        bool, typer.Option("--children", help="Include child processes, such as data loaders.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Sample where a rank spends its time, with py-spy.

    \b
      qd profile j3                          the functions that take most, over 10 s
      qd profile j3 --rank 2 -d 30 --svg flame.svg
      qd profile j3 --svg - > flame.svg      instead of the list

    The rank needs no instrumentation, and is not slowed down.
    """
    files = {"flame graph": svg, "speedscope": speedscope, "folded stacks": folded}
    places = {
        what: path if path == _STDOUT else guest.inside(path)
        for what, path in files.items()
        if path is not None
    }
    if (list(places.values()) + [_STDOUT] * as_json).count(_STDOUT) > 1:
        raise InvalidInput("only one of them can go to standard output", "Give the others a file.")
    client = Client.from_environment().with_timeout(_WAIT + 25)
    options = {"gil": gil, "native": native, "idle": idle, "children": children}
    body = {"rank": rank, "seconds": seconds, "rate": rate, **options}
    view = cast("ShellView", client.post(f"/v1/jobs/{segment(job)}/profiles", body))
    narrate(f"sampling rank {rank} of {job} for {counted(seconds, 'second')}")
    text = _read(client, f"/v1/jobs/{segment(job)}/shells/{rank}/{segment(view['id'])}")
    stacks = flames.parse(text)
    if not stacks:
        raise Conflict(
            f"rank {rank} ran no Python code in {counted(seconds, 'second')}",
            "It may wait for another rank or a device: --idle shows waiting threads, --native C code.",
        )
    title = f"rank {rank} of {job}, {counted(seconds, 'second')} at {rate} a second"
    for what, place in places.items():
        written = {
            "flame graph": lambda: flames.svg(stacks, title),
            "speedscope": lambda: json.dumps(flames.speedscope(stacks, title, rate)),
            "folded stacks": lambda: text,
        }[what]()
        if place == _STDOUT:
            sys.stdout.write(written)
            continue
        try:
            place.write_text(written)
        except OSError as error:
            raise InvalidInput(f"{place} cannot be written: {error.strerror}") from None
        narrate(f"{what}: {place}")
    if _STDOUT in places.values():
        return
    found = flames.functions(stacks)[:top]
    total = sum(stacks.values())
    if as_json:
        emit(
            {
                "samples": total,
                "functions": [{"name": f.name, "own": f.own, "total": f.total} for f in found],
            }
        )
        return
    say(f"{'OWN':>6} {'TOTAL':>6}  FUNCTION    {counted(total, 'sample')}, {title}")
    for one in found:
        shares = f"{one.own / total:6.1%} {one.total / total:6.1%}"
        say(f"{shares}  {neutralise(one.name)}")


def _read(client: Client, path: str) -> str:
    """All that py-spy wrote on stdout. Raises Conflict with its words where it failed."""
    out, err, offset = b"", b"", 0
    while True:
        data, headers = client.raw(path, offset=offset, wait=_WAIT)
        offset = int(headers["X-Position"])
        while data:
            end = _HEAD + int.from_bytes(data[1:_HEAD])
            if data[0] == 1:
                out += data[_HEAD:end]
            else:
                err += data[_HEAD:end]
            data = data[end:]
        if "X-Exit" not in headers:
            continue
        if headers["X-Exit"] != "0":
            raise _failed(err.decode(errors="replace"))
        lines = out.decode(errors="replace").splitlines(keepends=True)
        return "".join(line for line in lines if not line.startswith("py-spy>"))  # its own words


def _failed(words: str) -> QuarterdeckError:
    lines = [line for line in words.splitlines() if line.strip()]
    said = lines[-1].strip() if lines else "it gave no reason"
    hint = "Its rank may have ended; `qd stacks` shows where ranks are now."
    if "ermission" in words:
        hint = "The node's kernel keeps processes from reading others: `sysctl kernel.yama.ptrace_scope=0`."
    return Conflict(f"py-spy failed: {said}", hint)
