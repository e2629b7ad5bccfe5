"""`qd forward`: a port that a rank listens on, on this machine."""

from __future__ import annotations

import os
import re
import socket
import sys
import threading
from contextlib import suppress
from typing import Annotated, cast

import typer

from console import guest
from console.cli.options import Json
from console.cli.output import emit, narrate, say
from console.client import Client, segment
from console.tunnel import Near
from jobs.base.errors import Conflict, InvalidInput, NotFound, QuarterdeckError
from jobs.wire.views import ShellView

_PIECE = 1 << 16


def forward(
    job: Annotated[
        str,
        typer.Argument(metavar="JOB[:RANK]", help="A job, and one of its ranks; 0 by default."),
    ],
    port: Annotated[
        str,
        typer.Argument(metavar="PORT[:LOCAL]", help="The job's port, and the one to open here."),
    ],
    stdio: Annotated[
        bool, typer.Option("--stdio", help="One connection, on standard input and output.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Forward a port on this machine to one that a job listens on.

    \b
      qd forward j3 6006            TensorBoard of j3's first rank, on http://127.0.0.1:6006
      qd forward j3:2 8888:9999     rank 2's Jupyter, on http://127.0.0.1:9999
      ssh -o ProxyCommand='qd forward j3 2222 --stdio' me@j3

    Only ports that a process of the job listens on can be reached, on 127.0.0.1 or on all addresses.
    Forwarding ends with the job, or with ctrl-c. With LOCAL 0, any free port is used.
    """
    name, rank = _job(job)
    far, local = _ports(port)
    if not stdio:
        guest.refuse("`qd forward` without --stdio", "`ssh -L 6006:j3:6006 ...` forwards a port.")
    listening = None if stdio else _listen(far, local)
    client = Client.from_environment()
    body = {"rank": rank, "port": far}
    view = cast("ShellView", client.post(f"/v1/jobs/{segment(name)}/tunnels", body))
    path = f"/v1/jobs/{segment(name)}/shells/{rank}/{segment(view['id'])}"
    standard = _Standard() if stdio else None
    near = Near(client, path, listening, None if standard is None else standard.theirs, _Refusals())
    if listening is not None:
        at = f"127.0.0.1:{listening.getsockname()[1]}"
        if as_json:
            emit({"job": name, "rank": rank, "port": far, "address": at})
        else:
            say(f"http://{at} is port {far} beside rank {rank} of {name}")
            narrate("ctrl-c ends it")
        sys.stdout.flush()  # it may be a pipe, and this its only line for hours
    try:
        near.run()
    except (NotFound, Conflict):
        narrate(_why(client, name))
        if stdio:
            raise typer.Exit(1) from None
    finally:
        near.close()
        if standard is not None:
            standard.finish()


class _Refusals:
    """Says why a connection was refused, once for many in a row."""

    def __init__(self) -> None:
        self._last = ""

    def __call__(self, words: str) -> None:
        if words != self._last:
            narrate(words)
        self._last = words


def _job(text: str) -> tuple[str, int]:
    name, _, rank = text.partition(":")
    if rank and not rank.isdecimal():
        raise InvalidInput(f"'{rank}' is not a rank", f"`qd forward {name}:0 ...` is the first.")
    return name, int(rank or 0)


def _ports(text: str) -> tuple[int, int | None]:
    """The job's port, and the one here if one was given."""
    if match := re.fullmatch(r"(\d{1,5})(?::(\d{1,5}))?", text):
        far, local = int(match[1]), match[2]
        if 0 < far < 65536 and int(local or 0) < 65536:
            return far, None if local is None else int(local)
    raise InvalidInput(
        f"'{text}' is not a port", "Write 6006, or 6006:16006 for another port here."
    )


def _listen(far: int, local: int | None) -> socket.socket:
    """A socket that listens on this machine alone; on any port where nobody asked for one that is taken."""
    for port in [far, 0] if local is None else [local]:
        listening = socket.socket()
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(("127.0.0.1", port))
            listening.listen(128)
            return listening
        except OSError as error:
            listening.close()
            if local is not None:
                raise Conflict(
                    f"port {local} cannot be opened here: {error.strerror}",
                    f"`{far}:0` uses any free port.",
                ) from None
    raise Conflict("no port can be opened here")


class _Standard:
    """Standard input and output, as one socket (`theirs`)."""

    def __init__(self) -> None:
        self._ours, self.theirs = socket.socketpair()
        self._out = threading.Thread(target=self._receive, daemon=True)
        for work in (threading.Thread(target=self._send, daemon=True), self._out):
            work.start()

    def _send(self) -> None:
        with suppress(OSError):
            while data := os.read(0, _PIECE):
                self._ours.sendall(data)
            self._ours.shutdown(socket.SHUT_WR)

    def _receive(self) -> None:
        with suppress(OSError):
            while data := self._ours.recv(_PIECE):
                while data:
                    data = data[os.write(1, data) :]
        with suppress(OSError):  # the other end has said all: nobody waits for standard input
            self._ours.shutdown(socket.SHUT_RDWR)

    def finish(self) -> None:
        """Wait until all that came is written."""
        self._out.join()


def _why(client: Client, job: str) -> str:
    """Why a tunnel is over."""
    with suppress(QuarterdeckError):
        state = client.get(f"/v1/jobs/{segment(job)}")["state"]
        if state != "RUNNING":
            return f"{job} is {state.lower()}, so its port is closed"
    return (
        f"the attempt of {job} has ended, and its port with it; `qd forward` again for the next one"
    )
