"""The language of `qd runs --filter`: `val_acc > 0.95 and param.lr <= 0.01 and not tag.team = vision`.

A condition compares a field with a value. Fields are those of a run (`FIELDS`), `param.NAME`,
`tag.NAME`, `data.NAME` and `metric.NAME`; any other name is a metric's. Conditions are joined by `and`,
`or`, `not` and parentheses. The text is only ever taken apart here: what reaches the database are the
values, as bound parameters.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

from jobs.base.errors import InvalidInput
from jobs.base.units import show

MAX_LENGTH, MAX_DEPTH = 2000, 30

TEXTS = ("name", "user", "state", "kind", "commit", "branch", "sweep")
NUMBERS = ("priority", "nodes", "ranks", "gpus", "exit_code", "restarts", "seed", "duration")
FIELDS = ("id", *TEXTS, *NUMBERS)
KINDS = ("param", "tag", "data", "metric")

Op = Literal["=", "!=", "<", "<=", ">", ">=", "~"]
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./:-]*")
_KEYS = {
    "param": re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./: -]{0,249}"),
    "data": re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}"),
    "tag": re.compile(r"[A-Za-z0-9_./: -]{1,250}"),
}
"""What such names can be in a spec, or as programs log them: nothing else becomes a path in JSON."""
_TOKEN = re.compile(
    r"""\s*(?:
      (?P<op>==|!=|<=|>=|=|<|>|~)
    | (?P<bracket>[()])
    | (?P<quoted>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
    | (?P<word>[^\s()<>=!~"']+)
    )""",
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class Condition:
    """`kind` is "field" or one of `KINDS`; `value` is a number where it reads as one, not quoted."""

    kind: str
    name: str
    op: Op
    value: str | float


@dataclass(frozen=True, slots=True)
class Not:
    inner: Expression


@dataclass(frozen=True, slots=True)
class All:
    parts: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Any_:
    parts: tuple[Expression, ...]


Expression = Condition | Not | All | Any_


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    at: int


def parse(text: str) -> Expression:
    """Raises InvalidInput with the place where it stops making sense."""
    if len(text) > MAX_LENGTH:
        raise InvalidInput(f"filter: {len(text)} characters; allowed: {MAX_LENGTH}")
    parser = _Parser(text, list(_tokens(text)))
    found = parser.either(0)
    if parser.left:
        raise parser.wrong("`and`, `or` or the end")
    return found


def key(text: str) -> Condition:
    """What runs can be sorted by: a metric, `param.NAME` or a field of numbers. Raises InvalidInput."""
    found = _checked(text, "=", 0.0)
    if found.kind in ("tag", "data") or (found.kind == "field" and found.name not in NUMBERS):
        raise InvalidInput(f"sort: {show(text)} is no number", "A metric, param.NAME or duration.")
    return found


def _tokens(text: str) -> Iterator[_Token]:
    at = 0
    while text[at:].strip():
        match = _TOKEN.match(text, at)
        if match is None:
            raise InvalidInput(f"filter: cannot read {show(text[at:].strip()[:40])}")
        kind = match.lastgroup or ""
        yield _Token(kind, match[kind], match.start(kind))
        at = match.end()


class _Parser:
    def __init__(self, text: str, tokens: list[_Token]) -> None:
        self._text, self._tokens, self._at = text, tokens, 0

    @property
    def left(self) -> bool:
        return self._at < len(self._tokens)

    def wrong(self, wanted: str) -> InvalidInput:
        if self.left:
            token = self._tokens[self._at]
            found = f"{show(token.text)} at character {token.at + 1}"
        else:
            found = "the end"
        return InvalidInput(
            f"filter: found {found}; expected {wanted}",
            "An example: `val_acc > 0.9 and param.lr < 0.01 and not tag.team = vision`.",
        )

    def _word(self, *words: str) -> bool:
        if self.left:
            token = self._tokens[self._at]
            if token.kind in ("word", "bracket") and token.text.lower() in words:
                self._at += 1
                return True
        return False

    def either(self, depth: int) -> Expression:
        if depth > MAX_DEPTH:
            raise InvalidInput(f"filter: more than {MAX_DEPTH} parentheses deep")
        parts = [self._both(depth)]
        while self._word("or"):
            parts.append(self._both(depth))
        return parts[0] if len(parts) == 1 else Any_(tuple(parts))

    def _both(self, depth: int) -> Expression:
        parts = [self._one(depth)]
        while self._word("and"):
            parts.append(self._one(depth))
        return parts[0] if len(parts) == 1 else All(tuple(parts))

    def _one(self, depth: int) -> Expression:
        negative = False
        while self._word("not"):
            negative = not negative
        if self._word("("):
            found = self.either(depth + 1)
            if not self._word(")"):
                raise self.wrong("`)`")
        else:
            found = self._condition()
        return Not(found) if negative else found

    def _condition(self) -> Condition:
        if not self.left or self._tokens[self._at].kind not in ("word", "quoted"):
            raise self.wrong("the name of a field")
        token = self._tokens[self._at]
        name = _unquoted(token)
        self._at += 1
        if not self.left or self._tokens[self._at].kind != "op":
            raise self.wrong(f"a comparison of {name}: =, !=, <, <=, >, >= or ~")
        op = self._tokens[self._at].text
        self._at += 1
        if not self.left or self._tokens[self._at].kind not in ("word", "quoted"):
            raise self.wrong("a value")
        value = self._tokens[self._at]
        self._at += 1
        return _checked(name, "=" if op == "==" else op, _value(value))


def _unquoted(token: _Token) -> str:
    return re.sub(r"\\(.)", r"\1", token.text[1:-1]) if token.kind == "quoted" else token.text


def _value(token: _Token) -> str | float:
    text = _unquoted(token)
    if token.kind == "word":
        try:
            return float(text)
        except ValueError:
            pass
    return text


def _checked(name: str, op: str, value: str | float) -> Condition:
    kind, _, rest = name.partition(".")
    kind = {"params": "param", "tags": "tag", "metrics": "metric"}.get(kind, kind)
    if kind in KINDS and rest:
        pattern = _KEYS.get(kind)
        if pattern is not None and not pattern.fullmatch(rest):
            raise InvalidInput(f"filter: no {kind} can be called {show(rest)}")
        name = rest
    elif name in FIELDS:
        kind = "field"
    else:
        kind = "metric"
    numbers = (kind == "field" and name in NUMBERS) or kind == "metric"
    if numbers and not isinstance(value, float):
        near = get_close_matches(name, FIELDS, 1) if kind == "metric" else []
        hint = (
            f"Did you mean {near[0]}?" if near else "Fields of text are " + ", ".join(TEXTS) + "."
        )
        raise InvalidInput(
            f"filter: {name} is compared with a number, not with {show(value)}", hint
        )
    text = kind in ("tag", "data") or (kind == "field" and name in ("id", *TEXTS))
    if (op in ("<", "<=", ">", ">=") and text) or (op == "~" and numbers):
        raise InvalidInput(f"filter: {name} {op} ... cannot be", "Text has =, != and ~ (contains).")
    found: Op = op  # type: ignore[assignment]
    return Condition(kind, name, found, value)
