"""Changes what the config file says of contexts, and leaves every other line as it is.

There is no TOML writer that keeps comments among what we depend on, and none is needed: lines are put in
or taken out, the outcome is read again, and a file that does not say exactly what it should is not written.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from console.remote.contexts import LOCAL, read
from console.remote.target import Target
from jobs.base.disk import cannot_write
from jobs.base.errors import InvalidInput

_TABLE = re.compile(r"\s*\[")
_COMMENT = re.compile(r"\s*#")
_CURRENT = re.compile(r"\s*context\s*=")


def add(path: Path, name: str, target: Target) -> None:
    """Write a context, in the place of one that has its name."""
    table = {"host": target.address} | ({"socket": target.socket} if target.socket else {})
    lines = [f"[contexts.{name}]", *(f"{key} = {_string(value)}" for key, value in table.items())]

    def wanted(config: dict[str, Any]) -> None:
        config.setdefault("contexts", {})[name] = table

    def changed(held: list[str]) -> list[str]:
        rest = _without(held, name)
        while rest and not rest[-1].strip():
            rest.pop()
        return [*rest, *([""] if rest else []), *lines]

    _change(path, changed, wanted)


def remove(path: Path, name: str) -> None:
    """Take a context out; when it was the current one, this machine's is again."""

    def wanted(config: dict[str, Any]) -> None:
        del config["contexts"][name]
        if not config["contexts"]:
            del config["contexts"]
        if config.get("context") == name:
            del config["context"]

    def changed(held: list[str]) -> list[str]:
        text = "\n".join(held)
        rest = _without(held, name)
        return _uncurrent(rest) if read(text.encode(), path).get("context") == name else rest

    _change(path, changed, wanted)


def use(path: Path, name: str) -> None:
    """Make a context the current one; `local` is this machine's."""

    def wanted(config: dict[str, Any]) -> None:
        config.pop("context", None)
        if name != LOCAL:
            config["context"] = name

    def changed(held: list[str]) -> list[str]:
        line = f"context = {_string(name)}"
        top = _top(held)
        at = next((i for i in range(top) if _CURRENT.match(held[i])), None)
        if name == LOCAL:
            return _uncurrent(held)
        if at is not None:
            return [*held[:at], line, *held[at + 1 :]]
        # Before the first table, or it would belong to that; comments that head the file stay there.
        start = next((i for i in range(top) if not held[i].lstrip().startswith("#")), top)
        after = [""] if start == top < len(held) else []
        return [*held[:start], line, *after, *held[start:]]

    _change(path, changed, wanted)


def _top(lines: list[str]) -> int:
    """How many lines stand before the first table."""
    return next((i for i, line in enumerate(lines) if _TABLE.match(line)), len(lines))


def _uncurrent(lines: list[str]) -> list[str]:
    top = _top(lines)
    return [line for i, line in enumerate(lines) if i >= top or not _CURRENT.match(line)]


def _without(lines: list[str], name: str) -> list[str]:
    """The lines without a context's table. Comments stay, be it that they stood in its midst."""
    head = re.compile(rf"\s*\[\s*contexts\s*\.\s*[\"']?{re.escape(name)}[\"']?\s*\]")
    at = next((i for i, line in enumerate(lines) if head.match(line)), None)
    if at is None:
        return list(lines)
    end = next((i for i in range(at + 1, len(lines)) if _TABLE.match(lines[i])), len(lines))
    while end > at + 1 and (not lines[end - 1].strip() or _COMMENT.match(lines[end - 1])):
        end -= 1
    return lines[:at] + [line for line in lines[at:end] if _COMMENT.match(line)] + lines[end:]


def _string(text: str) -> str:
    return json.dumps(
        text, ensure_ascii=False
    )  # a basic string of TOML is written like one of JSON


def _change(
    path: Path,
    changed: Callable[[list[str]], list[str]],
    wanted: Callable[[dict[str, Any]], None],
) -> None:
    """Write the changed lines, whole or not at all. Raises InvalidInput where they would say something
    else than what is wanted."""
    path = path.resolve()  # dotfiles are often links
    try:
        before = path.read_bytes()
    except FileNotFoundError:
        before = b""
    except OSError as error:
        raise InvalidInput(f"cannot read {path}: {error.strerror}") from error
    config: dict[str, Any] = read(before, path)
    wanted(config)
    lines = changed(before.decode().splitlines())
    while lines and not lines[-1].strip():
        lines.pop()
    after = "".join(f"{line}\n" for line in lines).encode()
    if not _says(after, config, path):
        raise InvalidInput(
            f"{path} cannot be changed safely by this command",
            "Change it by hand; docs/remote.md shows how a context is written.",
        )
    if after != before:
        _write(path, after)


def _says(text: bytes, config: Mapping[str, Any], path: Path) -> bool:
    try:
        return read(text, path) == config
    except InvalidInput:
        return False


def _write(path: Path, text: bytes) -> None:
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        mode = path.stat().st_mode & 0o777 if path.exists() else 0o600
        with part.open("wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise cannot_write(path, error) from error
