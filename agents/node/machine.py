"""Which machine this is, however often it is started anew."""

from __future__ import annotations

import contextlib
import functools
import hashlib
from pathlib import Path

from agents.node.guard.records import boot_id
from jobs.life.boots import named

_ID = Path("/etc/machine-id")
_NETWORK = Path("/sys/class/net")


@functools.cache
def machine() -> str:
    """A digest of what stays with the machine: its id and the addresses of its network cards. Clones of one
    image may share the id, but not the cards. Empty when there is no id."""
    try:
        told = [_ID.read_text().strip()]
    except OSError:
        return ""
    if not told[0]:
        return ""
    with contextlib.suppress(OSError):
        for card in sorted(_NETWORK.iterdir()):
            with contextlib.suppress(OSError):
                if (card / "device").exists():  # else it is made by software, and changes
                    told.append((card / "address").read_text().strip())
    return hashlib.sha256("\n".join(told).encode()).hexdigest()[:16]


def boot() -> str:
    """This boot of this machine, as `jobs.life.boots` has it."""
    return named(machine(), boot_id())
