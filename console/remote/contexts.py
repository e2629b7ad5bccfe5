"""Which cluster a command is meant for: this machine's, a host's, or one that has a name.

    context = "lab"                 # the one that is used when nothing else is said

    [contexts.lab]
    host = "me@head"
    socket = "/run/quarterdeck/api.sock"   # only where it is in none of the usual places

`--host` and `--context` are stronger than `QD_HOST` and `QD_CONTEXT`, and those than the config file.
Every command asks, so this imports nothing that takes time.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from console import guest
from jobs.base.errors import InvalidInput
from jobs.base.places import places

if TYPE_CHECKING:
    from console.remote.target import Target

HOST, CONTEXT = "QD_HOST", "QD_CONTEXT"

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*")
"""How a context may be called: what TOML takes as a key without quotes."""

LOCAL = "local"
"""The name of this machine's own cluster."""


def chosen(environ: Mapping[str, str] | None = None) -> Target | None:
    """The remote cluster that is meant; None is the one of this machine.

    Raises InvalidInput for a name that there is not, or a config file that cannot be read.
    """
    env = os.environ if environ is None else environ
    host, name = env.get(HOST), env.get(CONTEXT)
    if host and name:
        raise InvalidInput(
            f"both {HOST} ({host}) and {CONTEXT} ({name}) are set", "Unset one of them."
        )
    if host:
        from console.remote.target import parse

        return parse(host)
    path = places(env).config_file
    if not name:
        name = current(load(path), path)
    return named(name, path)


def named(name: str, path: Path) -> Target | None:
    """The context of that name; None for this machine's. Raises InvalidInput."""
    if name == LOCAL:
        return None
    held = contexts(load(path), path)
    if name not in held:
        from difflib import get_close_matches

        near = get_close_matches(name, [*held, LOCAL], n=1)
        known = f"There are {', '.join([LOCAL, *held])}." if held else "`qd context add` makes one."
        raise InvalidInput(
            f"there is no context '{name}'", f"Did you mean {near[0]}?" if near else known
        )
    return held[name]


def load(path: Path) -> dict[str, Any]:
    """The config file; an absent one is an empty one, and so is one that speaks of no context."""
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise InvalidInput(f"cannot read {path}: {error.strerror}") from error
    return read(text, path) if b"context" in text else {}


def read(text: bytes, path: Path) -> dict[str, Any]:
    """The content of a config file. Raises InvalidInput with the place of what is wrong in it."""
    import tomllib

    try:
        return tomllib.loads(text.decode())
    except ValueError as error:
        raise InvalidInput(f"{path}: {error}", "Correct it, or choose with --host.") from error


def contexts(config: Mapping[str, Any], path: Path) -> dict[str, Target]:
    """All contexts of a config file by name."""
    tables = config.get("contexts", {})
    if not isinstance(tables, dict):
        raise InvalidInput(f"{path}: [contexts] is not a table")
    return {name: _context(name, table, path) for name, table in tables.items()}


def _context(name: str, table: Any, path: Path) -> Target:
    where = f"{path}: [contexts.{name}]"
    if not isinstance(table, dict) or not isinstance(table.get("host"), str):
        raise InvalidInput(f"{where} has no host", 'It needs a line like host = "me@head".')
    if unknown := sorted(table.keys() - {"host", "socket"}):
        raise InvalidInput(f"{where}: '{unknown[0]}' is not known", "There are host and socket.")
    from console.remote.target import parse

    socket = table.get("socket")
    if socket is not None and not isinstance(socket, str):
        raise InvalidInput(f"{where}: socket is not a path")
    try:
        return parse(table["host"], socket=socket, context=name)
    except InvalidInput as error:
        raise InvalidInput(f"{where}: {error.message}", error.hint) from None


def current(config: Mapping[str, Any], path: Path) -> str:
    """The name that is used when nothing else is said."""
    name = config.get("context", LOCAL)
    if not isinstance(name, str) or not name:
        raise InvalidInput(f"{path}: context is not a name")
    return name


def choose(host: str | None, context: str | None) -> None:
    """Take what a command line says, for this process and those that it starts. Raises InvalidInput."""
    if host is not None or context is not None:
        guest.refuse("another cluster (--host, --context)")
    if host is not None and context is not None:
        raise InvalidInput("--host and --context exclude each other")
    if host is not None:
        from console.remote.target import parse

        parse(host)
        os.environ.pop(CONTEXT, None)
        os.environ[HOST] = host
    elif context is not None:
        if not context:
            raise InvalidInput("--context: an empty name")
        os.environ.pop(HOST, None)
        os.environ[CONTEXT] = context


@contextmanager
def unchanged() -> Iterator[None]:
    """What is chosen inside is forgotten outside."""
    held = {name: os.environ.get(name) for name in (HOST, CONTEXT)}
    try:
        yield
    finally:
        for name, value in held.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
