"""`qd gateway`: lets people in by SSH, with a key each."""

from __future__ import annotations

import importlib
import logging
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from console.cli.options import Json
from console.cli.output import emit, narrate, say
from jobs.base.errors import InvalidInput
from jobs.base.places import places

_PORT = 2222


def gateway(
    listen: Annotated[
        str,
        typer.Option(
            metavar="[ADDRESS:]PORT", help="Where to listen; 0.0.0.0:2222 is open to other hosts."
        ),
    ] = f"127.0.0.1:{_PORT}",
    keys: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="Public keys: a folder with a file for each person, or one file.",
            show_default="gateway/keys in the config folder",
        ),
    ] = None,
    max_sessions: Annotated[
        int, typer.Option(min=1, metavar="N", help="Maximum number of sessions at a time.")
    ] = 200,
    max_sessions_per_key: Annotated[
        int,
        typer.Option("--max-sessions-per-key", min=1, metavar="N", help="The same for one key."),
    ] = 64,
    as_json: Json = False,
) -> None:
    """Offer the console and the commands over SSH.

    \b
      ssh -t -p 2222 head                    the console
      ssh -p 2222 head jobs --json           a command
      ssh -p 2222 head submit - < job.yaml   a job

    Each person has a file of public keys, with a role before each key: role="operator" ssh-ed25519 ...
    It runs until it is stopped, as the user who runs the cluster; see docs/gateway.md.
    """
    logging.basicConfig(level="WARNING", format="%(levelname)s %(message)s")
    logging.getLogger("asyncssh").setLevel(logging.ERROR)
    os.umask(0o077)
    # By name: no command waits for the SSH library.
    server: Any = importlib.import_module("console.gateway.server")
    gates: Any = importlib.import_module("console.gateway.gates")
    where = places()
    address, port = _place(listen)
    settings = server.Settings(
        where,
        address,
        port,
        keys or where.config / "gateway" / "keys",
        gates.Limits(sessions=max_sessions, sessions_each=max_sessions_per_key),
    )

    def listening(running: Any) -> None:
        shown = address or "all addresses"
        print_ = running.host_key.get_fingerprint()
        if as_json:
            emit({"address": address, "port": running.port, "host_key": print_})
        else:
            say(f"listening on {shown}, port {running.port}")
            narrate(f"host key: {print_}")
            narrate(f"public keys: {settings.keys}")
        sys.stdout.flush()

    import asyncio  # here: no other command waits for it

    try:
        asyncio.run(server.serve(settings, listening))
    except OSError as error:
        raise InvalidInput(
            f"cannot listen on {listen}: {os.strerror(error.errno or 0)}",
            "Choose another address with --listen.",
        ) from error


def _place(text: str) -> tuple[str, int]:
    """`2222`, `0.0.0.0:2222`, `[::]:2222`, `*:2222`. Raises InvalidInput."""
    address, colon, port = text.rpartition(":")
    if (
        not port.isdecimal()
        or int(port) > 65535
        or (":" in address and not address.startswith("["))
    ):
        raise InvalidInput(
            f"--listen {text}: not an address to listen on", "Give a port, or ADDRESS:PORT."
        )
    address = address.strip("[]")
    return ("127.0.0.1" if not colon else "" if address == "*" else address), int(port)
