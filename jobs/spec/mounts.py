"""What a job in a container sees of its nodes: `/data`, `/data:/mnt`, `/data:ro`. Standard library only."""

from __future__ import annotations

import re

PATTERN = re.compile(r'(/[^\0\n:,"]*)(?::(/[^\0\n:,"]*))?(:ro)?')


def mount_of(text: str) -> tuple[str, str, bool]:
    """A mount's path on the node, its path in the container, and whether it is read-only there.

    Raises ValueError for anything else.
    """
    found = PATTERN.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is no mount")
    return found[1], found[2] or found[1], found[3] is not None
