"""The entry point of `qd`. Opening the console needs no command line parser, and does not wait for one."""

from __future__ import annotations

import gc
import importlib
import os
import re
import sys
from collections.abc import Sequence
from typing import Any

from console.cli.stdout import guard

_PLACE = re.compile(r"[jps]\d+")
_CANNOT_DRAW = ("dumb", "unknown")
"""What TERM says where a cursor cannot be moved: all pictures would run over the screen without end."""
_PLAIN_FONTS = ("linux", "vt100", "vt220")
"""Terminals whose fonts have no braille and few other signs: as with `--ascii`."""
_TAKE_A_WORD = ("--host", "--context", "--screen")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code (they are listed in docs/cli.md).

    Args:
        argv: the words after `qd`; those of this process by default.
    """
    guard()
    words = _opened(list(sys.argv[1:] if argv is None else argv))
    options = _console(words)
    if options is not None and sys.stdin.isatty() and sys.stdout.isatty():
        try:
            if place := {
                name: options.pop(name) for name in ("host", "context") if name in options
            }:
                from console.remote.contexts import choose

                choose(place.get("host"), place.get("context"))
            return open_console(**options)
        except (KeyboardInterrupt, Exception) as error:
            from console.cli.program import told

            return told(error)
    from console.cli.program import (
        run,  # all that parses: it takes as long as a small command itself
    )

    return run(words)


def open_console(**options: Any) -> int:
    """Open the console; `options` are those of `console.tui.app.run`. Gives the exit code.

    Raises:
        InvalidInput: the terminal cannot move its cursor.
    """
    if (terminal := os.environ.get("TERM", "")) in _CANNOT_DRAW:
        from jobs.base.errors import InvalidInput

        raise InvalidInput(
            f"the console cannot draw on this terminal (TERM={terminal})",
            hint="Set TERM to the terminal's type, such as TERM=xterm-256color; or use the commands, which "
            "work on any terminal: `qd status`, `qd jobs`, `qd logs JOB`.",
        )
    if terminal in _PLAIN_FONTS:
        options["ascii_only"] = True
    # Until the first picture nothing that is made is garbage; `QuarterdeckApp.open` switches it on again.
    gc.disable()
    # By name: the import graph of the commands stays free of the TUI.
    return int(importlib.import_module("console.tui.app").run(**options))


def _opened(words: list[str]) -> list[str]:
    """`qd j12` is short for `qd --screen j12`."""
    for index, word in enumerate(words):
        if index and words[index - 1] in _TAKE_A_WORD:
            continue
        if _PLACE.fullmatch(word):
            return [*words[:index], "--screen", word, *words[index + 1 :]]
        if not word.startswith("-"):
            break
    return words


def _console(words: Sequence[str]) -> dict[str, Any] | None:
    """What the words say of the console when they say nothing else; None when the parser has to look."""
    options: dict[str, Any] = {"screen": None, "read_only": False, "ascii_only": False}
    rest = iter(words)
    for word in rest:
        option, given, value = word.partition("=")
        if word == "--read-only":
            options["read_only"] = True
        elif word == "--ascii":
            options["ascii_only"] = True
        elif option in _TAKE_A_WORD:
            name = value if given else next(rest, "-")
            if not name or name.startswith("-"):
                return None
            options[option.removeprefix("--")] = name
        else:
            return None
    return options


if __name__ == "__main__":
    sys.exit(main())
