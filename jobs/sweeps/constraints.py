"""What a sweep demands beside its objective: `width * layers <= 1024`, `latency_ms <= 5`.

A constraint compares two sums of names and numbers. One that speaks of parameters alone holds for
points: none that breaks it is tried. One that names a metric holds for results: a trial that breaks it
is never the best, and samplers that can take it into account.
"""

from __future__ import annotations

import ast
import math
import operator
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from jobs.base.units import show

MAX_LENGTH = 200
_WORST = sys.float_info.max
"""The excess of what cannot be computed, such as a division by zero. Not infinite: JSON has none."""
BINARY: dict[type[ast.operator], Callable[[float, float], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}
UNARY: dict[type[ast.unaryop], Callable[[float], float]] = {
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}


@dataclass(frozen=True, slots=True)
class Constraint:
    """`left <= right`, as an expression that is at most 0 where it holds."""

    text: str
    names: frozenset[str]
    _left: ast.expr
    _right: ast.expr

    def excess(self, values: Mapping[str, Any]) -> float:
        """By how much `values` break it: 0 or less where they do not. A name that is not among them
        makes it hold, for a parameter that does not apply cannot break anything."""
        if not self.names <= values.keys():
            return 0.0
        try:
            found = _value(self._left, values) - _value(self._right, values)
        except (ArithmeticError, TypeError, ValueError):
            return _WORST
        return found if math.isfinite(found) else math.copysign(_WORST, found)


@lru_cache(maxsize=1024)
def parse(text: str) -> Constraint:
    """Read a constraint. Raises ValueError, in words."""
    if len(text) > MAX_LENGTH:
        raise ValueError(f"{len(text)} characters; allowed: {MAX_LENGTH}")
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ValueError(_found(text)) from None
    if not isinstance(tree, ast.Compare) or len(tree.ops) != 1:
        raise ValueError(_found(text))
    sides = {ast.LtE: (tree.left, tree.comparators[0]), ast.GtE: (tree.comparators[0], tree.left)}
    if type(tree.ops[0]) not in sides:
        raise ValueError(_found(text))
    left, right = sides[type(tree.ops[0])]
    names: set[str] = set()
    for side in (left, right):
        _check(side, text, names)
    if not names:
        raise ValueError(f"found {show(text)}, which names no parameter and no metric")
    return Constraint(text, frozenset(names), left, right)


def _found(text: str) -> str:
    return f"found {show(text)}; allowed: one comparison such as 'width * layers <= 1024'"


def _check(node: ast.expr, text: str, names: set[str]) -> None:
    match node:
        case ast.Name(id=name):
            names.add(name)
        case ast.Constant(value=bool()):
            raise ValueError(_found(text))
        case ast.Constant(value=int() | float()):
            pass
        case ast.BinOp(left=left, op=op, right=right) if type(op) in BINARY:
            _check(left, text, names)
            _check(right, text, names)
        case ast.UnaryOp(op=op, operand=operand) if type(op) in UNARY:
            _check(operand, text, names)
        case _:
            what = "allowed: names, numbers, + - * / ** and parentheses"
            raise ValueError(f"found {show(ast.unparse(node))} in {show(text)}; {what}")


def _value(node: ast.expr, values: Mapping[str, Any]) -> float:
    """Computed in floats: whole numbers could grow without bounds."""
    match node:
        case ast.Name(id=name):
            return float(values[name])
        case ast.Constant(value=int() | float() as number):
            return float(number)
        case ast.BinOp(left=left, op=op, right=right):
            return float(BINARY[type(op)](_value(left, values), _value(right, values)))
        case ast.UnaryOp(op=op, operand=operand):
            return UNARY[type(op)](_value(operand, values))
    raise TypeError(node)
