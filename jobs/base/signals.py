"""Signals by name. The kernel has 64, and Python has names for 35 of them."""

from __future__ import annotations

import signal

_FIRST = signal.SIGRTMIN
_NAMES = {int(member): member.name for member in signal.Signals}


def signal_name(number: int) -> str:
    """ "SIGKILL"; "SIGRTMIN+1" for the real-time ones, which programs number from SIGRTMIN on."""
    return _NAMES.get(number) or (
        f"SIGRTMIN+{number - _FIRST}" if _FIRST < number < signal.SIGRTMAX else f"SIG{number}"
    )


def signal_number(name: str) -> int | None:
    """The signal that `signal_name` gave this name; None when it is none."""
    return _NUMBERS.get(name)


_NUMBERS = {signal_name(number): number for number in range(1, 128)}
"""A wait status has seven bits for the signal."""
