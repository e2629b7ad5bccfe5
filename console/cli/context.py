"""`qd context`: names for clusters on other hosts, kept in the config file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from console.cli.details import facts
from console.cli.options import Json
from console.cli.output import Column, emit, narrate, say, show
from console.cli.where import complete_context
from console.remote import contexts
from jobs.base.errors import Conflict, InvalidInput, NotFound
from jobs.base.places import places

if TYPE_CHECKING:
    from pathlib import Path

    from console.remote.target import Target

_ACTIONS = ("list", "add", "use", "show", "remove")
_BACK = "-"
_COLUMNS = [Column(""), Column("NAME"), Column("HOST", flex=True), Column("SOCKET", flex=True)]


def context(
    action: Annotated[
        str,
        typer.Argument(
            metavar="ACTION",
            help="list, add, use, show or remove.",
            autocompletion=lambda incomplete: [a for a in _ACTIONS if a.startswith(incomplete)],
        ),
    ] = "list",
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME",
            help="A context; local, or -, is this machine's cluster.",
            autocompletion=complete_context,
            show_default=False,
        ),
    ] = None,
    host: Annotated[
        str | None,
        typer.Argument(
            metavar="HOST", help="With add: [user@]host[:port], as for ssh.", show_default=False
        ),
    ] = None,
    socket: Annotated[
        str | None,
        typer.Option(
            metavar="PATH",
            help="With add: the API's socket on the host, if it is in none of the usual places.",
        ),
    ] = None,
    use: Annotated[bool, typer.Option("--use", help="With add: make it the current one.")] = False,
    as_json: Json = False,
) -> None:
    """Name clusters on other hosts, and choose one.

    \b
      qd context add lab me@head --use    all commands use that cluster from now on
      qd --context local jobs             this one uses this machine's
      qd context use local                all use this machine's again
      qd context show [NAME] | list | remove NAME
    """
    if action not in _ACTIONS:
        raise InvalidInput(
            f"qd context: there is no '{action}'", f"There are {', '.join(_ACTIONS)}."
        )
    _usage(action, name, host, socket, use)
    path = places().config_file
    if action == "list":
        _list(path, as_json)
    elif action == "show":
        _show(path, name, as_json)
    else:
        assert name is not None
        _change(path, action, contexts.LOCAL if name == _BACK else name, host, socket, use)
        if as_json:
            emit(_rows(path))


def _usage(action: str, name: str | None, host: str | None, socket: str | None, use: bool) -> None:
    wanted = {"list": (False, False), "show": (None, False), "add": (True, True)}
    needs_name, needs_host = wanted.get(action, (True, False))
    if needs_name and name is None:
        raise InvalidInput(f"qd context {action}: which one?", "Give a NAME.")
    if needs_host and host is None:
        raise InvalidInput("qd context add: where is it?", "Give the host: `add lab me@head`.")
    if (needs_name is False and name is not None) or (not needs_host and host is not None):
        raise InvalidInput(f"qd context {action}: too many words", "See `qd context -h`.")
    if action != "add" and (socket is not None or use):
        raise InvalidInput("--socket and --use apply only to `qd context add`")


def _change(
    path: Path, action: str, name: str, host: str | None, socket: str | None, use: bool
) -> None:
    from console.remote import configfile
    from console.remote.target import parse

    held = contexts.contexts(contexts.load(path), path)
    if action == "add":
        if name == contexts.LOCAL or not contexts.NAME.fullmatch(name):
            raise InvalidInput(
                f"'{name}' cannot name a context", "Use letters, digits, dashes and underscores."
            )
        target = parse(host or "", socket=socket, context=name)
        configfile.add(path, name, target)
        narrate(f"{name} is {target.address}" + (", and the current one" if use else ""))
        if not use:
            narrate(f"`qd --context {name} status` tries it, `qd context use {name}` stays there")
    elif name != contexts.LOCAL or action == "remove":
        _known(held, name)
    if action == "remove":
        configfile.remove(path, name)
        narrate(f"{name} is forgotten")
    elif action == "use" or use:
        configfile.use(path, name)
        if not use:
            narrate(_current_words(name, held.get(name)))


def _current_words(name: str, target: Target | None) -> str:
    if target is None:
        return "commands are for this machine's cluster again"
    return f"commands are for {target.words} from now on; `qd context use local` goes back"


def _known(held: dict[str, Target], name: str) -> Target:
    if name == contexts.LOCAL:
        raise Conflict("local is this machine's own cluster", "It is always there.")
    if name not in held:
        known = ", ".join(held) or "none yet"
        raise NotFound(f"there is no context '{name}'", f"There are: {known}.")
    return held[name]


def _rows(path: Path) -> list[dict[str, Any]]:
    """All contexts, this machine's first; `current` is what the config file says."""
    config = contexts.load(path)
    current = contexts.current(config, path)
    rows = [{"name": contexts.LOCAL, "host": None, "socket": str(places().socket)}]
    for name, target in contexts.contexts(config, path).items():
        rows.append({"name": name, "host": target.address, "socket": target.socket})
    return [{**row, "current": row["name"] == current} for row in rows]


def _list(path: Path, as_json: bool) -> None:
    rows = _rows(path)
    if as_json:
        emit(rows)
        return
    lines = [
        ["*" * row["current"], row["name"], row["host"] or "this machine", row["socket"] or ""]
        for row in rows
    ]
    show(_COLUMNS, lines)


def _show(path: Path, name: str | None, as_json: bool) -> None:
    """One context; without a name the cluster for which commands are now, whoever chose it."""
    if name is not None:
        wanted = contexts.LOCAL if name == _BACK else name
        if wanted != contexts.LOCAL:
            _known(contexts.contexts(contexts.load(path), path), wanted)
        target = contexts.named(wanted, path)
    else:
        target = contexts.chosen()
    row = {
        "name": contexts.LOCAL if target is None else target.context,
        "host": None if target is None else target.address,
        "socket": str(places().socket) if target is None else target.socket,
        "config": str(path),
    }
    if as_json:
        emit(row)
        return
    say(f"{row['name'] or row['host']}")
    facts(
        [
            ("host", row["host"] or "this machine"),
            ("socket", row["socket"] or "where it is found there"),
            ("config", str(path)),
        ]
    )
