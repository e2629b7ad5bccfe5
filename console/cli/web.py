"""`qd web`: the console in a browser of this machine."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from console.cli.options import Json
from console.cli.output import emit, narrate, say
from jobs.base.errors import InvalidInput, QuarterdeckError


def web(
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port on 127.0.0.1; 0 takes a free one.")
    ] = 0,
    screen: Annotated[
        str | None,
        typer.Option(
            "--screen", metavar="NAME", help="Open it at this screen, as `qd --screen` does."
        ),
    ] = None,
    read_only: Annotated[
        bool, typer.Option("--read-only", help="Open it without actions.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Serve the console to a browser on this machine.

    The printed address contains a secret, because 127.0.0.1 is open to everyone who has an account
    here: whoever has the address acts as you. From elsewhere: `ssh -L 8000:127.0.0.1:PORT HOST`.
    Ctrl-C ends it.
    """
    try:
        from console.web.server import WebConsole
    except ImportError as error:
        raise QuarterdeckError(
            f"qd web needs a package that is not installed ({error.name})",
            "Install it: pip install 'quarterdeck[web]'",
        ) from error
    options = (["--screen", screen] if screen else []) + (["--read-only"] if read_only else [])
    try:
        console = WebConsole(port, options)
    except OSError as error:
        raise InvalidInput(
            f"cannot listen on 127.0.0.1:{port}: {os.strerror(error.errno or 0)}",
            "Choose another port with --port, or leave it out.",
        ) from error
    if as_json:
        emit({"url": console.address})
    else:
        say(console.address)
        narrate("Open it in a browser on this machine. Whoever has it acts as you. Ctrl-C ends it.")
    console.serve()
