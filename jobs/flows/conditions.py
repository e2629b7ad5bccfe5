"""`when:` of a step: `steps.train.metrics.accuracy >= 0.9 and params.publish`.

The language of a sweep's constraints (sums of names and numbers, compared), with names that have dots,
text in quotes, `and`, `or` and `not`.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from jobs.base.units import show
from jobs.flows.references import Kind, Reference, reference
from jobs.spec.command import Scalar
from jobs.sweeps.constraints import BINARY, UNARY

MAX_LENGTH = 500
_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.LtE: operator.le,
    ast.Lt: operator.lt,
    ast.GtE: operator.ge,
    ast.Gt: operator.gt,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
_FORM = "a condition such as 'steps.train.metrics.accuracy >= 0.9 and params.publish'"


@dataclass(frozen=True, slots=True)
class Condition:
    text: str
    references: tuple[Reference, ...]
    _tree: ast.expr

    def check(self, kinds: Mapping[str, Kind]) -> None:
        """Raises ValueError where types do not fit. `kinds` is by the references' texts."""
        if (found := _kind(self._tree, kinds)) != "flag":
            raise ValueError(f"found {show(self.text)}, which is {_A[found]}; allowed: {_FORM}")

    def holds(self, values: Mapping[str, Scalar]) -> bool:
        """Raises ValueError when it cannot be computed, as for a division by zero."""
        try:
            return bool(_value(self._tree, values))
        except (ArithmeticError, TypeError) as error:
            raise ValueError(f"{show(self.text)} cannot be computed: {error}") from None


_A = {"number": "a number", "text": "text", "flag": "true or false", "file": "a file"}


@lru_cache(maxsize=1024)
def parse(text: str) -> Condition:
    """Read a condition. Raises ValueError, in words."""
    if len(text) > MAX_LENGTH:
        raise ValueError(f"{len(text)} characters; allowed: {MAX_LENGTH}")
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ValueError(f"found {show(text)}; allowed: {_FORM}") from None
    found: dict[str, Reference] = {}
    _collect(tree, text, found)
    if not found:
        raise ValueError(f"found {show(text)}, which names no parameter and no step")
    return Condition(text, tuple(found.values()), tree)


def _dotted(node: ast.expr) -> str | None:
    """`a.b.c` of nested attributes; None for anything else."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(parts)]) if isinstance(node, ast.Name) else None


def _word(node: ast.expr) -> bool | None:
    """`true` and `false`, which YAML and our files write small."""
    return {"true": True, "false": False}.get(node.id) if isinstance(node, ast.Name) else None


def _collect(node: ast.expr, text: str, found: dict[str, Reference]) -> None:
    match node:
        case ast.BoolOp(values=values):
            for item in values:
                _collect(item, text, found)
        case ast.UnaryOp(op=op, operand=operand) if isinstance(op, ast.Not) or type(op) in UNARY:
            _collect(operand, text, found)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in BINARY:
            _collect(left, text, found)
            _collect(right, text, found)
        case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in _COMPARE:
            _collect(left, text, found)
            _collect(right, text, found)
        case ast.Constant(value=bool() | int() | float() | str()):
            pass
        case ast.Name() | ast.Attribute() if _word(node) is None and (name := _dotted(node)):
            found[name] = reference(name)
        case ast.Name():
            pass
        case _:
            what = "allowed: names, numbers, text in quotes, + - * / **, comparisons, and, or, not"
            raise ValueError(f"found {show(ast.unparse(node))} in {show(text)}; {what}")


def _kind(node: ast.expr, kinds: Mapping[str, Kind]) -> Kind:
    match node:
        case ast.BoolOp(values=values):
            for item in values:
                _want(item, "flag", kinds)
            return "flag"
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            _want(operand, "flag", kinds)
            return "flag"
        case ast.UnaryOp(operand=operand):
            _want(operand, "number", kinds)
            return "number"
        case ast.BinOp(left=left, right=right):
            _want(left, "number", kinds)
            _want(right, "number", kinds)
            return "number"
        case ast.Compare(left=left, ops=[op], comparators=[right]):
            kind = _kind(left, kinds)
            _want(right, kind, kinds)
            if kind != "number" and not isinstance(op, ast.Eq | ast.NotEq):
                raise ValueError(f"{show(ast.unparse(left))} is {_A[kind]}; allowed here: == or !=")
            return "flag"
        case ast.Constant(value=value):
            return kind_of(value)
        case _:
            return "flag" if _word(node) is not None else kinds[_dotted(node) or ""]


def kind_of(value: object) -> Kind:
    if isinstance(value, bool):
        return "flag"
    return "number" if isinstance(value, int | float) else "text"


def _want(node: ast.expr, wanted: Kind, kinds: Mapping[str, Kind]) -> None:
    kind = _kind(node, kinds)
    if kind != wanted:
        raise ValueError(f"{show(ast.unparse(node))} is {_A[kind]}; allowed here: {_A[wanted]}")


def _value(node: ast.expr, values: Mapping[str, Scalar]) -> Any:
    match node:
        case ast.BoolOp(op=op, values=items):
            every = (bool(_value(item, values)) for item in items)
            return all(every) if isinstance(op, ast.And) else any(every)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return not _value(operand, values)
        case ast.UnaryOp(op=op, operand=operand):
            return UNARY[type(op)](_value(operand, values))
        case ast.BinOp(left=left, op=op, right=right):  # in floats: whole numbers have no bounds
            return BINARY[type(op)](float(_value(left, values)), float(_value(right, values)))
        case ast.Compare(left=left, ops=[op], comparators=[right]):
            return _COMPARE[type(op)](_value(left, values), _value(right, values))
        case ast.Constant(value=value):
            return value
        case _:
            word = _word(node)
            return word if word is not None else values[_dotted(node) or ""]
