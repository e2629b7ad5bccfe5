"""The command line of `qd`: find the command, run it, and say what went wrong in words."""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from difflib import get_close_matches
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.exceptions import TyperException

from console import guest
from console.cli.coercion import lighten
from console.cli.commands import COMMANDS, Entry
from console.cli.main import open_console
from console.cli.output import narrate, paint
from console.cli.stdout import ReaderLeft
from console.cli.where import act_here, options, take
from console.gateway import offered
from console.remote.contexts import unchanged
from jobs.base.errors import QuarterdeckError

INTERRUPTED = 130
BROKEN_PIPE = 141  # what a shell reports for a program that SIGPIPE ended

_SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


_BARE = {"--shadow": "10"}
"""Options whose value, a number, may be left out, and what it is then."""


def _filled(args: list[str]) -> list[str]:
    out = []
    for at, word in enumerate(args):
        out.append(word)
        after = args[at + 1] if at + 1 < len(args) else ""
        if word in _BARE and not after.rstrip("%").replace(".", "", 1).isdigit():
            out.append(_BARE[word])
    return out


class _Command(TyperCommand):
    here = False

    def get_params(self, ctx: Any) -> list[Any]:
        *own, help_ = lighten(super().get_params(ctx))
        return [*own, *options(), help_]

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        rest = super().parse_args(ctx, _filled(args))
        take(ctx)
        return rest

    def invoke(self, ctx: Any) -> Any:
        if self.here:
            act_here(ctx.info_name)
        return super().invoke(ctx)


class _WithCommand(_Command):
    """A command that ends with a command line of the user's, after `--`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if "--" in args:
            at = args.index("--")
            args, ctx.meta["command"] = args[:at], args[at + 1 :]
        return super().parse_args(ctx, args)


class _Noun(TyperGroup):
    """A command with commands below it, each imported when it is used."""

    verbs: Mapping[str, Entry]

    def get_params(self, ctx: Any) -> list[Any]:
        *own, help_ = lighten(super().get_params(ctx))
        return [*own, *options(), help_]

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        rest = super().parse_args(ctx, _filled(args))
        take(ctx)
        return rest

    def list_commands(self, ctx: Any) -> list[str]:
        return list(self.verbs)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        entry = self.verbs.get(cmd_name)
        return None if entry is None else build(cmd_name, entry)

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        if args[0] not in self.verbs and not ctx.resilient_parsing:
            near = get_close_matches(args[0], self.verbs, n=1)
            message = f"there is no command '{ctx.command_path} {args[0]}'"
            wanted = f"`{ctx.command_path} {near[0]}`" if near else ", ".join(self.verbs)
            ctx.fail(f"{message}; did you mean {wanted}?" if near else f"{message}; {wanted}")
        if guest.folder() is not None and args[0] in self.verbs:
            offered.check(f"{ctx.info_name} {args[0]}")
        self.callback = None  # what the noun does alone is not part of its verbs
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.help) for name, entry in self.verbs.items()])


class _LazyGroup(TyperGroup):
    """The root command. It knows its commands from the table, and imports the one that is used."""

    def get_params(self, ctx: Any) -> list[Any]:
        *own, help_ = lighten(super().get_params(ctx))
        return [*own, *options(), help_]

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        rest = super().parse_args(ctx, _filled(args))
        take(ctx)
        return rest

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        entry = COMMANDS.get(cmd_name)
        return None if entry is None else build(cmd_name, entry)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (BrokenPipeError, ReaderLeft):  # before Typer makes it exit code 1
            raise typer.Exit(BROKEN_PIPE) from None

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        name = args[0]
        if name not in COMMANDS and not name.startswith("-") and not ctx.resilient_parsing:
            near = get_close_matches(name, COMMANDS, n=1)
            message = f"there is no command '{name}'"
            ctx.fail(f"{message}; did you mean `qd {near[0]}`?" if near else message)
        if guest.folder() is not None and name in COMMANDS:
            offered.check(name)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        for section in dict.fromkeys(entry.section for entry in COMMANDS.values()):
            with formatter.section(section):
                formatter.write_dl(
                    [(name, e.help) for name, e in COMMANDS.items() if e.section == section]
                )

    def shell_complete(self, ctx: Any, incomplete: str) -> list[Any]:
        from typer._click.shell_completion import CompletionItem

        if incomplete.startswith("-"):
            return super().shell_complete(ctx, incomplete)
        return [
            CompletionItem(name, help=entry.help)
            for name, entry in COMMANDS.items()
            if name.startswith(incomplete)
        ]


def build(name: str, entry: Entry) -> Any:
    """Import a command of the table and make it a Typer command."""
    module, _, function = entry.place.partition(":")
    callback: Callable[..., Any] = getattr(importlib.import_module(module), function)
    app = typer.Typer(add_completion=False, rich_markup_mode=None, context_settings=_SETTINGS)
    if entry.verbs:
        app.callback(cls=_Noun, invoke_without_command=True)(callback)
        noun = typer.main.get_command(app)
        noun.name = name
        assert isinstance(noun, _Noun)
        noun.verbs = entry.verbs
        return noun
    app.command(name, cls=_WithCommand if entry.takes_command else _Command)(callback)
    command = typer.main.get_command(app)
    if isinstance(command, _Command):
        command.here = entry.here
    return command


def _version(value: bool) -> None:
    if value:
        from importlib.metadata import version

        print(f"qd {version('quarterdeck')}")
        raise typer.Exit


def _root(
    ctx: typer.Context,
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Show the version and exit."
    ),
    read_only: bool = typer.Option(False, "--read-only", help="Open the console without actions."),
    ascii_only: bool = typer.Option(
        False, "--ascii", help="Open the console without block characters."
    ),
    screen: str | None = typer.Option(
        None,
        "--screen",
        metavar="NAME",
        help="Open the console at this place: cluster, jobs, sweeps, models, deployments, pipelines, alerts, "
        "events, or the id of a job, sweep or pipeline. `qd j12` does so too.",
        show_default=False,
    ),
) -> None:
    """Quarterdeck: a control plane for GPU training clusters.

    Without a command it opens the console.
    """
    if ctx.invoked_subcommand is None:
        if not (sys.stdin.isatty() and sys.stdout.isatty()):
            print(ctx.get_help())
            return
        if code := open_console(screen=screen, read_only=read_only, ascii_only=ascii_only):
            raise typer.Exit(code)


def _application() -> Any:
    app = typer.Typer(
        cls=_LazyGroup,
        invoke_without_command=True,
        rich_markup_mode=None,
        context_settings=_SETTINGS,
    )
    app.callback()(_root)
    return typer.main.get_command(app)


def run(words: Sequence[str]) -> int:
    """Run one command line and return its exit code (they are listed in docs/cli.md).

    Args:
        words: what stands after `qd`.
    """
    words = list(words)
    ours = words[: words.index("--")] if "--" in words else words
    as_json = "--json" in ours
    try:
        with unchanged():
            code = _application().main(args=words, prog_name="qd", standalone_mode=False)
        sys.stdout.flush()
    except (BrokenPipeError, ReaderLeft):
        return BROKEN_PIPE
    except (KeyboardInterrupt, Exception) as error:
        with suppress(Exception):  # what was said before the error comes before it
            sys.stdout.flush()
        return told(error, as_json)
    return code if isinstance(code, int) else 0


def told(error: BaseException, as_json: bool = False) -> int:
    """Say on stderr what went wrong; gives the exit code for it. With QD_DEBUG, a fault is raised."""
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    if isinstance(error, TyperException):
        return _wrong_usage(error, as_json)
    if isinstance(error, QuarterdeckError):
        _report(error.message, error.hint, error.to_json(), as_json)
        return error.exit_code
    if os.environ.get("QD_DEBUG"):
        raise error
    _report(
        f"qd met a fault of its own: {type(error).__name__}: {error}",
        "Run it again with QD_DEBUG=1 to see where.",
        QuarterdeckError(f"{type(error).__name__}: {error}").to_json(),
        as_json,
    )
    return 1


def _wrong_usage(error: TyperException, as_json: bool) -> int:
    context = getattr(error, "ctx", None)
    near = getattr(error, "possibilities", None)
    message = error.message if near else error.format_message()
    if near:
        hint = f"Did you mean {near[0]}?"
    else:
        path = context.command_path if context else "qd"
        hint = getattr(error, "hint", "") or f"`{path} -h` shows how it is used."
    document = {"error": {"code": "invalid", "message": message, "hint": hint, "details": {}}}
    _report(message, hint, document, as_json)
    return error.exit_code


def _report(message: str, hint: str, document: dict[str, Any], as_json: bool) -> None:
    with suppress(BrokenPipeError):
        if as_json:
            print(json.dumps(document), file=sys.stderr, flush=True)
            return
        prefix = paint("qd:", "red", sys.stderr)
        print(prefix, end=" ", file=sys.stderr)
        for line in [*message.splitlines(), *hint.splitlines()]:
            narrate(line)
