"""Which host keys are trusted: those of the user's known_hosts files, and no other, ever."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import asyncssh

_USER = ("~/.ssh/known_hosts", "~/.ssh/known_hosts2")
_GLOBAL = ("/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2")


def known_hosts(config: Any) -> asyncssh.SSHKnownHosts:
    """The hosts that the user knows.

    asyncssh would read the files by itself, but takes `UserKnownHostsFile none` to mean that any host is
    as good as another, and stops at a line that it does not understand.

    Args:
        config: an asyncssh client config (`get(option, default)`).
    """
    files = [
        *(config.get("UserKnownHostsFile", None) or ()),
        *(config.get("GlobalKnownHostsFile", None) or ()),
    ]
    if config.get("UserKnownHostsFile", None) is None:
        files = [*_USER, *files]
    if config.get("GlobalKnownHostsFile", None) is None:
        files = [*files, *_GLOBAL]
    return from_lines(line for name in files for line in _lines(name))


def from_lines(lines: Iterable[str]) -> asyncssh.SSHKnownHosts:
    """Those of the lines that make sense, as OpenSSH does it."""
    hosts = asyncssh.SSHKnownHosts()
    for line in lines:
        try:
            hosts.load(line)
        except ValueError:
            continue
    return hosts


def _lines(name: str) -> list[str]:
    try:
        return Path(name).expanduser().read_text(errors="replace").splitlines()
    except (OSError, RuntimeError):  # RuntimeError: there is no such home
        return []
