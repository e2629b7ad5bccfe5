"""What a person has asked for and cannot be done: one sentence, and the job fails with it."""

from __future__ import annotations

from collections.abc import Sequence


class Mistake(Exception):
    """The sentence is the last line of the job's log, and the reason of the evaluation."""


def some(names: Sequence[object], most: int = 8) -> str:
    """Names in a sentence, at most so many."""
    told = ", ".join(str(name) for name in names[:most])
    return told + (f" and {len(names) - most} more" if len(names) > most else "") or "none"
