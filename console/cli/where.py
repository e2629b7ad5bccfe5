"""`--host` and `--context`, which every command takes: which cluster it is meant for."""

from __future__ import annotations

from contextlib import suppress
from functools import lru_cache
from typing import Annotated, Any

import typer

from console.cli.coercion import lighten
from console.remote.contexts import choose, chosen
from jobs.base.errors import InvalidInput

_HOST, _CONTEXT = "on_host", "in_context"


def complete_context(incomplete: str) -> list[str]:
    """Names of contexts."""
    from console.remote.contexts import LOCAL, contexts, load
    from jobs.base.places import places

    path = places().config_file
    with suppress(InvalidInput):
        names = [LOCAL, *contexts(load(path), path)]
        return [name for name in names if name.startswith(incomplete)]
    return []


def _where(
    on_host: Annotated[
        str | None,
        typer.Option(
            "--host", metavar="[USER@]HOST[:PORT]", help="Use the cluster of that host, over SSH."
        ),
    ] = None,
    in_context: Annotated[
        str | None,
        typer.Option(
            "--context",
            metavar="NAME",
            help="Use the cluster of that name (`qd context`); local is this machine's.",
            autocompletion=complete_context,
        ),
    ] = None,
) -> None:
    """Stands for the two options."""


@lru_cache(maxsize=1)
def options() -> list[Any]:
    """The two options, for the parameters of any command."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command()(_where)
    return lighten(list(typer.main.get_command(app).params))


def take(ctx: Any) -> None:
    """Take what was parsed out of a command's parameters, and choose by it for this process.

    A command's own options override those before it. Raises InvalidInput, except where a
    shell completes a line that is not whole yet.
    """
    host, context = ctx.params.pop(_HOST, None), ctx.params.pop(_CONTEXT, None)
    with suppress(*([InvalidInput] if ctx.resilient_parsing else [])):
        choose(host, context)


def act_here(name: str) -> None:
    """Refuse where another host's cluster is chosen. Raises InvalidInput."""
    target = chosen()
    if target is not None:
        raise InvalidInput(
            f"`qd {name}` acts on the machine where it is run, but {target.words} is chosen",
            f"There: `{target.ssh} qd {name}`. Here: `qd --context local {name}`.",
        )
