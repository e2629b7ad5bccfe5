"""Values of options, converted without pydantic.

Typer converts every value with a pydantic adapter, made anew for every parameter in every process.
Importing pydantic and making the adapters takes longer than all the rest of a command that asks one
question, so parameters of the plain types that ours have get this converter in its place. A type
that is not listed keeps Typer's own.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args, get_origin

import typer


def _boolean(value: Any) -> bool:
    return bool(value)


_TYPES: dict[Any, tuple[Callable[[Any], Any], str]] = {
    str: (str, "text"),
    int: (int, "a whole number"),
    float: (float, "a number"),
    Path: (Path, "a path"),
    bool: (_boolean, "a flag"),
}


class _Plain:
    """Stands where Typer keeps its `RuntimeParam`."""

    def __init__(self, kind: Any, low: float | None, high: float | None) -> None:
        self._convert, self._words = _TYPES[kind]
        self._low = low
        self._high = high

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        """The value of a parameter, or a list of them where it repeats. Raises BadParameter."""
        repeats = param.multiple or param.nargs == -1
        if value is None:
            return () if repeats else None
        if repeats:
            return [self._one(item, param, ctx) for item in value]
        return self._one(value, param, ctx)

    def _one(self, value: Any, param: Any, ctx: Any) -> Any:
        try:
            result = self._convert(value)
        except ValueError:
            raise typer.BadParameter(
                f"found {value!r}; allowed: {self._words}", ctx=ctx, param=param
            ) from None
        # Not `result < low`: NaN is out of every range.
        if self._low is not None and not result >= self._low:
            raise typer.BadParameter(
                f"found {value}; allowed: {self._low} or more", ctx=ctx, param=param
            )
        if self._high is not None and not result <= self._high:
            raise typer.BadParameter(
                f"found {value}; allowed: {self._high} or less", ctx=ctx, param=param
            )
        return result


def lighten(params: list[Any]) -> list[Any]:
    """Give parameters of Typer commands the plain converter where their type allows it."""
    for param in params:
        described = param.type_descriptor
        kind = described.annotation
        if get_origin(kind) is list:
            [kind] = get_args(kind)
        if kind in _TYPES and not described.is_choice:
            info = described.parameter_info
            param._runtime_param = _Plain(kind, info.min, info.max)
    return params
