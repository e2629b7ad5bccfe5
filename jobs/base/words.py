"""Numbers, durations and lists as people read them."""

from __future__ import annotations

from collections.abc import Sequence

NAMES_SHOWN = 3
"""A sentence names so many nodes or jobs and counts the rest."""


def duration(seconds: float) -> str:
    """ "45s", "12m", "2h05m", "3d4h": never shorter than it is."""
    whole = -int(-seconds // 1)
    if whole < 60:
        return f"{max(0, whole)}s"
    minutes = -(-whole // 60)
    if minutes < 60:
        return f"{minutes}m"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours}h{minutes:02d}m"
    return f"{hours // 24}d{hours % 24}h"


def number(amount: float) -> str:
    """A count without needless digits: "8", "0.5"."""
    return f"{amount:.6f}".rstrip("0").rstrip(".")


def counted(count: int, noun: str) -> str:
    return f"{count} {noun}" + ("" if count == 1 else "s")


def joined(words: Sequence[str]) -> str:
    """ "a", "a and b", "a, b and c"."""
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def listed(names: Sequence[str]) -> str:
    """Names, the first few of many."""
    if len(names) <= NAMES_SHOWN + 1:
        return joined(names)
    return f"{', '.join(names[:NAMES_SHOWN])} and {len(names) - NAMES_SHOWN} more"
