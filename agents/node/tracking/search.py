"""Filters of MLflow's searches: `metrics.loss < 0.1 and params.opt = 'adam'`, joined by `and`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from agents.node.tracking.errors import invalid

MAX_LENGTH = 4000

_CLAUSE = re.compile(
    r"""\s*(?:(?P<kind>metrics?|params?|parameters?|tags?|attributes?|attr|run)\.)?
    (?P<name>`[^`]+`|"[^"]+"|[\w./-]+)
    \s*(?P<op><=|>=|!=|=|<|>|(?i:not\s+like|i?like|not\s+in|in)\b)
    \s*(?P<value>'(?:[^'])*'|"(?:[^"])*"|\((?:[^()]*)\)|[-+\w.]+)\s*""",
    re.VERBOSE,
)
_AND = re.compile(r"(?i:and)\b")
_KINDS = {"m": "metric", "p": "param", "t": "tag", "a": "attribute", "r": "attribute"}

Facts = Mapping[str, Mapping[str, Any]]
"""What is compared: kind ("metric", "param", "tag", "attribute") -> name -> value."""


@dataclass(frozen=True, slots=True)
class Clause:
    kind: str
    name: str
    op: str
    value: str | float | list[str]

    def holds(self, facts: Facts) -> bool:
        known = facts.get(self.kind, {}).get(self.name)
        return known is not None and _OPS[self.op](known, self.value)


def _like(flags: int) -> Callable[[Any, Any], bool]:
    def matches(known: Any, wanted: Any) -> bool:
        # No regular expression of the user's: `%` splits it, `_` is compared by hand.
        parts = [re.escape(part).replace("_", ".") for part in re.split("%+", str(wanted))]
        return re.fullmatch(".*?".join(parts), str(known)[:1000], flags | re.DOTALL) is not None

    return matches


_OPS: dict[str, Callable[[Any, Any], bool]] = {
    "=": lambda known, wanted: known == wanted,
    "!=": lambda known, wanted: known != wanted,
    "<": lambda known, wanted: known < wanted,
    "<=": lambda known, wanted: known <= wanted,
    ">": lambda known, wanted: known > wanted,
    ">=": lambda known, wanted: known >= wanted,
    "in": lambda known, wanted: known in wanted,
    "not in": lambda known, wanted: known not in wanted,
    "like": _like(0),
    "not like": lambda known, wanted: not _like(0)(known, wanted),
    "ilike": _like(re.IGNORECASE),
}


def parse(text: str) -> list[Clause]:
    """Raises Refused for what is no such filter."""
    if len(text) > MAX_LENGTH:
        raise invalid(f"A filter has {MAX_LENGTH} characters at most")
    clauses: list[Clause] = []
    at = 0
    while text[at:].strip():
        if clauses:
            joint = _AND.match(text, at)
            if joint is None:
                raise invalid(f"Invalid clause(s) in filter string: {text[at : at + 80]!r}")
            at = joint.end()
        match = _CLAUSE.match(text, at)
        if match is None:
            raise invalid(f"Invalid clause(s) in filter string: {text[at : at + 80]!r}")
        clauses.append(_clause(match))
        at = match.end()
    return clauses


def _clause(match: re.Match[str]) -> Clause:
    kind = _KINDS[match["kind"][0].lower()] if match["kind"] else "attribute"
    name, op, raw = match["name"].strip('`"'), " ".join(match["op"].lower().split()), match["value"]
    value: str | float | list[str] = raw[1:-1] if raw[0] in "'\"" else raw
    if op in ("in", "not in"):
        value = [part.strip().strip("'\"") for part in raw.strip("()").split(",")]
    elif kind == "metric" or name in ("start_time", "end_time"):
        try:
            value = float(raw)
        except ValueError:
            raise invalid(f"Expected a number for {kind} '{name}'; found {raw[:80]}") from None
    elif op in ("<", "<=", ">", ">="):
        raise invalid(f"{op} cannot be used for {kind}s, which are text")
    return Clause(kind, name, op, value)


def order(text: str) -> tuple[Callable[[Facts], Any], bool]:
    """What `metrics.loss DESC` sorts by, and whether the largest comes first. Raises Refused."""
    words = text.split()
    descending = len(words) > 1 and words[-1].upper() == "DESC"
    if words and words[-1].upper() in ("ASC", "DESC"):
        words = words[:-1]
    kind, dot, name = " ".join(words).partition(".")
    if not dot:
        kind, name = "attribute", kind
    place = _KINDS.get(kind[:1].lower())
    if place is None or not name:
        raise invalid(f"Invalid order_by clause {text[:100]!r}")
    name = name.strip('`"')
    return lambda of: of.get(place, {}).get(name), descending
