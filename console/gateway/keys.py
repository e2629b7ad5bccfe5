"""Whose key it is: files in the format of sshd's authorized_keys, with a role and a name for each key.

In a folder the file is the person: `keys/mira` (or `mira.pub`) holds Mira's keys, and each line may begin
with `role="operator"`. In a single file each line names its person: `name="mira",role="operator"
ssh-ed25519 AAAA...`. Without a role a key is a viewer's. sshd's own options `from=`, `cert-authority`
and `principals=` mean what they mean there.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import asyncssh

from jobs.access.roles import Role, check_person
from jobs.base.errors import InvalidInput
from jobs.wire.introductions import Introduction

_PERSON, _ROLE, _LINE = "qd-person", "qd-role", "qd-line"
_KEY_TYPES = ("ssh-", "ecdsa-", "sk-")
_LARGEST = 1 << 20
"""Bytes of a file of keys."""


@dataclass(frozen=True)
class Keys:
    """All keys as they are on disk at one moment.

    Attributes:
        authorized: for asyncssh; None where there is no key.
        lines: digests of all lines, by which an open session knows that its key is still there.
        problems: lines that are left out, and why.
    """

    authorized: asyncssh.SSHAuthorizedKeys | None
    lines: frozenset[str]
    problems: tuple[str, ...]


def read(place: Path) -> Keys:
    """Read a file or a folder of keys. Raises InvalidInput when there is none, or others may write to it."""
    texts: list[str] = []
    lines: set[str] = set()
    problems: list[str] = []
    for path, person in _files(place):
        for number, line in enumerate(_text(path).splitlines(), 1):
            line = line.strip()
            if not line or line.startswith("#"):
                continue
            try:
                text, digest = _line(line, person)
            except (ValueError, asyncssh.KeyImportError) as error:
                problems.append(f"{path}:{number}: {error}")
                continue
            texts.append(text)
            lines.add(digest)
    found = asyncssh.import_authorized_keys("\n".join(texts)) if texts else None
    return Keys(found, frozenset(lines), tuple(problems))


def stamp(place: Path) -> object:
    """Another value when a file was added, changed or removed."""
    try:
        return tuple(
            (str(path), (held := path.stat()).st_mtime_ns, held.st_size, held.st_ino)
            for path, _ in _files(place)
        )
    except (OSError, InvalidInput):
        return None


def who(connection: asyncssh.SSHServerConnection) -> tuple[Introduction, str]:
    """Who has just logged in, and the digest of the line that let them in. Raises ValueError."""

    def one(name: str) -> str:
        values = cast("list[str]", connection.get_key_option(name) or [])
        if len(values) != 1:
            raise ValueError(f"the key has no {name}")
        return values[0]

    return Introduction(check_person(one(_PERSON)), Role.parse(one(_ROLE))), one(_LINE)


def _files(place: Path) -> Iterator[tuple[Path, str | None]]:
    """Files of keys with the person that their name says; None for a single file."""
    try:
        _check_private(place)
        if not place.is_dir():
            yield place, None
            return
        names = sorted(os.listdir(place))  # noqa: PTH208 - names, not paths
    except FileNotFoundError:
        raise InvalidInput(
            f"there are no keys: {place} does not exist",
            f"`mkdir -p {place}`, and put a file there for each person: mira.pub is Mira's key.",
        ) from None
    except OSError as error:
        raise InvalidInput(f"cannot read {place}: {error.strerror}") from None
    for name in names:
        path = place / name
        if not name.startswith(".") and not name.endswith("~") and path.is_file():
            _check_private(path)
            yield path, name.removesuffix(".pub")


def _check_private(path: Path) -> None:
    held = path.stat()
    if held.st_uid not in (0, os.geteuid()) or held.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise InvalidInput(
            f"others may write to {path}, and so let themselves in",
            f"Make it yours alone: `chmod go-w {path}`.",
        )


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_LARGEST).decode(errors="replace")
    except FileNotFoundError:  # removed in this moment
        return ""
    except OSError as error:
        raise InvalidInput(f"cannot read {path}: {error.strerror}") from None


def _line(line: str, person: str | None) -> tuple[str, str]:
    """A line with our own options before its own, and its digest. Raises ValueError."""
    options, key = ({}, line) if line.startswith(_KEY_TYPES) else _options(line)
    if not key.startswith(_KEY_TYPES):
        raise ValueError("there is no public key in this line")
    name = check_person(person if person is not None else options.pop("name", ""))
    role = Role.parse(options.pop("role", str(Role.VIEWER)))
    options.pop("name", None)
    known = {"from", "cert-authority", "principals"}
    if unknown := sorted(options.keys() - known):
        raise ValueError(f"the option {unknown[0]} is not known here")
    if "cert-authority" in options and not options.get("principals"):
        # Without it any certificate of that authority would be this person's.
        raise ValueError('cert-authority needs principals="...", the principal that is this person')
    digest = hashlib.sha256(f"{name} {role} {line}".encode()).hexdigest()[:16]
    ours = {_PERSON: name, _ROLE: str(role), _LINE: digest}
    text = ",".join(n if v is None else f'{n}="{v}"' for n, v in {**ours, **options}.items())
    whole = f"{text} {key}"
    asyncssh.import_authorized_keys(whole)  # raises ValueError for what is no key
    return whole, digest


def _options(line: str) -> tuple[dict[str, str], str]:
    """The options of a line, and what follows them. Raises ValueError."""
    options: dict[str, str] = {}
    quoted, start = False, 0
    for index, letter in enumerate(line):
        if letter == "\\":
            raise ValueError("a backslash in options is not known here")
        if letter == '"':
            quoted = not quoted
        elif not quoted and letter in ", \t":
            name, equals, value = line[start:index].partition("=")
            if name in options or not name:
                raise ValueError("an option without a name, or twice")
            options[name] = value.strip('"') if equals else None  # type: ignore[assignment]
            start = index + 1
            if letter != ",":
                return options, line[index:].strip()
    raise ValueError("there is no public key in this line")
