"""Where a remote cluster is: what stands after `--host`, and what a context holds."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from jobs.base.errors import InvalidInput

_PROTOCOL = 1
"""Of what carrier and client say to each other: a client never talks to a carrier of another age."""

_NAME = re.compile(r"[\w.%:-]+")
_USER = re.compile(r"[\w.+][\w.+-]*(@[\w.-]+)?\$?")


@dataclass(frozen=True, slots=True)
class Target:
    """A head, as SSH reaches it.

    Args:
        host: a name of the user's SSH config, a DNS name or an address.
        user: the account there; None leaves it to the SSH config.
        port: None leaves it to the SSH config.
        socket: path of the API socket on the head; None looks in the usual places there.
        context: the context that it comes from, if any.
    """

    host: str
    user: str | None = None
    port: int | None = None
    socket: str | None = None
    context: str | None = None

    @property
    def address(self) -> str:
        """As it is typed after `--host`."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        user = f"{self.user}@" if self.user else ""
        return f"{user}{host}" + (f":{self.port}" if self.port else "")

    @property
    def words(self) -> str:
        """For people: `lab (me@head)`."""
        return f"{self.context} ({self.address})" if self.context else self.address

    @property
    def ssh(self) -> str:
        """The command with which a person logs in there."""
        user = f"{self.user}@" if self.user else ""
        port = f"-p {self.port} " if self.port else ""
        return f"ssh {port}{user}{self.host}"

    def digest(self, environ: Mapping[str, str] = os.environ) -> str:
        """Names the carrier. Another SSH agent or home may open other doors, so it is another carrier."""
        import hashlib  # takes as long as all the rest here together

        held = [self.host, self.user, self.port, self.socket]
        ours = [environ.get(name) for name in ("SSH_AUTH_SOCK", "HOME")]
        text = json.dumps([_PROTOCOL, held, ours])
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def to_json(self) -> dict[str, str | int | None]:
        return {
            "host": self.host,
            "user": self.user,
            "port": self.port,
            "socket": self.socket,
            "context": self.context,
        }


def parse(text: str, *, socket: str | None = None, context: str | None = None) -> Target:
    """`[ssh://][user@]host[:port]`; an IPv6 address with a port stands in brackets.

    Raises InvalidInput. A host that begins with a dash is none: it would be an option to `ssh`.
    """
    user, at, rest = text.removeprefix("ssh://").rstrip("/").rpartition("@")
    if bracketed := re.fullmatch(r"\[([^\]]+)\](?::(\d+))?", rest):
        host, port = bracketed[1], bracketed[2]
    elif rest.count(":") == 1:
        host, _, port = rest.partition(":")
    else:
        host, port = rest, None
    good_port = port is None or (port.isascii() and port.isdigit() and 0 < int(port) < 65536)
    good_user = not at or _USER.fullmatch(user)
    if not good_port or not good_user or not _NAME.fullmatch(host) or host.startswith("-"):
        raise InvalidInput(
            f"'{text}' is not a host to reach by SSH",
            "It looks like head, me@head, me@head:2222 or me@[fe80::1]:22.",
        )
    if socket is not None and (not socket.startswith("/") or "\n" in socket or "\0" in socket):
        raise InvalidInput(
            f"'{socket}' is not an absolute path", "Give the socket's path on the head."
        )
    return Target(host, user if at else None, int(port) if port else None, socket, context)
