"""Commands as text: a name for a job that has none, and `{param}` places filled in."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import PurePosixPath

from jobs.base.errors import InvalidInput
from jobs.base.units import show

Scalar = bool | int | float | str | None
Command = str | tuple[str, ...]

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=.*", re.DOTALL)
_LAUNCHERS = {
    "accelerate", "bash", "deepspeed", "env", "exec", "launch", "nice", "nohup", "poetry", "python",
    "run", "sh", "sudo", "time", "torchrun", "uv",
}  # fmt: skip
_PYTHON = re.compile(r"python[0-9.]*")

# `{{x}}` is a literal of other template languages, and `${x}` a variable of the shell.
_PLACE = re.compile(r"(?<![{$])\{([A-Za-z_][A-Za-z0-9_]*)\}(?!\})")


_SHELL_SYNTAX = frozenset(";&|(){}<>`#!\n")
_OF_THE_SHELL = {
    ".", ":", "[", "alias", "bg", "break", "case", "cd", "command", "continue", "do", "done", "elif",
    "else", "esac", "eval", "exec", "exit", "export", "fg", "fi", "for", "getopts", "hash", "if", "in",
    "jobs", "local", "printf", "pwd", "read", "readonly", "return", "set", "shift", "test", "then",
    "times", "trap", "type", "ulimit", "umask", "unalias", "unset", "until", "wait", "while",
}  # fmt: skip


def shell_argv(command: str) -> list[str]:
    """How /bin/sh runs a command. A single program takes the shell's place: then the rank's process is
    the program itself, which gets its signals and dies with its guard, and not a shell around it."""
    first = command.split(maxsplit=1)[0] if command.strip() else ""
    plain = (
        first not in _OF_THE_SHELL
        and not _ASSIGNMENT.fullmatch(first)
        and not _SHELL_SYNTAX & set(command)
    )
    return ["/bin/sh", "-c", f"exec {command.strip()}" if first and plain else command]


def derive_name(command: Command) -> str:
    """A job name from its command: the script's name, or else the program's.

    `python -m train.main --lr 1` is `train.main`, `torchrun a/train.py` is `train`, `echo hi` is
    `echo`. The result always matches `NAME`.
    """
    if isinstance(command, str):
        try:
            words = shlex.split(command, comments=True)
        except ValueError:  # an open quote: the shell will say so
            words = command.split()
    else:
        words = list(command)
    for word in words:
        base = PurePosixPath(word).name
        if word.startswith("-") or _ASSIGNMENT.fullmatch(word):
            continue
        if base in _LAUNCHERS or _PYTHON.fullmatch(base):
            continue
        return _clean(base.removesuffix(".py").removesuffix(".sh"))
    return _clean(PurePosixPath(words[0]).name) if words else "job"


def _clean(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._")[:63].strip("-._") or "job"


def places(command: Command) -> set[str]:
    """The names that stand in braces in a command."""
    parts = (command,) if isinstance(command, str) else command
    return {name for part in parts for name in _PLACE.findall(part)}


def fill(command: Command, values: Mapping[str, Scalar]) -> Command:
    """The command with `{name}` replaced for every name in `values`; other braces stay.

    In a list of arguments a value goes in as it is. In a shell command it is quoted for the place it
    stands in, so that no value can become shell syntax. Raises InvalidInput for a value that cannot be
    quoted there.
    """
    if not isinstance(command, str):
        return tuple(
            _PLACE.sub(lambda match: _text_or_same(match, values), part) for part in command
        )
    result: list[str] = []
    start = 0
    quote = ""
    for match in _PLACE.finditer(command):
        before = command[start : match.start()]
        quote = _quote_after(before, quote)
        filled = match[0]
        if match[1] in values:
            text = as_text(values[match[1]])
            filled = _quoted(text, quote, match[1], substitutes=_substitutes(command))
        result += [before, filled]
        start = match.end()
    return "".join((*result, command[start:]))


def as_text(value: Scalar) -> str:
    """A parameter as a command line shows it: `true`, `null`, `0.001`."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value) if isinstance(value, float) else str(value)


def _text_or_same(match: re.Match[str], values: Mapping[str, Scalar]) -> str:
    return as_text(values[match[1]]) if match[1] in values else match[0]


def _substitutes(command: str) -> bool:
    return "$(" in command or "`" in command


def _quote_after(text: str, quote: str) -> str:
    """Which quote is open at the end of `text`, when `quote` was open at its start ('' for none)."""
    escaped = False
    for char in text:
        if escaped:
            escaped = False
        elif char == "\\" and quote != "'":
            escaped = True
        elif quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
    return quote


def _quoted(text: str, quote: str, name: str, *, substitutes: bool) -> str:
    safe = shlex.quote(text)
    if safe == text or not quote:
        return safe
    if quote == "'":
        return text.replace("'", "'\\''")
    if substitutes:
        # "$(prog {x})": the inner command would read the value as syntax again.
        raise InvalidInput(
            f"the value {show(text)} of '{name}' cannot be quoted inside a command substitution",
            f"Put {{{name}}} outside of the double quotes, or give the command as a list.",
        )
    return re.sub(r'([\\"$`])', r"\\\1", text)
