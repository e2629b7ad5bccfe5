"""Connecting to a host by SSH as the user's own config says it, through the hosts that it jumps over."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import asyncssh

from console.remote import words
from console.remote.keys import keys
from console.remote.target import Target, parse
from console.remote.trust import known_hosts
from jobs.base.errors import QuarterdeckError

CONNECT_TIMEOUT = 10.0
"""Seconds to connect and log in, unless `ConnectTimeout` of the SSH config says otherwise."""

KEEPALIVE = 3.0
"""Seconds of silence before a host is asked whether it is there, unless `ServerAliveInterval` says
otherwise. After three questions without an answer the connection counts as cut."""

Connection = asyncssh.SSHClientConnection


async def connect(
    target: Target,
    client: Callable[[], asyncssh.SSHClient],
    through: Connection | None = None,
    seen: tuple[str, ...] = (),
) -> list[Connection]:
    """The connections to the hosts on the way, that to the target last. Raises QuarterdeckError.

    asyncssh could jump by itself, but has an idea of its own whom to trust on the way, and jumps for
    ever where a config says `Host *` of its own jump host.

    Args:
        client: makes what is told of the last connection's end.
        through: what it has to go through.
        seen: hosts that are jumped over already.
    """
    seconds = CONNECT_TIMEOUT
    made: list[Connection] = [through] if through is not None else []
    given: dict[str, Any] = {"host": target.host}
    given |= {"username": target.user} if target.user else {}
    given |= {"port": target.port} if target.port else {}
    try:
        options = await asyncssh.SSHClientConnectionOptions.construct(
            **given, config=(), known_hosts=b"", client_keys=None
        )
        seconds = float(options.connect_timeout or CONNECT_TIMEOUT)
        if through is None:
            jumps = str(options.config.get("ProxyJump") or "").split(",")
            for jump in (parse(text.strip()) for text in jumps if text.strip()):
                if jump.host not in (*seen, target.host):
                    last = made[-1] if made else None
                    over = (*seen, target.host)
                    made = [*made[:-1], *await connect(jump, asyncssh.SSHClient, last, over)]
        hosts = known_hosts(options.config)
        try:
            connection = await asyncssh.connect(
                **given,
                **keys(options.config),
                known_hosts=hosts,
                tunnel=made[-1] if made else None,
                client_factory=client,
                connect_timeout=seconds,
                login_timeout=seconds,
                keepalive_interval=options.keepalive_interval or KEEPALIVE,
            )
        except asyncssh.HostKeyNotVerifiable as error:
            name = str(options.config.get("HostKeyAlias") or options.host)
            port = options.port if options.port != 22 else None
            raise words.host_key(target, known=bool(hosts.match(name, "", port)[0])) from error
    except BaseException as error:
        if through is None:
            close(made)
        if isinstance(error, QuarterdeckError) or not isinstance(error, Exception):
            raise
        raise words.of_error(target, error, seconds) from error
    return [*made, connection]


def close(connections: list[Connection]) -> None:
    """End them at once, the last first."""
    for connection in reversed(connections):
        with suppress(Exception):
            connection.abort()
