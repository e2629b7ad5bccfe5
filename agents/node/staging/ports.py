"""Free TCP ports for a gang's rendezvous."""

from __future__ import annotations

import random
import socket
from collections.abc import Collection
from pathlib import Path

from jobs.base.errors import Conflict

LOWEST = 20_000
"""Above the 10002..19999 from which Ray takes its workers' ports."""
_TRIES = 200


def ephemeral_start() -> int:
    """First port that the kernel may give to any outgoing connection at any moment."""
    text = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text()
    return int(text.split()[0])


def free_block(count: int, taken: Collection[int], seed: str) -> int:
    """First of `count` neighbouring ports that nobody listens on and that no outgoing connection can
    take before the gang does: they lie below the ephemeral range where there is room.

    Args:
        count: ports needed.
        taken: first ports of blocks given to other attempts, which may not listen yet.
        seed: where to begin looking, so that gangs which start together do not meet.

    Raises Conflict when none was found.
    """
    first, last = LOWEST, ephemeral_start() - count
    if last <= first + 1000:  # the range was widened on this host: no port is safe, most are free
        first, last = 1024, 65_535 - count
    numbers = random.Random(seed)  # noqa: S311 - nothing secret in a port
    for _ in range(_TRIES):
        port = numbers.randint(first, last)
        if all(abs(port - other) >= count for other in taken) and all(
            _is_free(port + step) for step in range(count)
        ):
            return port
    raise Conflict(f"found no {count} free TCP ports between {first} and {last}")


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True
