"""Types of columns."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, Dialect
from sqlalchemy.types import TypeDecorator

from jobs.base.numbers import heard, told


class WithNumbers(TypeDecorator[Any]):
    """JSON of numbers that may be infinite: a list of them, or an object with some. PostgreSQL takes none of
    what Python writes for those."""

    impl = JSON
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        return _each(value, lambda item: told(item) if isinstance(item, float) else item)

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        return _each(value, heard)


def _each(value: Any, change: Any) -> Any:
    if isinstance(value, dict):
        return {name: _each(item, change) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_each(item, change) for item in value]
    return change(value)
