"""Waiting for what other processes do: polling, with a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from jobs.base.errors import QuarterdeckError

T = TypeVar("T")

PATIENCE = 60.0
"""Seconds within which anything on a real cluster must have happened, on a machine that is busy. Ray's
head needs about ten to be back."""


def until(
    look: Callable[[], T], what: str, patience: float = PATIENCE, *, pause: float = 0.05
) -> T:
    """What `look` gives once it is truthy. A control plane that is away meanwhile is no answer.

    Args:
        patience: seconds after which it fails.
        pause: seconds between two looks.
    """
    deadline = time.monotonic() + patience
    while True:
        problem = ""
        try:
            if found := look():
                return found
        except QuarterdeckError as error:
            problem = f" ({error.message})"
        assert time.monotonic() < deadline, f"waited {patience:g} s for {what}{problem}"
        time.sleep(pause)
