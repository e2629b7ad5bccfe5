"""Which network interface an address belongs to."""

from __future__ import annotations

import psutil


def interface_of(address: str) -> str | None:
    """The interface of this machine that has an address; None when it is not this machine's."""
    for name, entries in psutil.net_if_addrs().items():
        if any(entry.address == address for entry in entries):
            return name
    return None
