"""The command line of `qd`: find the command, run it, and say what went wrong in words."""

from __future__ import annotations

import importlib
import io
import json
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from difflib import get_close_matches
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.exceptions import TyperException

from console.cli.coercion import lighten
from console.cli.commands import COMMANDS, Entry
from console.cli.main import open_console
from console.cli.output import narrate, paint
from console.cli.where import act_here, options, take
from console.remote.contexts import unchanged
from jobs.errors import QuarterdeckError

INTERRUPTED = 130
BROKEN_PIPE = 141  # what a shell reports for a program that SIGPIPE ended

_SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class _Command(TyperCommand):
    here = False

    def get_params(self, ctx: Any) -> list[Any]:
        *own, help_ = lighten(super().get_params(ctx))
        return [*own, *options(), help_]

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        rest = super().parse_args(ctx, args)
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


class _LazyGroup(TyperGroup):
    """The root command. It knows its commands from the table, and imports the one that is used."""

    def get_params(self, ctx: Any) -> list[Any]:
        *own, help_ = lighten(super().get_params(ctx))
        return [*own, *options(), help_]

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        rest = super().parse_args(ctx, args)
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
        except BrokenPipeError:  # before Typer makes it exit code 1
            raise typer.Exit(_leave_quietly()) from None

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        name = args[0]
        if name not in COMMANDS and not name.startswith("-") and not ctx.resilient_parsing:
            near = get_close_matches(name, COMMANDS, n=1)
            message = f"there is no command '{name}'"
            ctx.fail(f"{message}; did you mean `qd {near[0]}`?" if near else message)
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
    read_only: bool = typer.Option(
        False, "--read-only", help="Open the console without its actions."
    ),
    ascii_only: bool = typer.Option(
        False, "--ascii", help="Open the console without block characters."
    ),
    screen: str | None = typer.Option(
        None,
        "--screen",
        metavar="NAME",
        help="Open the console there: cluster, jobs, sweeps, events, or a job's or sweep's id. "
        "`qd j12` does so too.",
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
        open_console(screen=screen, read_only=read_only, ascii_only=ascii_only)


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
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # no encoding may break a command
            stream.reconfigure(errors="backslashreplace")
    try:
        with unchanged():
            code = _application().main(args=words, prog_name="qd", standalone_mode=False)
        sys.stdout.flush()
    except BrokenPipeError:
        return _leave_quietly()
    except (KeyboardInterrupt, Exception) as error:
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


def _leave_quietly() -> int:
    """The reader of our output is gone, as in `qd jobs | head`: no word about it, and none from
    the interpreter when it flushes at exit."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return BROKEN_PIPE
