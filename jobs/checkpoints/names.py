"""What the name of a checkpoint tells: its step, and which others are earlier ones of the same kind."""

from __future__ import annotations

import re
from typing import NamedTuple

_RANKS = re.compile(
    r"(?:^|(?<=[._\-/]))(?:rank|shard|part|proc|node|worker|tp|pp|dp|mp|ep|zero)"
    r"(?:[._-]?(?:rank|pp|dp|mp))*[._=-]?\d+|\d+-of-\d+",
    re.IGNORECASE,
)
"""Which rank or shard a file is of: that sets files apart, and does not order them."""
_STEPS = re.compile(
    r"(?:global[._-]?step|steps?|iterations?|iter|checkpoint|ckpt|batch|update)[._=-]?(?P<n>\d+)",
    re.IGNORECASE,
)
_EPOCHS = re.compile(r"(?:epochs?|ep)[._=-]?(?P<n>\d+)", re.IGNORECASE)
_NUMBERS = re.compile(r"\d+")
_SUFFIX = re.compile(r"(?:\.[A-Za-z][A-Za-z0-9]*)+$")
_MOST = 2**63 - 1


class Named(NamedTuple):
    """`series`: the same for all checkpoints of a kind. `order`: which of them is newer; None for one that
    is overwritten each time. `step`: the training step, if that is what the number counts."""

    series: str
    order: int | None
    step: int | None


def read_name(name: str) -> Named:
    """What the name of a file or folder in the checkpoint folder says.

    `step-200`, `checkpoint-200`, `epoch=3-step=200.ckpt` are of step 200. `epoch-3.pt` is the third of its
    kind, and tells no step. `model_200.pt`: the last number that names no rank is the step. `last.pt`,
    `model.v2.pt` have no number of their own.
    """
    suffix = _SUFFIX.search(name)
    stem, end = (name[: suffix.start()], suffix.group()) if suffix else (name, "")
    held = [match.span() for match in _RANKS.finditer(stem)]

    def free(match: re.Match[str]) -> bool:
        return not any(low < match.end() and match.start() < high for low, high in held)

    steps = [match for match in _STEPS.finditer(stem) if free(match)]
    epochs = [match for match in _EPOCHS.finditer(stem) if free(match)]
    numbers = [match for match in _NUMBERS.finditer(stem) if free(match)]
    if steps:
        order = _int(steps[-1]["n"])
        step: int | None = order
    elif epochs:
        order, step = _int(epochs[-1]["n"]), None
    elif numbers:
        order = step = _int(numbers[-1].group())
    else:
        return Named(name, None, None)
    if order is None:
        return Named(name, None, None)
    # Numbers of the name that order nothing (a loss in it) must not make a series of their own.
    parts, at = [], 0
    for match in numbers:
        parts += [stem[at : match.start()], "#"]
        at = match.end()
    return Named("".join([*parts, stem[at:], end]), order, step)


def _int(text: str) -> int | None:
    value = int(text[:20])
    return value if value <= _MOST and len(text) <= 20 else None
