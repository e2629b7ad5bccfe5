"""Metrics from lines of a log: patterns that name a number, for scripts that print and log nothing.

A set of patterns says where a line has its step and its numbers, as in
`{step: 'iter ([0-9]+)', loss: 'loss ([0-9.]+)'}`. The step holds for the lines that follow, until another
one says so; without a pattern for it each metric counts its own. The name `*` stands for a pattern of two
groups, a name and a number, each place of which in a line counts.

The expressions are RE2's, which takes time in proportion to the line whatever the expression: they are looked
for on every line of every rank, by the process that also renews leases.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

NUMBER = r"([-+]?(?:[0-9]+\.?[0-9]*(?:[eE][-+]?[0-9]+)?|\.[0-9]+(?:[eE][-+]?[0-9]+)?|nan|inf))"
NUMBER_SHORT = "([0-9.eE+-]+)"
"""The same as people write it."""
STEP, ANY = "step", "*"
MAX_PATTERN = 500
"""Characters of an expression."""
MAX_LINE = 16_384
"""Characters of a line that are looked at."""
_MEMORY = 1 << 20
"""Bytes that a compiled expression may take."""
_IGNORED = frozenset({"v_num"})
_MAX_STEP = 2**63 - 1

PatternSet: TypeAlias = Mapping[str, str]
"""Metric's name -> expression with one group."""

READY: dict[str, tuple[PatternSet, ...]] = {
    "nanogpt": (
        {
            STEP: r"^iter ([0-9]+):",
            "loss": rf"^iter [0-9]+: loss {NUMBER}",
            "time_ms": rf"^iter [0-9]+: .*time {NUMBER}ms",
            "mfu": rf"^iter [0-9]+: .*mfu {NUMBER}%",
        },
        {
            STEP: r"^step ([0-9]+):",
            "train_loss": rf"^step [0-9]+: train loss {NUMBER}",
            "val_loss": rf"^step [0-9]+: .*val loss {NUMBER}",
        },
    ),
    "keras": ({STEP: r"Epoch ([0-9]+)/[0-9]+", ANY: rf" - ([A-Za-z_][\w/]*): {NUMBER}"},),
    "lightning": ({STEP: r"^Epoch ([0-9]+):", ANY: rf"[\s,]([A-Za-z_][\w/]*)={NUMBER}"},),
    "hf": ({ANY: rf"'([A-Za-z_][\w/]*)': '?{NUMBER}"},),
}
"""Sets for what well-known trainers print."""


@dataclass(frozen=True, slots=True)
class Found:
    """A number in a line."""

    name: str
    step: int
    value: float  # may be NaN or an infinity


@dataclass(slots=True)
class Place:
    """How far a log was read, for one set of patterns: the step that holds, and of metrics without one, how
    many numbers there were."""

    step: int | None = None
    counts: dict[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {"step": self.step, "counts": dict(self.counts)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Place:
        return cls(data.get("step"), dict(data.get("counts") or {}))


class Reader:
    """Looks for one set of patterns. Raises ValueError for an expression that is none."""

    def __init__(self, patterns: PatternSet) -> None:
        self._step = compiled(patterns[STEP], 1) if STEP in patterns else None
        self._any = compiled(patterns[ANY], 2) if ANY in patterns else None
        self._named = [
            (name, compiled(text, 1)) for name, text in patterns.items() if name not in (STEP, ANY)
        ]

    def read(self, line: str, place: Place) -> list[Found]:
        """The numbers of a line; `place` is moved on."""
        line = _last_state(line)[:MAX_LINE]
        if self._step is not None and (match := self._step.search(line)):
            step = _number(match[1])
            if step is not None and 0 <= step <= _MAX_STEP:
                place.step = int(step)
        pairs: list[tuple[str, str]] = []
        for name, expression in self._named:
            if match := expression.search(line):
                pairs.append((name, match[1]))
        if self._any is not None:
            pairs += [(m[1], m[2]) for m in self._any.finditer(line) if m[1] not in _IGNORED]
        found = []
        for name, text in pairs:
            value = _number(text)
            if value is None:
                continue
            if self._step is None:
                step_of = place.counts.get(name, 0)
                place.counts[name] = step_of + 1
            elif place.step is None:
                continue  # before the first step there is none to belong to
            else:
                step_of = place.step
            found.append(Found(name, step_of, value))
        return found


def _last_state(line: str) -> str:
    """What a line that a progress bar rewrites shows in the end."""
    return line.rstrip("\r").rpartition("\r")[2].rpartition("\b")[2]


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None


def compiled(text: str, groups: int) -> Any:
    """An expression with this many groups. Raises ValueError with what is wrong."""
    import re2

    options = re2.Options()
    options.log_errors = False
    options.max_mem = _MEMORY
    if len(text) > MAX_PATTERN:
        raise ValueError(f"an expression of {len(text)} characters; allowed: {MAX_PATTERN}")
    try:
        expression = re2.compile(text, options)
    except re2.error as error:
        why = error.args[0] if error.args else error
        why = why.decode(errors="replace") if isinstance(why, bytes) else why
        hint = " (RE2 has no look-around and no back-references)" if "perl" in str(why) else ""
        raise ValueError(f"'{text}' is not a regular expression: {why}{hint}") from None
    if expression.groups != groups:
        wanted = "one group, the number" if groups == 1 else "two groups, a name and a number"
        raise ValueError(f"'{text}' has {expression.groups} groups; allowed: {wanted}")
    return expression


def expanded(sets: Sequence[str | PatternSet]) -> list[dict[str, str]]:
    """Sets with those that are named by a word in full. Raises ValueError for an unknown word."""
    found: list[dict[str, str]] = []
    for item in sets:
        if isinstance(item, str):
            if item not in READY:
                raise ValueError(f"found '{item}'; allowed: {', '.join(READY)}, or patterns")
            found += [dict(ready) for ready in READY[item]]
        else:
            found.append(dict(item))
    return found
